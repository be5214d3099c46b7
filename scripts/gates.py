"""Make results/gates.csv: what the gates of SE-ResNet-20 do to a selection, when they are scored and when they are quantized.

    python scripts/gates.py activation relu [--data $SELECTQ_DATA] [--out results] [--tables .tables]

Sites `activation`: all activations are quantized, and the score leaves out nothing, the gates (Sigmoid), the ReLUs of the
squeezes, or both. Sites `relu`: gates stay float, as in ZeroQ. Sets of 1000 images as in table1 and fig2, of 100 as in readings.
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
LEFT_OUT = dict(activation=('all', '!*.se.sigmoid', '!*.se.*', '!*.se.activ'), relu=('all', '!*.se.*'))
BITS = (8, 6, 5, 4, 3)


def recipes(score_sites):
    "The SelectQ sets of table1 (1000 images, five traversals) and of readings (100, three)."
    large = [Recipe('selectq', 1000, seed, READINGS[r]) for r in ('printed', 'text') for seed in range(5)]
    small = [r for r in ablation_recipes('reading', 100, 3) if r.strategy == 'selectq']
    return [replace(r, settings=replace(r.settings, score_sites=score_sites)) for r in small + large]


def main(kinds, data, out, tables):
    data, net = Path(data), load_network(NAME, ROOT / f'results/weights/{NAME}.safetensors')
    pool, val = open_pool(data / 'cifar10/train.parquet'), open_pool(data / 'cifar10/test.parquet')
    for kind in kinds:
        table = collect(net, pool, kind, out=Path(tables) / f'{NAME}-{kind}', workers=1)
        run = lambda sets: run_study(net, val, table, sets, BITS, study='gates', out=out, batch_size=125)
        run([Recipe('balanced', 100, seed) for seed in range(3)])
        run([Recipe('balanced', 1000, seed) for seed in range(5)])
        for score_sites in LEFT_OUT[kind]:
            run(recipes(score_sites))
            print(kind, score_sites, 'done', flush=True)
        run([Recipe('balanced', 1000, seed) for seed in range(50)])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('kinds', nargs='+', choices=LEFT_OUT)
    parser.add_argument('--data', default=os.environ.get('SELECTQ_DATA', '.'))
    parser.add_argument('--out', default=ROOT / 'results')
    parser.add_argument('--tables', default=ROOT / '.tables')
    main(**vars(parser.parse_args()))
