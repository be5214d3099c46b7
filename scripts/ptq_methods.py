"""Does the choice of images still matter after PTQ methods that correct or learn?

    python scripts/ptq_methods.py run [--networks NAME...] [--bits 4,4 3,8] [--methods NAME...]
                                      [--sets NAME...] [--seeds 0 1 2]
    python scripts/ptq_methods.py write

`run` adds cells to the work folder, one for each network, pair of bits, method, set and seed; what
is there is not computed again. `write` gathers them into results/ptq_methods.csv, and the paired
differences on the same images into results/ptq_pairs.csv. Both take [--data $SELECTQ_DATA]
[--out results] [--tables FOLDER] [--work FOLDER]. `--networks digits` is over in seconds.
"""
import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import ROOT, load_case
from selectq.batches import load_batches
from selectq.calibration import network_weights, pass_ranges, quantized
from selectq.comparison import _set_variance
from selectq.corrections import corrected_biases, split_channels, squant_weights
from selectq.crafting import CraftSettings, craft, start_pixels
from selectq.data import limit_pool
from selectq.distillation import DistilSettings, distil
from selectq.evaluation import COLUMNS, bit_pairs, standard_error
from selectq.files import write_json
from selectq.learned import METHODS, learn_rounding
from selectq.matching import match
from selectq.models import fold_batchnorm
from selectq.sites import layout
from selectq.studies import Recipe, choose, hardware
from selectq.table import versions
from selectq.targets import TargetSettings, make_target, pool_images

LEARNED = tuple(METHODS)
PTQ = ('nearest', 'bias', 'split', 'squant', *LEARNED)
SETS = ('random', 'balanced', 'selectq', 'match', 'craft', 'zeroq')
MORE = ['ptq', 'iterations', 'units', 'better', 'cpu_seconds', 'megabytes', 'weights', 'table',
        'val', 'hardware', 'selectq', 'torch']


@dataclass(frozen=True)
class Scale:
    "How large the study of a network is."
    n: int = 32  # images in a set
    iterations: int = 80  # of each unit
    batch_size: int = 8
    images: int = 2000  # of the validation set, at random
    craft_steps: int = 40
    zeroq_steps: int = 100


SCALES = {'digits': Scale(8, 2, 4, 40, 2, 2)}


class Sets:
    "The calibration sets of a network: (name, seed, activation bits) -> images and facts."
    def __init__(self, case, scale, work):
        self.case, self.scale, self.work, self.targets = case, scale, work, {}

    def target(self, bits):
        "MSE-optimal ranges at these bits, made once."
        if bits not in self.targets:
            s = TargetSettings(sample=min(256, len(self.case.table)))
            self.targets[bits] = make_target(self.case.net, self.case.table, self.case.pool, 'mse',
                                             bits, s)
        return self.targets[bits]

    def chosen(self, name, seed, bits):
        "Images of the pool."
        table, n = self.case.table, self.scale.n
        if name == 'match': return match(table, self.target(bits), n, 'joint')
        return choose(table, Recipe(name, n, seed))

    def __call__(self, name, seed, bits):
        make = {'craft': self.craft, 'zeroq': self.zeroq}.get(name)
        facts = dict(strategy=name, n=self.scale.n, seed=seed)
        if make: return make(seed, bits), facts
        selection, case = self.chosen(name, seed, bits), self.case
        rows = np.searchsorted(case.table.index, selection.index)
        s = selection.settings
        facts |= {k: s[k] for k in ('update', 'order') if k in s}
        return pool_images(case.net, case.table, rows, case.pool), facts

    def kept(self, key, make):
        "Images that take long to make, from the work folder where they are there."
        path = self.work / f'{self.case.net.name}-{key}.pt'
        if not path.exists():
            aside = path.with_suffix('.part')
            torch.save(make(), aside)
            aside.replace(path)
        return torch.load(path, weights_only=True)

    def craft(self, seed, bits):
        "Crafted for the target, from matched images."
        def make():
            case, target = self.case, self.target(bits)
            start = start_pixels(case.net, case.table, self.chosen('match', seed, bits), case.pool)
            settings = CraftSettings(self.scale.craft_steps, seed=seed)
            pixels = torch.from_numpy(craft(case.net, target, start, 'joint', settings).pixels)
            return self.normalised(pixels)
        return self.kept(f'craft-{bits}-{seed}', make)

    def zeroq(self, seed, bits):
        "Distilled from the BatchNorm statistics of the unfolded network."
        def make():
            settings = DistilSettings(self.scale.zeroq_steps, seed=seed)
            pixels = torch.from_numpy(distil(self.case.net, 'zeroq', self.scale.n, settings).pixels)
            return self.normalised(pixels)
        return self.kept(f'zeroq-{seed}', make)

    def normalised(self, pixels):
        "8-bit pixels (n, H, W, 3) as the network reads them."
        return self.case.net.preprocess.normalise(pixels.permute(0, 3, 1, 2).float() / 255)


