"""Make results/*.csv: the paper's experiments, the ablations and the grid of estimators, on CIFAR-10 and the ImageNet sample.

    python scripts/experiments.py PART... [--data $SELECTQ_DATA] [--networks NAME...] [--out results] [--tables FOLDER]

Parts: tables (table1, table3, table4, fig2, fig6, fig7), grid (estimator x selection x bits), readings, ablations (one knob each), sites, agreement.
CIFAR-10: 50,000 images to choose from, 10,000 to evaluate on; the ImageNet sample: 1,000 and 500. A run that was stopped goes on.
"""
import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from selectq.ablations import KNOB_VALUES, ablation_recipes
from selectq.clustering import SelectQSettings, cluster
from selectq.data import open_pool, read_classes
from selectq.evaluation import evaluate
from selectq.models import load_network
from selectq.paper import READINGS, experiment_recipes, experiment_settings
from selectq.plots import image_looks, mean_percentiles
from selectq.ranking import check_selection, make_selection, score_images, select
from selectq.statistics import noise_statistics
from selectq.traversal import collect
from selectq.channels import channel_statistics
from selectq.studies import Recipe, choose, hardware, run_study

ROOT = Path(__file__).parents[1]
CIFAR = ('resnet20_cifar10', 'seresnet20_cifar10', 'mobilenetv2_cifar10')
MENET = 'menet128_8x1_g4'
PAIRS = [SelectQSettings(update=u, order=o) for u in ('additive', 'shift') for o in ('highest', 'lowest')]
ESTIMATORS = ('minmax', 'ema', 'percentile', 'mse', 'entropy', 'aciq-gauss', 'aciq-laplace')


class Case:
    "A network with its images, its table, and the sizes and bit widths that suit it."
    def __init__(self, name, data, tables, sites='activation'):
        imagenet = name == MENET
        self.net = load_network(name, data / 'weights/menet128_8x1_g4.safetensors' if imagenet else ROOT / f'results/weights/{name}.safetensors')
        classes = read_classes(data / 'imagenet-sample/wnids.json') if imagenet else None
        paths = ('imagenet-sample/train', 'imagenet-sample/val') if imagenet else ('cifar10/train.parquet', 'cifar10/test.parquet')
        self.pool, self.val = open_pool(data / paths[0], classes=classes), open_pool(data / paths[1], classes=classes)
        self.bits, self.low = ((8, 6, 5, 4), (6, 5)) if imagenet else ((8, 6, 5, 4, 3), (4, 3))
        self.n = 100 if imagenet else 1000
        self.table = collect(self.net, self.pool, sites, out=tables / f'{name}-{sites}', workers=1)
        self.batch_size = 50 if imagenet else 125
        self.facts = dict(weights=self.net.hash[:12], table=self.table.hash[:12])

    def study(self, name, recipes, bits, out, **options):
        return run_study(self.net, self.val, self.table, recipes, bits, study=name, out=out, batch_size=self.batch_size, **options)


def tables(case, out):
    "The forms of the paper's tables and figures."
    imagenet = case.net.name == MENET
    for name in ('table3', 'fig2') if imagenet else ('table1', 'table4', 'fig2', 'fig6', 'fig7'):
        e = experiment_settings(name, case.pool, bits=case.bits, sizes=(case.n,) if name != 'fig6' else None)
        case.study(name, experiment_recipes(e, orders=5), e.bits, out, ranges=e.ranges)


def grid(case, out):
    "Estimator x selection x bits, 100 images."
    recipes = [Recipe('balanced', 100, seed) for seed in range(3)] + [Recipe('selectq', 100, seed, r) for r in READINGS for seed in range(3)]
    case.study('grid', recipes, case.low, out, ranges=ESTIMATORS, pool=case.pool)


def readings(case, out):
    "All four pairs of Eq. 3 and Eq. 5 at every bit width."
    case.study('readings', ablation_recipes('reading', 100, 3), case.bits, out)
    random = np.mean([widths(case.table, choose(case.table, Recipe('balanced', 100, seed))) for seed in range(10)], 0)  # (sites,)
    append(out / 'readings_width.csv', [width(case, replace(pair, seed=seed), random) for pair in PAIRS for seed in range(3)])
    seen = image_looks(case.pool)
    append(out / 'readings_looks.csv', looks(case, seen, 100))
    append(out / 'readings_pixels.csv', given_sets(case, {f'least {q}': np.argsort(seen[q].to_numpy(), kind='stable')[:100] for q in seen}, case.low))
    append(out / 'readings_sites.csv', [row for pair in PAIRS for row in site_widths(case, pair, random)])
    squeezed = [s for s in case.table.sites if '.se.' in s]
    if squeezed: append(out / 'readings_gates.csv', given_sets(case, {name(r): without_sites(case, squeezed, r) for r in READINGS}, case.bits))


