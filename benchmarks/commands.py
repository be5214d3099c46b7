"""What `selectq info` and `selectq select` take on a finished table, beside `selectq --help`.

Seconds of the processor and of the clock; the first do not depend on what else the machine does.

    python benchmarks/commands.py [--images 1000 10000 50000] [--rounds 7]
"""
import sys
sys.path.append(sys.path.pop(0))  # behind the standard library, which has a statistics module too

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import subprocess

from common import save
from memory import write_generated

SITES = 21


def taken(words):
    "Seconds of the clock, and of the processor in the process and its children."
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, '-m', 'selectq', *map(str, words)], check=True,
                   stdout=subprocess.DEVNULL, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    now = os.times()
    used = now.children_user + now.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def main(images, rounds):
    "One row for each command and size of table."
    rows = []
    with tempfile.TemporaryDirectory() as d:
        for n in images:
            table = Path(d) / f'stats{n}'
            write_generated(table, n, SITES)
            commands = dict(help=['--help'], info=['info', table],
                            select=['select', table, '-n', 100, '--out', Path(d) / 'set.json'])
            for words in commands.values(): taken(words)  # compiled, and in the cache of files
            times = {k: [] for k in commands}
            for _ in range(rounds):
                for k, words in commands.items(): times[k].append(taken(words))
            for k, found in times.items():
                clock, used = np.median(found, 0)
                rows.append(dict(command=k, images=n, sites=SITES, processor_s=used, clock_s=clock,
                                 least_clock_s=np.min(found, 0)[0], rounds=rounds))
    save(rows, 'commands')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, nargs='+', default=[1000, 10_000, 50_000])
    parser.add_argument('--rounds', type=int, default=7)
    main(**vars(parser.parse_args()))
