"""Make results/gates.csv: what the gates of SE-ResNet-20 do to a selection.

    python scripts/gates.py [PART...] [--kinds KIND...] [--data $SELECTQ_DATA] [--out results]

Kind `activation`: all activations are quantized; the score takes all sites, or leaves out the gates
(Sigmoid), the ReLUs of the squeezes, or both. Kind `relu`: the gates stay float, as in ZeroQ. The
parts have the sets of the studies of that name. Rows that are there already are not made again.
"""
import argparse
import os
from dataclasses import replace
from pathlib import Path

from selectq.ablations import ablation_recipes
from selectq.clustering import READINGS
from selectq.data import open_pool
from selectq.models import load_network
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


def main(parts, kinds, data, out, tables):
    data, net = Path(data), load_network(NAME, ROOT / f'results/weights/{NAME}.safetensors')
    pool, val = open_pool(data / 'cifar10/train.parquet'), open_pool(data / 'cifar10/test.parquet')
    for kind in kinds:
        table = collect(net, pool, kind, out=Path(tables) / f'{NAME}-{kind}', workers=1)
        for part in parts or PARTS:
            recipes, bits = PARTS[part]
            for b in bits:
                run_study(net, val, table, recipes(kind), [b], study='gates', out=out, batch_size=125)
                print(f'{kind}: {part} at {b} bits done', flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('parts', nargs='*', metavar='PART', help=', '.join(PARTS))
    parser.add_argument('--kinds', nargs='+', choices=FIRST, default=['relu', 'activation'])
    parser.add_argument('--data', default=os.environ.get('SELECTQ_DATA', '.'))
    parser.add_argument('--out', default=ROOT / 'results')
    parser.add_argument('--tables', default=ROOT / '.tables')
    main(**vars(parser.parse_args()))