def given_sets(case, sets, bits):
    "What sets are worth: name -> rows of the table."
    results = evaluate(case.net, case.val, case.table, [make_selection(case.table, rows, 'given') for rows in sets.values()], bits, batch_size=case.batch_size)[1:]
    return [dict(network=case.net.name, selection=name, **r, **case.facts, hardware=hardware()) for name, r in zip((name for name in sets for _ in bits), results[['w_bits', 'a_bits', 'n', 'top1', 'se', 'images']].to_dict('records'))]


def without_sites(case, names, settings, n=100):
    "Rows that would be chosen if some sites were left out of the score; all of them are quantized."
    table, keep = case.table, [k for k, s in enumerate(case.table.sites) if s not in names]
    part = replace(table, stats=table.stats[:, keep], noise=table.noise[:, keep], meta={**table.meta, 'sites': [table.sites[k] for k in keep]})
    return np.searchsorted(table.index, select(part, n, settings).index)


def widths(table, selection):
    "The largest activation of a set at each site."
    return table.stats[check_selection(selection, table), :, 3].max(0).astype(float)  # (sites,)


def site_widths(case, settings, random):
    "The width of each site's range that a chosen set leaves, relative to random sets'."
    table, modules = case.table, dict(case.net.module.named_modules())
    relative = (widths(table, select(table, 100, settings)) / random).tolist()
    return [dict(network=case.net.name, site=s, activation=type(modules[s.split(':')[0]]).__name__, update=settings.update, order=settings.order, width=round(w, 4), **case.facts)
            for s, w in zip(table.sites, relative)]


def looks(case, seen, n):
    "Where the images of each pair's set lie among all, in what they look like; and which classes they are of."
    labels, rows = np.asarray(case.pool.labels), []
    for pair in PAIRS:
        for seed in range(3):
            chosen = check_selection(select(case.table, n, replace(pair, seed=seed)), case.table)
            classes, counts = np.unique(labels[chosen], return_counts=True)
            rows.append(dict(network=case.net.name, update=pair.update, order=pair.order, seed=seed, n=n, **mean_percentiles(seen, chosen).round(2),
                             classes=len(classes), of_most_common=counts.max(), most_common=case.pool.classes[classes[counts.argmax()]] if case.pool.classes else classes[counts.argmax()], **case.facts))
    return rows


def width(case, settings, random):
    "How wide the ranges of a chosen set are beside random sets', and how scores go with an image's largest activation; means over sites."
    table, score = case.table, pd.Series(score_images(case.table, cluster(case.table, settings)))
    correlation = np.mean([score.corr(pd.Series(table.stats[:, k, 3]), method='spearman') for k in range(len(table.sites))])
    return dict(network=case.net.name, update=settings.update, order=settings.order, seed=settings.seed, correlation=round(correlation, 4),
                width=round((widths(table, select(table, 100, settings)) / random).mean(), 4), **case.facts)


def append(path, rows):
    "Add rows to a small CSV file, in place of those of the same network."
    new = pd.DataFrame(rows)
    old = pd.read_csv(path) if path.exists() else new[:0]
    pd.concat([old[~old.network.isin(new.network)], new]).to_csv(path, index=False)


def ablations(case, out):
    "One knob at a time; what centroids and distances cost, and how many centroids never move."
    given = dict(channels=channel_statistics(case.net, case.pool, case.table.kind), noise=noise_statistics(case.net, case.table.kind, 10, noise='gaussian'))
    costs(case, out, given['channels'])
    append(out / 'granularity_dead.csv', [dead(case, replace(r, **change)) for r in READINGS for change in KNOB_VALUES['granularity']])
    for knob in KNOB_VALUES:
        if knob in ('reading', 'centroids'): continue  # `readings`, and fig7 of `tables`
        for part in split(ablation_recipes(knob, 100, 5 if knob == 'order' else 3)):
            case.study(knob, part, case.low, out, given={k: v for k, v in given.items() if needs(part, k)})


