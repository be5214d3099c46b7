"""A hundred images matched out of 1.28 million images x 21 sites, with the peak of memory.

The statistics are generated.

    python benchmarks/matching.py [--images 1281167] [--sites 21] [--sizes 10 100]
"""
import sys
sys.path.append(sys.path.pop(0))  # behind the standard library, which has a statistics module too

import argparse
import resource
import time

import numpy as np

from clustering import generated_table
from common import save, seconds
from selectq.calibration import Ranges
from selectq.matching import match
from selectq.targets import CELLS, Target, ratios


def generated_target(table):
    "Ranges at a third of the widest, with the usual errors: clipping below, rounding above."
    beta = table.stats[..., 3].max(0) / 3
    r = ratios()
    one = .01 * r ** 2 + np.maximum(1 - r, 0) ** 2
    error = one[None, :, None] * np.ones((len(beta), 1, CELLS + 1))
    ranges = Ranges(table.sites, table.kind, np.zeros_like(beta), beta, 'generated')
    return Target(ranges, 4, {}, (), error.astype(np.float32),
                  np.random.default_rng(0).gamma(1, 1, len(beta)))


def main(images, sites, sizes):
    # compiled now
    match(generated_table(2000, sites), generated_target(generated_table(2000, sites)), 5)
    table, rows = generated_table(images, sites), []
    target = generated_target(table)
    table.hash  # read once in any case: not part of the search
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for rule in ('joint', 'mean', 'ema 0.95'):
        for n in sizes:
            found, cpu = [], time.process_time()
            took = seconds(lambda: found.append(match(table, target, n, rule)))
            s = found[0].settings
            rows.append(dict(rule=rule, images=images, sites=sites, n=n, seconds=took,
                             cpu_seconds=time.process_time() - cpu,
                             cost=s['cost'], bound=s['bound'], cut_is_exact=s['cut_is_exact'],
                             peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                             before_mb=before))
    save(rows, 'matching')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=1_281_167)
    parser.add_argument('--sites', type=int, default=21)
    parser.add_argument('--sizes', type=int, nargs='+', default=[10, 100])
    main(**vars(parser.parse_args()))
