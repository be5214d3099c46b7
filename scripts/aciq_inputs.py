"""What ACIQ's Gaussian loses by reading the table in place of the activation functions' inputs.

    python scripts/aciq_inputs.py [--networks NAME...] [--out results] [--tables FOLDER]

Writes aciq_inputs.csv (a row per site: mean and sigma of the input, recorded and from the table,
and the squared error of both ranges) and aciq_accuracy.csv (top-1 with either, and with the
statistics of the output).
100 balanced images; every fifth CIFAR-10 test image, all 500 of the ImageNet sample.
"""
import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import CIFAR, MENET, ROOT, Case, append

from selectq.calibration import quantized
from selectq.batches import load_batches
from selectq.aciq import aciq_range
from selectq.estimators import chosen_rows, observe
from selectq.estimators import _chosen_batches, _input_hooks
from selectq.histograms import squared_error
from selectq.evaluation import standard_error
from selectq.sites import inference
from selectq.studies import Recipe, choose

BITS = 4  # of the squared errors
WIDTHS = {MENET: (6, 5)}  # of the accuracies; 6, 4 and 3 elsewhere


def widths(case): return WIDTHS.get(case.net.name, (6, 4, 3))


def recorded_bells(case, selection):
    "Mean and sigma of what comes into every activation function, (sites, 2) float64."
    sums, table = np.zeros((len(case.table.sites), 3)), case.table
    def add(k, x): sums[k] += x.numel(), x.double().sum().item(), x.double().square().sum().item()
    batches = _chosen_batches(case.net, table, chosen_rows(table, selection), case.pool, 50, 0)
    with inference(case.net.module), _input_hooks(case.net.module, table.sites, add):
        for b in batches: case.net.module(b.images)
    mean = sums[:, 1] / sums[:, 0]
    return np.stack([mean, np.sqrt(sums[:, 2] / sums[:, 0] - mean ** 2)], 1)


def ranges_of(seen, bells, bits):
    "Ranges of an ACIQ observation with other bells."
    other = replace(seen)
    other.__dict__['bells'] = bells
    return other.ranges(bits)


def of_output(seen, bits):
    "The mistake: the half range with mean and standard deviation of the output."
    ends = [aciq_range(s.mean, s.std, bits, 'gauss', s.low >= 0) for s in seen.sites]
    o, (low, high) = seen.observed, np.array(ends, np.float32).T
    return replace(o, alpha=np.clip(low, o.alpha, 0), beta=np.clip(high, 0, o.beta))


def compare(case, seed):
    "The ranges of one set by three statistics, for every number of bits; and the observations."
    chosen = choose(case.table, Recipe('balanced', 100, seed))
    seen, values = (observe(case.net, case.table, chosen, e, pool=case.pool)
                    for e in ('aciq-gauss', 'mse'))
    bells = [tuple(b) for b in recorded_bells(case, chosen).tolist()]
    ranges = {b: dict(minmax=seen.observed, output=of_output(seen, b),
                      recorded=ranges_of(seen, bells, b), table=seen.ranges(b))
              for b in {*widths(case), BITS}}
    return seen, values, bells, ranges


def site_rows(case):
    "One row per site, first set."
    seen, values, bells, ranges = compare(case, 0)
    least, rows = values.ranges(BITS), []
    error = lambda k, r: squared_error(values.kept[k], r.alpha[k:k + 1], r.beta[k:k + 1], BITS)[0]
    for k, (name, s) in enumerate(zip(case.table.sites, seen.sites)):
        table = seen.bells[k] or (np.nan, np.nan)
        row = dict(network=case.net.name, site=name, activation=type(s.fn).__name__,
                   input_mean=bells[k][0], input_sigma=bells[k][1], table_mean=table[0],
                   table_sigma=table[1])
        row |= {f'error_{e}': error(k, r) for e, r in ranges[BITS].items()}
        row |= dict(error_least=error(k, least))
        rows.append({c: f'{v:.6g}' if isinstance(v, float) else v for c, v in row.items()})
    return [dict(r, a_bits=BITS, **case.facts, numerics=2) for r in rows]


def accuracy_rows(case, sets):
    "Top-1 for each of the statistics."
    step = 1 if case.net.name == MENET else 5
    val = list(load_batches(case.val, case.net.preprocess, np.arange(0, len(case.val), step),
                            case.batch_size, 0))
    n, rows = sum(len(b) for b in val), []
    for seed in range(sets):
        for bits, named in compare(case, seed)[3].items():
            if bits not in widths(case): continue
            for statistics, r in named.items():
                with quantized(case.net, r, bits, bits) as q:
                    right = sum((q(b.images).argmax(1).numpy() == b.labels).sum() for b in val)
                top1 = 100 * float(right) / n
                rows.append(dict(network=case.net.name, statistics=statistics, w_bits=bits,
                                 a_bits=bits, n=100, seed=seed, top1=round(top1, 4),
                                 se=round(float(standard_error(top1, n)), 4), images=n,
                                 **case.facts, numerics=2))
    return rows


def main(networks, data, out, tables):
    for name in networks:
        case = Case(name, Path(data), Path(tables))
        append(Path(out) / 'aciq_inputs.csv', site_rows(case))
        append(Path(out) / 'aciq_accuracy.csv', accuracy_rows(case, 2))
        print(name, 'done', flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', nargs='+', default=[*CIFAR, MENET])
    parser.add_argument('--data', default=os.environ.get('SELECTQ_DATA', '.'),
                        help='folder with cifar10 and the sample')
    parser.add_argument('--out', default=ROOT / 'results')
    parser.add_argument('--tables', default=ROOT / '.tables',
                        help='where the statistics tables are kept')
    main(**vars(parser.parse_args()))