def costs(case, out, channels):
    "Seconds from the table to a selection, and what has to be kept."
    facts = dict(images=len(case.table), sites=len(case.table.sites), hardware=hardware())
    append(out / 'centroids_seconds.csv', [dict(network=case.net.name, update=r.update, **change, **facts, seconds=seconds(case, replace(r, **change))) for r in READINGS for change in KNOB_VALUES['centroids']])
    for_distance = lambda distance: dict(channels=channels) if distance == 'channel' else {}
    append(out / 'distance_cost.csv', [dict(network=case.net.name, update=r.update, **change, **facts, megabytes=round((channels if given else case.table.stats[..., :2]).nbytes / 1e6, 1),
                                            seconds=seconds(case, replace(r, **change), **given)) for r in READINGS for change in KNOB_VALUES['distance'] for given in [for_distance(**change)]])


def seconds(case, settings, **given):
    "The fastest of three selections."
    times = []
    for _ in range(3):
        start = time.perf_counter()
        select(case.table, 100, settings, **given)
        times.append(time.perf_counter() - start)
    return round(min(times), 4)


def dead(case, settings):
    "How many centroids are the nearest to no image at all."
    wins = cluster(case.table, settings).wins
    return dict(network=case.net.name, update=settings.update, granularity=settings.granularity, batch_size=settings.batch_size, centroids=wins.size, dead=int((wins == 0).sum()), **case.facts)


def split(recipes):
    "Recipes that need the same given things together."
    return [part for part in ([r for r in recipes if needs([r], 'noise') == n and needs([r], 'channels') == c] for n in (False, True) for c in (False, True)) if part]


def needs(recipes, what):
    return any(r.settings.initialisation == 'gaussian' if what == 'noise' else r.settings.distance == 'channel' for r in recipes)


def sites(name, data, tables, out):
    "The same recipes where activations are quantized elsewhere."
    for kind in ('activation', 'output', 'input'):
        case = Case(name, data, tables, kind)
        case.study('sites', [Recipe('balanced', 100, s) for s in range(3)] + [Recipe('selectq', 100, s, r) for r in READINGS for s in range(3)], case.low, out)


def agreement(data, tables, out):
    "What the sets of different networks, sites and orders share, and what a set is worth for another network."
    cases = [Case(name, data, tables) for name in CIFAR]
    others = [Case(CIFAR[0], data, tables, kind) for kind in ('output', 'input')]
    rows = [dict(network=c.net.name, sites=c.table.kind, seed=seed, update=r.update, order=r.order, rank=k, index=i)
            for c in cases + others for r in READINGS for seed in (0, 1) for k, i in enumerate(select(c.table, 100, replace(r, seed=seed)).index, 1)]
    pd.DataFrame(rows).to_csv(out / 'agreement.csv', index=False)
    frames = []
    for c in cases:
        sets = {(name(r), d.net.name): make_selection(c.table, check_selection(select(d.table, 100, r), d.table), 'given') for r in READINGS for d in cases}
        sets |= {(name(r), 'random'): choose(c.table, Recipe('balanced', 100, 0)) for r in READINGS}
        results = evaluate(c.net, c.val, c.table, list(sets.values()), c.low, batch_size=c.batch_size)[1:]
        labels = [label for label in sets for _ in c.low]
        frames.append(results.assign(reading=[a for a, _ in labels], chosen_for=[b for _, b in labels], **c.facts, hardware=hardware())[['network', 'reading', 'chosen_for', 'w_bits', 'a_bits', 'n', 'top1', 'se', 'images', *c.facts, 'hardware']])
    pd.concat(frames).to_csv(out / 'transfer.csv', index=False)


def name(reading): return f'{reading.update}, {reading.order}'


def main(parts, networks, data, out, tables):
    data, out, folder = Path(data), Path(out), Path(tables)
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if part == 'agreement': agreement(data, folder, out)
        for name in networks if part != 'agreement' else ():
            if part == 'sites': sites(name, data, folder, out)
            else: PARTS[part](Case(name, data, folder), out)
            print(f'{part}: {name} done', flush=True)


PARTS = dict(tables=tables, grid=grid, readings=readings, ablations=ablations, sites=sites, agreement=agreement)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('parts', nargs='+', choices=PARTS)
    parser.add_argument('--networks', nargs='+', default=[*CIFAR, MENET])
    parser.add_argument('--data', default=os.environ.get('SELECTQ_DATA', '.'), help='folder with cifar10, imagenet-sample and weights')
    parser.add_argument('--out', default=ROOT / 'results')
    parser.add_argument('--tables', default=ROOT / '.tables', help='where the statistics tables are kept')
    main(**vars(parser.parse_args()))
