"""Make the result files (results/*.csv) of experiments, ablations and the grid of estimators.

    python scripts/experiments.py PART... [--data $SELECTQ_DATA] [--networks NAME...]
                                          [--out results] [--tables FOLDER]

Parts: tables (table1, table3, table4, fig2, fig6, fig7), grid (estimator x selection x bits),
readings, ablations (one knob each), sites, agreement. CIFAR-10 has 50,000 images to choose from and
10,000 to evaluate on, the ImageNet sample 1,000 and 500. A run that was stopped goes on; rows made
by other numerics are made again. `--networks digits` is over in seconds.
"""
import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from selectq.ablations import KNOB_VALUES, ablation_recipes
from selectq.channels import channel_statistics
from selectq.clustering import READINGS
from selectq.data import limit_pool, open_pool, read_classes
from selectq.measures import (measure_dead, measure_looks, measure_positions, measure_seconds,
                              measure_site_widths, measure_width, random_widths)
from selectq.models import Network, load_network
from selectq.paper import experiment_recipes, experiment_settings
from selectq.looks import image_looks
from selectq.statistics import noise_statistics
from selectq.studies import Recipe, choose, given_recipe, measure_study, run_study
from selectq.table import StatisticsTable
from selectq.traversal import collect

ROOT = Path(__file__).parents[1]
CIFAR = ('resnet20_cifar10', 'seresnet20_cifar10', 'mobilenetv2_cifar10')
MENET = 'menet128_8x1_g4'
PAPERS = 'printed', 'text'  # the two readings of the paper's text
ESTIMATORS = ('minmax', 'mean-extremes', 'percentile', 'mse', 'entropy', 'aciq-gauss',
              'aciq-laplace')


def key_word(value):
    "A value of a key as it is compared: 8, 8.0 and '8' are one."
    if pd.isna(value) or value == '': return ''
    try: return f'{float(value):g}'
    except (TypeError, ValueError): return str(value)


def merged(path, new, keys):
    "Rows of a result file with other keys than the new rows, and the new ones behind them."
    if not path.exists(): return new
    old = pd.read_csv(path)
    of = lambda df: df[keys].map(key_word).agg('|'.join, axis=1)
    return pd.concat([old[~of(old).isin(of(new))], new])


@dataclass(frozen=True)
class Scale:
    "How large the studies of a network are."
    n: int = 1000  # images in a set of the tables
    small: int = 100  # images in a set of the other studies
    bits: tuple = (8, 6, 5, 4, 3)
    low: tuple = (4, 3)  # bit widths at which sets differ
    traversals: int = 5  # of the tables
    seeds: int = 3  # of the other studies
    batch_size: int = 125
    changes: tuple = ()  # pairs (field of `Experiment`, value)


SCALES = {MENET: Scale(n=100, bits=(8, 6, 5, 4), low=(6, 5), batch_size=50),
          'digits': Scale(10, 10, (4,), (3,), 1, 1, 50, (('sets', 2), ('centroids', (2, 10))))}


@dataclass(frozen=True)
class Case:
    "A network with its images, its table, and the sizes that suit it."
    net: Network
    pool: object  # a `Pool`
    val: object  # a `Pool`
    table: StatisticsTable
    scale: Scale

    def study(self, name, recipes, bits, out, **options):
        return run_study(self.net, self.val, self.table, recipes, bits, study=name, out=out,
                         batch_size=self.scale.batch_size, **options)

    def measure(self, name, recipes, measure, out):
        return measure_study(self.table, recipes, measure, study=name, out=out)

    def recipes(self, readings, seeds=None):
        "SelectQ's small sets."
        seeds = self.scale.seeds if seeds is None else seeds
        return [Recipe('selectq', self.scale.small, seed, READINGS[r]) for r in readings
                for seed in range(seeds)]

    def random(self):
        return [Recipe('balanced', self.scale.small, seed) for seed in range(self.scale.seeds)]


def images(name, data):
    "Weights, pool and validation set of a network."
    if name == 'digits':
        train, val = open_pool('digits'), open_pool('digits', 'val')
        return None, limit_pool(train, 150), limit_pool(val, 50)
    if name != MENET:
        pool, val = (open_pool(data / f'cifar10/{part}.parquet') for part in ('train', 'test'))
        return ROOT / f'results/weights/{name}.safetensors', pool, val
    folder = data / 'imagenet-sample'
    classes = read_classes(folder / 'wnids.json')
    train, val = (open_pool(folder / part, classes=classes) for part in ('train', 'val'))
    return data / f'weights/{name}.safetensors', train, val


def load_case(name, data, tables, kind='activation'):
    weights, pool, val = images(name, data)
    net, scale = load_network(name, weights), SCALES.get(name, Scale())
    table = collect(net, pool, kind, out=tables / f'{name}-{kind}', workers=1)
    return Case(net, pool, val, table, scale)


def tables(case, out):
    "The forms of the paper's tables and figures."
    s = case.scale
    cifar = ('table1', 'table4', 'fig2', 'fig6', 'fig7')
    for name in ('table3', 'fig2') if case.net.name == MENET else cifar:
        asked = dict(bits=s.bits, sizes=(s.n,)) | dict(s.changes)
        if name == 'fig6': asked['sizes'] = None if s.n == 1000 else (s.n, 2 * s.n)
        if name != 'fig7': asked.pop('centroids', None)
        e = experiment_settings(name, case.pool, **asked)
        case.study(name, experiment_recipes(e, s.traversals), e.bits, out, estimators=e.estimators)