@dataclass(frozen=True)
class Method:
    "A network, its ranges and its weights by a PTQ method."
    net: object
    ranges: object
    weights: dict
    facts: dict


def quantize(net, ranges, images, bits, ptq, scale, seed=0):
    "Quantize a network by a PTQ method with one calibration set."
    w, a = bits
    if ptq in LEARNED:
        settings = replace(METHODS[ptq], iterations=scale.iterations, batch_size=scale.batch_size,
                           seed=seed)
        found = learn_rounding(net, ranges, images, w, a, settings)
        better = sum(r['kept'] for r in found.report)
        facts = dict(iterations=scale.iterations, units=len(found.report), better=better)
        return Method(net, found.ranges, found.weights, facts)
    if ptq == 'split': net = split_channels(net, w)
    weights = (squant_weights(net, w) if ptq == 'squant' else
               corrected_biases(net, ranges, images, w, a) if ptq == 'bias' else
               network_weights(net, w))
    return Method(net, ranges, weights, {})


class Peak:
    "Peak memory inside, in MB beyond what there was before; NaN where the system does not say."
    @staticmethod
    def read(key):
        lines = Path('/proc/self/status').read_text().splitlines()
        return next(int(l.split()[1]) for l in lines if l.startswith(key)) / 1024

    def __enter__(self):
        try:
            Path('/proc/self/clear_refs').write_text('5')  # the high-water mark starts again
            self.before = self.read('VmRSS')
        except OSError: self.before = np.nan
        self.start = time.process_time()
        return self

    def __exit__(self, *exc):
        self.cpu_seconds = time.process_time() - self.start
        known = not np.isnan(self.before)
        self.megabytes = self.read('VmHWM') - self.before if known else np.nan


class Run:
    "One network: cells in, rows with the images that were right out."
    def __init__(self, name, folders):
        self.name, self.scale = name, SCALES.get(name, Scale())
        self.case = load_case(name, folders.data, folders.tables, 'input')
        self.sets = Sets(self.case, self.scale, folders.work)
        self.path = folders.work / f'{name}.json'
        self.rows = json.loads(self.path.read_text()) if self.path.exists() else {}

    @cached_property
    def net(self): return fold_batchnorm(self.case.net)

    @cached_property
    def val(self): return limit_pool(self.case.val, self.scale.images)

    @cached_property
    def batches(self): return list(load_batches(self.val, self.net.preprocess, None, 125))

    def right(self, m, bits):
        "Which images are right: bool."
        found = []
        first = self.batches[0].images[:2]
        with layout(m.net.module, first) as fmt, quantized(m.net, m.ranges, *bits, m.weights) as q:
            for b in self.batches:
                x = b.images.contiguous(memory_format=fmt)
                found.append(q(x).argmax(1).numpy() == b.labels)
        return np.concatenate(found)

    def add(self, key, bits, m, facts):
        "Evaluate and keep a row."
        right, table = self.right(m, bits), self.case.table
        top1, v = 100 * right.mean(), versions()
        row = dict(network=self.name, sites='input', ranges='minmax' if facts['n'] else '',
                   correct_bias=False, edge_bits=0, inputs='float', w_bits=bits[0], a_bits=bits[1],
                   top1=top1, se=standard_error(top1, len(right)), images=len(right),
                   weights=self.case.net.hash[:12], table=table.hash[:12],
                   val=self.val.fingerprint[:12], hardware=hardware(), selectq=v['selectq'],
                   torch=v['torch'].split('+')[0])
        self.rows[key] = dict(row=row | facts, right=np.packbits(right).tobytes().hex())
        write_json(self.path, self.rows)
        print(self.name, key, f'{top1:.2f}', flush=True)

    def cell(self, bits, ptq, name, seed):
        "One method with one set, unless it is there."
        key = f'W{bits[0]}A{bits[1]} {ptq} {name} {seed}'
        if key in self.rows: return
        images, facts = self.sets(name, seed, bits[1])
        ranges = pass_ranges(self.net, images.split(64), 'input', self.case.table.sites)
        with Peak() as peak: m = quantize(self.net, ranges, images, bits, ptq, self.scale, seed)
        facts |= m.facts | dict(ptq=ptq, cpu_seconds=round(peak.cpu_seconds, 2),
                                megabytes=round(peak.megabytes, 1))
        self.add(key, bits, m, facts)

    def float_row(self):
        if 'float' in self.rows: return
        self.add('float', (32, 32), Method(self.net, None, {}, {}),
                 dict(strategy='float', ptq='', n=0, seed=0))


