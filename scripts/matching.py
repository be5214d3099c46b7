"""What matching depends on, one knob at a time: results/match.csv.

    python scripts/matching.py run [--networks NAME...] [--bits 3] [--studies search objective ...]
    python scripts/matching.py write

Both take the folders of `scripts/clipping.py`. A run that was stopped goes on. Every row is the
accuracy of one network with the ranges of one set or one target, and its paired difference from
MSE-optimal ranges on the same images.
"""
from dataclasses import replace
from types import SimpleNamespace

import clipping
import numpy as np
import pandas as pd
from clipping import facts, of_selection, unpack
from selectq.matching import match
from selectq.outputs import OutputSettings
from selectq.targets import TargetSettings, make_target

COLUMNS = ['study', 'network', 'sites', 'bits', 'value', 'n', 'rule', 'objective', 'target',
           'strategy', 'seed', 'top1', 'se', 'difference', 'difference_se', 'cost', 'images',
           'weights', 'table', 'hardware', 'selectq', 'torch', 'numerics']
ESTIMATORS = ('minmax', 'mean-extremes', 'percentile', 'aciq-gauss', 'entropy', 'mse', 'output')
RULES = ('joint', 'mean', 'batch-mean 10', 'ema 0.95')


def matched(run, table, target, n, rule='joint', objective=None, **more):
    "The ranges of a matched set, and what the row says."
    chosen = match(table, target, n, rule, objective)
    part = SimpleNamespace(table=table)
    return of_selection(part, chosen, rule, target=target.ranges.estimator, **more)


def of_target(target, **more):
    "The ranges of a target, and what the row says."
    return target.ranges, facts('range', ranges=target.ranges.estimator, **more)


def made(run, estimator='mse', costs=True, **settings):
    "A target with other settings."
    return make_target(run.net, run.table, run.pool, estimator, run.bits,
                       TargetSettings(**settings), costs=costs)


def search(run):
    "How the target `output` is looked for; the images are others than those of the evaluation."
    ways = {f'gradient, {s} steps': OutputSettings(steps=s) for s in (50, 150, 400)}
    ways['descent'] = OutputSettings(method='descent')
    for name, way in ways.items():
        run.add(f'search|{name}|64', lambda: of_target(
            made(run, 'output', False, output=way), value=name))
    for images in (8, 16, 32):
        way = ways['gradient, 150 steps']
        run.add(f'search|gradient, 150 steps|{images}', lambda: of_target(
            made(run, 'output', False, output=way, images=images),
            value=f'gradient, 150 steps, {images} images'))


def objective(run):
    "What a miss costs."
    for name in ('influence', 'error', 'log'):
        for n in (10, 100):
            run.add(f'objective|{name}|{n}', lambda: matched(
                run, run.table, run.target('mse'), n, objective=name, value=name))


def target(run):
    "The ranges to carry: by themselves, and carried by ten images."
    for name in ESTIMATORS:
        found = run.target('mse') if name == 'mse' else None
        def make():
            nonlocal found
            found = found or made(run, name)
            return found
        run.add(f'target|{name}|range', lambda: of_target(make(), value=name))
        run.add(f'target|{name}|10', lambda: matched(run, run.table, make(), 10, value=name))


def rule(run):
    "How the tool puts extremes together: sets matched for the rule, and for `joint`."
    for name in RULES:
        for n in (10, 100):
            run.add(f'rule|{name}|{n}', lambda: matched(
                run, run.table, run.target('mse'), n, name, value=name))
            run.mixed(n, name)
        def other():
            chosen = match(run.table, run.target('mse'), 10)
            return of_selection(run, chosen, name, value=f'{name}, matched for joint')
        if name != 'joint': run.add(f'rule|{name}|joint', other)


def number(run):
    "The number of images."
    for n in (1, 2, 3, 5, 10, 20, 50, 100, 300, 1000, 'auto'):
        run.add(f'number|{n}|', lambda: matched(
            run, run.table, run.target('mse'), n, value=f'{n}'))


def part_of(table, rows):
    "A table of some of the images."
    rows = np.sort(rows)
    labels = None if table.labels is None else table.labels[rows]
    return replace(table, stats=table.stats[rows], index=table.index[rows], labels=labels,
                   names=table.names.take(rows), digests=table.digests.take(rows))


def pool(run):
    "The images to choose from: random parts of the pool."
    for size in (10, 100, 1000, 10_000, len(run.table)):
        for seed in range(3 if size <= 1000 else 1):
            stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
            rows = stream.permutation(len(run.table))[:size]
            run.add(f'pool|{size}|{seed}', lambda: matched(
                run, part_of(run.table, rows), run.target('mse'), 10, value=f'{size}', draw=seed))


def sample(run):
    "The random images behind the target."
    for size in (8, 32, 128, 256, 1024):
        for seed in range(2):
            found = lambda: made(run, sample=size, seed=seed)
            run.add(f'sample|{size}|{seed}', lambda: of_target(
                found(), value=f'{size}', seed=seed))


STUDIES = dict(search=search, objective=objective, target=target, rule=rule, number=number,
               pool=pool, sample=sample)


def main(args):
    "The studies of every network."
    for name in args.networks:
        for bits in args.bits:
            run = clipping.Run(name, args.kinds[0], bits, args, clipping.images_of(name, args))
            mse = run.target('mse')
            run.add('mse||', lambda: of_target(mse, value='mse'))
            for study in args.studies: STUDIES[study](run)
    write(args)


def write(args):
    "Gather what is in the work folder into results/match.csv."
    rows = []
    for found in clipping.cells(args):
        images = found['mse||']['row']['images']
        goal = unpack(found['mse||'], images).astype(float)
        for key, e in found.items():
            r = dict(e['row'])
            study = key.split('|')[0] if '|' in key else 'rule'
            d = unpack(e, images) - goal
            r['value'] = r.get('value', r.get('rule'))
            if 'draw' in r and r['draw'] == r['draw']: r['seed'] = r['draw']
            rows.append(r | dict(study=study, bits=r['a_bits'], difference=100 * d.mean(),
                                 difference_se=100 * d.std() / np.sqrt(images)))
    df = pd.DataFrame(rows)
    for c in set(COLUMNS) - set(df): df[c] = np.nan
    df['n'] = df.n.astype(int)
    args.out.mkdir(parents=True, exist_ok=True)
    order = ['study', 'network', 'bits', 'value', 'strategy', 'n', 'seed']
    df = df[COLUMNS].round(5).sort_values(order, kind='stable')
    df.to_csv(args.out / 'match.csv', index=False)


if __name__ == '__main__':
    parser = clipping.parser(__doc__, ('run', 'write'))
    parser.add_argument('--studies', nargs='+', default=list(STUDIES), choices=STUDIES)
    parser.set_defaults(networks=['resnet20_cifar10', 'mobilenetv2_cifar10'], bits=[3],
                        work=clipping.ROOT / '.matching')
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    dict(run=main, write=write)[args.what](args)