def grid(case, out):
    "Estimator x selection x bits."
    case.study('grid', case.random() + case.recipes(PAPERS), case.scale.low, out,
               estimators=ESTIMATORS, pool=case.pool)


def readings(case, out):
    "All four pairs of Eq. 3 and Eq. 5 at every bit width, and what their sets are like."
    s, all_four = case.scale, case.recipes(READINGS)
    case.study('readings', ablation_recipes('reading', s.small, s.seeds), s.bits, out)
    unit, seen = random_widths(case.table, s.small), image_looks(case.pool)
    types = [type(case.net.module.get_submodule(name.split(':')[0])).__name__
             for name in case.table.sites]
    case.measure('readings_width', all_four, lambda t, r: measure_width(t, r, unit), out)
    case.measure('readings_looks', all_four, lambda t, r: measure_looks(t, r, seen, case.pool), out)
    case.measure('readings_sites', case.recipes(READINGS, 1),
                 lambda t, r: measure_site_widths(t, r, unit, types), out)
    least = [given_recipe(f'least {q}', np.argsort(seen[q].to_numpy(), kind='stable')[:s.small])
             for q in seen]
    case.study('readings_pixels', least, s.low, out)
    if any('.se.' in name for name in case.table.sites):
        gates = [replace(r, settings=replace(r.settings, score_sites='!*.se.*'))
                 for r in case.recipes(PAPERS, 1)]
        case.study('readings_gates', gates, s.bits, out)


def changed(case, knob):
    return [replace(r, settings=replace(r.settings, **c)) for r in case.recipes(PAPERS, 1)
            for c in KNOB_VALUES[knob]]


def ablations(case, out):
    "One knob at a time; what centroids and distances cost, and how many centroids never move."
    s, kind = case.scale, case.table.kind
    channels = channel_statistics(case.net, case.pool, kind)
    noise = noise_statistics(case.net, kind, 10, noise='gaussian')
    case.measure('centroids_seconds', changed(case, 'centroids'), measure_seconds, out)
    case.measure('granularity_dead', changed(case, 'granularity'), measure_dead, out)
    for part, given in split(changed(case, 'distance'), channels, noise):
        case.measure('distance_cost', part, lambda t, r: measure_seconds(t, r, **given), out)
    for knob in KNOB_VALUES:
        if knob in ('reading', 'centroids'): continue  # `readings`, and fig7 of `tables`
        recipes = ablation_recipes(knob, s.small, s.traversals if knob == 'traversal' else s.seeds)
        for part, given in split(recipes, channels, noise):
            case.study(knob, part, s.low, out, given=given)


def split(recipes, channels, noise):
    "Recipes that `choose` gives the same things beside the table, and these."
    needs = lambda r: (r.settings.distance == 'channel', r.settings.initialisation == 'gaussian')
    for wanted in dict.fromkeys(map(needs, recipes)):
        given = {k: v for k, v, w in zip(('channels', 'noise'), (channels, noise), wanted) if w}
        yield [r for r in recipes if needs(r) == wanted], given


def sites(name, data, folder, out):
    "The same recipes where activations are quantized elsewhere."
    for kind in ('activation', 'output', 'input'):
        case = load_case(name, data, folder, kind)
        case.study('sites', case.random() + case.recipes(PAPERS), case.scale.low, out)


def agreement(networks, data, folder, out):
    "The sets of networks, sites and traversals, and what a set is worth for another network."
    cases = [load_case(name, data, folder) for name in networks if name != MENET]
    others = [load_case(networks[0], data, folder, kind) for kind in ('output', 'input')]
    for case in cases + others:
        case.measure('agreement', case.recipes(PAPERS, 2), measure_positions, out)
    chosen = {f'{r} for {c.net.name}': choose(c.table, *c.recipes([r], 1)).index for r in PAPERS
              for c in cases}
    lent = [given_recipe(name, index) for name, index in chosen.items()]
    for case in cases: case.study('transfer', lent + case.random()[:1], case.scale.low, out)


def main(parts, networks, data, out, tables):
    data, out, folder = Path(data), Path(out), Path(tables)
    for part in parts:
        if part == 'agreement': agreement(networks, data, folder, out)
        for name in networks if part != 'agreement' else ():
            if part == 'sites': sites(name, data, folder, out)
            else: PARTS[part](load_case(name, data, folder), out)
            print(f'{part}: {name} done', flush=True)


PARTS = dict(tables=tables, grid=grid, readings=readings, ablations=ablations, sites=sites,
             agreement=agreement)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('parts', nargs='+', choices=PARTS)
    parser.add_argument('--networks', nargs='+', default=[*CIFAR, MENET])
    parser.add_argument('--data', default=os.environ.get('SELECTQ_DATA', '.'),
                        help='folder with cifar10, imagenet-sample, weights')
    parser.add_argument('--out', default=ROOT / 'results')
    parser.add_argument('--tables', default=ROOT / '.tables',
                        help='where the statistics tables are kept')
    main(**vars(parser.parse_args()))