def run(args):
    "All cells asked for; sets that do not depend on a seed have one."
    for name in args.networks:
        r = Run(name, args)
        r.float_row()
        for seed in args.seeds:
            for bits in args.bits:
                for s in args.sets:
                    if seed and s == 'match': continue
                    for ptq in args.methods: r.cell(bits, ptq, s, seed)
    write(args)


def gathered(work):
    "Rows of the work folder with the images that were right: (row, bool)."
    for path in sorted(work.glob('*.json')):
        for e in json.loads(path.read_text()).values():
            n = e['row']['images']
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(e['right']), np.uint8))[:n]
            yield e['row'], bits.astype(float)


def paired(a, b, alike):
    """Difference of what two kinds of sets get right of the same images, (sets, images) each, in
    points, with the standard errors of the images, of the sets, and of both. `alike`: the sets are
    the same on both sides."""
    a, b = 100 * np.array(a), 100 * np.array(b)
    d = a.mean(0) - b.mean(0)
    images = d.std(ddof=1) / np.sqrt(len(d))
    sets = [_set_variance((a - b).mean(1))] if alike else map(_set_variance, (a.mean(1), b.mean(1)))
    sets = np.sqrt(sum(sets))
    return dict(difference=d.mean(), se_images=images, se_sets=sets, se=np.hypot(images, sets))


def pairs(found):
    "Each method with each set: beside random images, and beside rounding to nearest."
    cells = {}
    for row, right in found:
        if row['strategy'] == 'float': continue
        key = row['network'], row['w_bits'], row['a_bits'], row['ptq'], row['strategy']
        cells.setdefault(key, {})[row['seed']] = right
    for (net, w, a, ptq, name), mine in cells.items():
        others = {'random': (net, w, a, ptq, 'random'), 'nearest': (net, w, a, 'nearest', name)}
        for beside, key in others.items():
            if key == (net, w, a, ptq, name) or key not in cells: continue
            shared = sorted(mine.keys() & cells[key].keys())
            if beside == 'random': one, two = mine.values(), cells[key].values()
            else: one, two = ([c[s] for s in shared] for c in (mine, cells[key]))
            if not len(two): continue
            yield dict(network=net, w_bits=w, a_bits=a, ptq=ptq, strategy=name, beside=beside,
                       sets=len(one), other_sets=len(two),
                       **paired([*one], [*two], beside == 'nearest'))


def write(args):
    "Gather the cells into the two result files."
    found = [*gathered(args.work)]
    columns = [c for c in COLUMNS if c != 'top5'] + MORE
    rows = pd.DataFrame([row for row, _ in found]).reindex(columns=columns)
    order = ['network', 'w_bits', 'ptq', 'strategy', 'seed']
    args.out.mkdir(parents=True, exist_ok=True)
    rows = rows.sort_values(order, kind='stable').round(4)
    rows.to_csv(args.out / 'ptq_methods.csv', index=False)
    table = pd.DataFrame([*pairs(found)]).round(4)
    table.to_csv(args.out / 'ptq_pairs.csv', index=False)


def pair(text): return bit_pairs([tuple(int(b) for b in text.split(','))])[0]


def parsed(words=None):
    "The command line."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('what', choices=('run', 'write'))
    add('--networks', nargs='+', default=['resnet20_cifar10', 'mobilenetv2_cifar10'])
    add('--bits', nargs='+', type=pair, default=[(4, 4), (3, 8)])
    add('--methods', nargs='+', choices=PTQ, default=list(PTQ))
    add('--sets', nargs='+', choices=SETS, default=list(SETS))
    add('--seeds', nargs='+', type=int, default=[0, 1, 2])
    add('--data', type=Path, default=Path(os.environ.get('SELECTQ_DATA', '.')),
        help='folder with cifar10')
    add('--out', type=Path, default=ROOT / 'results')
    add('--tables', type=Path, default=ROOT / '.tables', help='where statistics tables are kept')
    add('--work', type=Path, default=ROOT / '.ptq', help='where cells and made images are kept')
    args = parser.parse_args(words)
    args.work.mkdir(parents=True, exist_ok=True)
    return args


if __name__ == '__main__':
    args = parsed()
    dict(run=run, write=write)[args.what](args)
