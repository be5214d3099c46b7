"""Make results/score.csv and score_predicted.csv: is the predicted error worth something?

    python scripts/score.py [--networks NAME...] [--data $SELECTQ_DATA] [--out results]

Fifty sets of mixed strategies and sizes on each network: what `selectq score` predicts, from the
table and a target alone, and what they reach. A run that was stopped goes on. `--networks digits`
is over in seconds.
"""
import argparse
import os
from pathlib import Path

import numpy as np
from clipping import LITE, LiteCase
from experiments import CIFAR, MENET, ROOT, load_case

from selectq.clustering import READINGS
from selectq.data import limit_pool
from selectq.matching import match
from selectq.scoring import set_ends, site_costs, table_target
from selectq.studies import Recipe, choose, given_recipe, measure_study, run_study
from selectq.targets import load_target, make_target, save_target

BITS = {MENET: 5, LITE: 5, 'digits': 4}  # 3 on the CIFAR-10 networks
IMAGES = {MENET: 500, LITE: 300, 'digits': 50}  # to evaluate on; 1,000 on CIFAR-10
SIZES = (1, 2, 5, 10, 30, 100)


def recipes(table, target):
    "Fifty sets: random, SelectQ in all readings, matched for two objectives, wide and narrow ones."
    found = [Recipe('random', n, seed) for n in SIZES for seed in range(5)]
    found += [Recipe('selectq', n, 0, reading) for reading in READINGS.values() for n in (10, 100)]
    for objective in ('influence', 'log'):
        for n in (1, 10, 30, 100):
            index = match(table, target, n, objective=objective).index
            found.append(given_recipe(f'match {objective} {n}', index))
    widths = (table.stats[..., 3] / np.median(table.stats[..., 3], 0)).max(1)
    order = table.index[np.argsort(widths, kind='stable')]
    for n in (10, 100):
        found += [given_recipe(f'narrow {n}', order[:n]), given_recipe(f'wide {n}', order[-n:])]
    return found


def targets(net, table, pool, bits, folder):
    "Targets to predict with, by name; those with errors are made once and kept."
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{net.name}-{table.kind}-{bits}.json'
    if not path.exists(): save_target(make_target(net, table, pool, 'mse', bits), path)
    target = load_target(path, table)
    return target, dict(influence=(target, 'influence'), error=(target, 'error'),
                        log=(target, 'log'), extremes=(table_target(table, bits), 'log'))


def predicted(table, recipe, ways):
    "The predicted error of a recipe's set, in every way."
    rows = np.searchsorted(table.index, choose(table, recipe).index)
    ends = set_ends(table.stats[rows])
    return {name: site_costs(ends, *way).sum() for name, way in ways.items()}


def run(case, bits, images, out, folder):
    "One network: all sets, predicted and measured."
    val = limit_pool(case.val, images)
    target, ways = targets(case.net, case.table, case.pool, bits, folder)
    sets = recipes(case.table, target)
    measure_study(case.table, sets, lambda t, r: predicted(t, r, ways), study='score_predicted',
                  out=out)
    run_study(case.net, val, case.table, sets, [bits], study='score', out=out, batch_size=50)


def main(networks, data, out, tables):
    for name in networks:
        load = LiteCase if name == LITE else lambda *a: load_case(name, *a)
        case = load(Path(data), Path(tables), 'input')
        run(case, BITS.get(name, 3), IMAGES.get(name, 1000), out, Path(tables) / 'targets')
        print(f'{name} done', flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', nargs='+', default=[*CIFAR, MENET, LITE])
    parser.add_argument('--data', default=os.environ.get('SELECTQ_DATA', '.'))
    parser.add_argument('--out', default=ROOT / 'results')
    parser.add_argument('--tables', default=ROOT / '.tables')
    main(**vars(parser.parse_args()))
