"""Make results/gates.csv and gates_scores.csv: gates, squeezes and the selection on SE-ResNet-20.

    python scripts/gates.py [PART...] [--kinds KIND...] [--data $SELECTQ_DATA] [--out results]

Kind `activation`: all activations are quantized; the score takes all sites, or leaves out the gates
(Sigmoid), the ReLUs of the squeezes, or both. Kind `relu`: the gates stay float, as in ZeroQ. The
parts have the sets of the studies of that name. Rows that are there already are not made again.
Part `scores` (seconds) says which sites decide a score, and how wide the chosen ranges are.
"""
import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from selectq.ablations import ablation_recipes
from selectq.clustering import READINGS, cluster
from selectq.data import open_pool
from selectq.models import load_network
from selectq.ranking import check_selection, score_images, scored_sites, select
from selectq.strategies import select_balanced
from selectq.studies import Recipe, run_study
from selectq.traversal import collect

ROOT, NAME = Path(__file__).parents[1], 'seresnet20_cifar10'
FIRST = dict(activation='!*.se.sigmoid', relu='all')  # scored sites: all sets of a study
# scored sites that only the printed reading is tried with
OTHERS = dict(activation=('all', '!*.se.*', '!*.se.activ'), relu=('!*.se.*',))


def table1(kind):
    "1000 images: five balanced sets, five traversals of two readings."
    few = [Recipe('selectq', 1000, 0, READINGS['printed'])]
    sets = [Recipe('selectq', 1000, seed, READINGS[r])
            for r in ('printed', 'text') for seed in range(5)]
    return [Recipe('balanced', 1000, seed) for seed in range(5)] + scored(kind, sets, few)


def readings(kind):
    "100 images: three balanced sets, three traversals of all four readings."
    sets = [r for r in ablation_recipes('reading', 100, 3) if r.strategy == 'selectq']
    few = [Recipe('selectq', 100, seed, READINGS['printed']) for seed in range(3)]
    return [Recipe('balanced', 100, seed) for seed in range(3)] + scored(kind, sets, few)


def fig2(kind):
    "1000 images: fifty balanced sets."
    return [Recipe('balanced', 1000, seed) for seed in range(50)]


def scored(kind, sets, few):
    "The recipes with the sites that count in their score."
    pairs = [(r, FIRST[kind]) for r in sets] + [(r, s) for s in OTHERS[kind] for r in few]
    return [replace(r, settings=replace(r.settings, score_sites=s)) for r, s in pairs]


BITS = (4, 8, 3, 6, 5)  # one after the other: the first rows are there soon
PARTS = dict(table1=(table1, BITS), readings=(readings, BITS), fig2=(fig2, (4, 3)))


def group(site):
    "What a site of SE-ResNet-20 is."
    if '.se.' not in site: return 'outside'
    return 'gate' if site.endswith('sigmoid') else 'squeeze'


def shares(table, settings):
    "Share of each site in the variance of the score: its covariance with it over that variance."
    clustering, found = cluster(table, settings), np.zeros(len(table.sites))
    score = score_images(table, clustering)
    for k in scored_sites(table, settings.score_sites):
        alone = replace(clustering, settings=replace(settings, score_sites=table.sites[k]))
        found[k] = np.cov(score_images(table, alone), score)[0, 1] / score.var(ddof=1)
    return found


def scores(table):
    "Per group of sites: its share in the variance of the score; the width of the chosen ranges."
    widest = lambda s: table.stats[check_selection(s, table), :, 3].max(0).astype(float)
    rows, groups = [], np.array([group(s) for s in table.sites])
    left_out = dict.fromkeys(('all', FIRST[table.kind], *OTHERS[table.kind]))
    for n in (100, 1000):
        balanced = np.mean([widest(select_balanced(table, n, seed)) for seed in range(10)], 0)
        for name in ('printed', 'text'):
            for score_sites in left_out:
                s = replace(READINGS[name], score_sites=score_sites)
                width, share = widest(select(table, n, s)) / balanced, shares(table, s)
                rows += [dict(network=NAME, sites=table.kind, update=s.update, order=s.order, n=n,
                              score_sites=score_sites, group=g, of=int((groups == g).sum()),
                              share=share[groups == g].sum(), width=width[groups == g].mean(),
                              narrowest=width[groups == g].min())
                         for g in dict.fromkeys(groups)]
    return rows


def main(parts, kinds, data, out, tables):
    data, net = Path(data), load_network(NAME, ROOT / f'results/weights/{NAME}.safetensors')
    pool, val = open_pool(data / 'cifar10/train.parquet'), open_pool(data / 'cifar10/test.parquet')
    found = []
    for kind in kinds:
        table = collect(net, pool, kind, out=Path(tables) / f'{NAME}-{kind}', workers=1)
        for part in parts or (*PARTS, 'scores'):
            if part == 'scores': found += scores(table)
            recipes, bits = PARTS.get(part, ((), ()))
            for b in bits:
                run_study(net, val, table, recipes(kind), [b], study='gates', out=out,
                          batch_size=125)
                print(f'{kind}: {part} at {b} bits done', flush=True)
    if found: pd.DataFrame(found).round(4).to_csv(Path(out) / 'gates_scores.csv', index=False)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('parts', nargs='*', metavar='PART', help=', '.join((*PARTS, 'scores')))
    parser.add_argument('--kinds', nargs='+', choices=FIRST, default=['relu', 'activation'])
    parser.add_argument('--data', default=os.environ.get('SELECTQ_DATA', '.'))
    parser.add_argument('--out', default=ROOT / 'results')
    parser.add_argument('--tables', default=ROOT / '.tables')
    main(**vars(parser.parse_args()))
