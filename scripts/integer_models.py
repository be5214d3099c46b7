"""Make results/integer_models.csv and integer_pairs.csv: what sets are worth in integer models.

    python scripts/integer_models.py run [--networks NAME...] [--tools onnxruntime openvino]
        [--parts sets four six crafted]
    python scripts/integer_models.py write

Each network is exported to ONNX, quantized by the tool itself with every set, and evaluated as the
integer model that comes out. A run that was stopped goes on: answers are kept in the work folder,
and rows of the result files that the work folder does not hold are kept.
`--networks digits` is over in a minute.
"""
import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from clipping import LITE, LiteCase
from experiments import MENET, ROOT, load_case, merged

from selectq.clustering import SelectQSettings
from selectq.crafting import craft, read_crafted, save_crafted, start_pixels
from selectq.data import limit_pool
from selectq.deployment import DeploymentSettings, integer_runner, make_integer_model
from selectq.deployment import measure_model
from selectq.evaluation import standard_error
from selectq.integer import IntegerSettings
from selectq.matching import match
from selectq.onnx_export import export_onnx
from selectq.onnx_models import load_onnx, onnx_session
from selectq.onnx_statistics import collect_onnx
from selectq.onnx_targets import make_onnx_target
from selectq.ranking import make_selection, select, select_random
from selectq.table import hardware, versions
from selectq.targets import TargetSettings, load_target, make_target, save_target
from selectq.tools import default_rule

MOBILE = 'mobilenetv2_cifar10'
TOOLS = 'onnxruntime', 'nncf', 'openvino', 'ai-edge-quantizer', 'ai-edge-litert'
IMAGES = {MENET: 500, LITE: 300, MOBILE: 2000, 'resnet20_cifar10': 2000, 'digits': 50}
POOL = {MOBILE: 5000, 'resnet20_cifar10': 5000}  # images to choose from; all elsewhere
FEW = MOBILE, 'resnet20_cifar10'  # at four bits as well
PARTS = 'sets', 'four', 'six', 'crafted'
DRAWS = {1: 10, 10: 5, 100: 20, 1000: 1}  # random sets of each size
SIMULATED = 3  # draws of each size that are computed node by node as well
SAMPLE = 256  # images behind a target
UNLUCKY = 1, 6  # a single image that ruins MENet-128
NOISE = 1e-5  # on normalised pixels: what a tie of rounding may turn on
KEYS = ['network', 'tool', 'strategy', 'n', 'seed', 'ranges', 'w_bits', 'a_bits']
COLUMNS = ['network', 'tool', 'strategy', 'n', 'seed', 'ranges', 'w_bits', 'a_bits', 'top1', 'se',
           'agreement', 'simulated', 'simulated_top1', 'again', 'images', 'model', 'table',
           'hardware', 'versions']


class Run:
    "One network in one tool: sets in, answers of integer models out."
    def __init__(self, name, tool, args):
        self.name, self.tool, self.work = name, tool, args.work / name
        self.work.mkdir(parents=True, exist_ok=True)
        self.case = case = (LiteCase if name == LITE else lambda *a: load_case(name, *a))(
            args.data, args.tables, 'input')
        self.path = self.work / f'{name}.onnx'
        if not self.path.exists(): export_onnx(case.net, self.path)
        self.model = load_onnx(self.path, case.net.preprocess)
        self.pool = limit_pool(case.pool, POOL.get(name))
        self.val = limit_pool(case.val, IMAGES[name])
        self.table = collect_onnx(self.model, self.pool, tool, out=self.work / f'stats_{tool}')
        self.file = self.work / f'{tool}.json'
        self.rows = json.loads(self.file.read_text()) if self.file.exists() else {}
        if 'float' not in self.rows:
            right, best = measure_model(self.model, integer_runner(self.model), self.val)
            self.keep('float', right, best, dict(strategy='float', w_bits=32, a_bits=32))

    def target(self, estimator='mse', seed=0, sample=SAMPLE, bits=8):
        "A target, made once."
        more = (f'_{sample}' if sample != SAMPLE else '') + (f'_W{bits}' if bits != 8 else '')
        path = self.work / f'{self.tool}_{estimator}_{seed}{more}.json'
        if not path.exists():
            settings = TargetSettings(seed=seed, sample=sample)
            found = make_onnx_target(self.model, self.table, self.pool, estimator, bits, settings,
                                     costs=estimator == 'mse' and sample == SAMPLE)
            save_target(found, path)
        return load_target(path, self.table)

    def keep(self, key, right, best, more):
        "A row with its answers."
        right, best = np.asarray(right, bool), np.asarray(best)
        goal = self.rows['float']['best'] if 'float' in self.rows else best
        top1 = 100 * right.mean()
        v = versions(TOOLS)
        said = ' '.join(f'{k} {v[k]}' for k in ('selectq', *TOOLS) if k in v)
        row = dict(network=self.name, tool=self.tool, n=0, seed=0, ranges='', w_bits=8, a_bits=8,
                   top1=top1, se=standard_error(top1, len(right)), images=len(right),
                   agreement=100 * (best == np.asarray(goal)).mean(), model=self.model.hash[:12],
                   table=self.table.hash[:12], hardware=hardware(), versions=said)
        self.rows[key] = dict(row=row | more, right=np.packbits(right).tobytes().hex(),
                              best=best.tolist())
        aside = self.file.with_suffix('.part')
        aside.write_text(json.dumps(self.rows))
        aside.replace(self.file)
        print(self.name, self.tool, key, f'{top1:.1f}', flush=True)

    def crafted(self, bits):
        "Model, pool, table and selection of eight images crafted for the sites of PyTorch."
        folder, case = self.work / f'crafted_{bits}', self.case
        if not folder.exists():
            found = make_target(case.net, case.table, case.pool, 'mse', bits)
            start = start_pixels(case.net, case.table, match(case.table, found, 8), case.pool)
            save_crafted(craft(case.net, found, start), folder)
        _, pool, preprocess = read_crafted(folder)
        model = replace(self.model, preprocess=preprocess)
        table = collect_onnx(model, pool, self.tool)
        return model, pool, table, make_selection(table, np.arange(len(table)), 'craft', {}, 0)

    def add(self, key, choose, ranges='set', integer=IntegerSettings(), simulate=False, **more):
        """Quantize with a set or with a target's ranges, and evaluate, unless the row is there.
        `choose` gives a selection and a target, and the model, pool and table of made images."""
        if key in self.rows: return
        settings = DeploymentSettings(self.tool, ranges=ranges)
        selection, target, *made = choose()
        model, pool, table = made or (self.model, self.pool, self.table)
        out = self.work / f'.{self.tool}{".xml" if self.tool == "openvino" else ".onnx"}'
        path = make_integer_model(model, pool, selection, target, out, settings, table, integer)
        bits = more.get('a_bits', integer.a_bits)
        if bits == 6: six_bits(path, self.model.proto)
        right, best = measure_model(self.model, integer_runner(self.model, path), self.val)
        if simulate and self.tool == 'onnxruntime':
            more |= self.simulated(path, best)
        more = dict(strategy=selection.strategy, n=len(selection), seed=selection.seed,
                    ranges=ranges, a_bits=integer.a_bits) | more
        self.keep(key, right, best, more)

    def simulated(self, path, best):
        "The same graph node by node in float, and the kernels again on images with a little noise."
        session = onnx_session(path, optimise=False)
        run = lambda x: session.run(None, {self.model.input: np.ascontiguousarray(x)})
        right, other = measure_model(self.model, run, self.val)
        kernels, rng = integer_runner(self.model, path), np.random.default_rng(0)
        noisy = lambda x: kernels(x + rng.uniform(-NOISE, NOISE, x.shape).astype(np.float32))
        again = measure_model(self.model, noisy, self.val)[1]
        same = lambda answers: 100 * float((np.asarray(answers) == np.asarray(best)).mean())
        return dict(simulated=same(other), simulated_top1=100 * float(np.mean(right)),
                    again=same(again))


def six_bits(path, proto, bits=6):
    """An integer model of 8 bits to one of fewer, in place, as QCDQ: integers of 8 bits, of which a
    Clip after each QuantizeLinear leaves the lowest values; weights rounded anew to their grid, and
    biases to the product of both steps, which is what the integer kernels take for granted."""
    model = onnx.load(str(path))
    g, to_array, levels = model.graph, onnx.numpy_helper.to_array, 2 ** bits - 1
    known, nodes = {i.name: i for i in g.initializer}, []
    put = lambda name, a: known[name].CopyFrom(onnx.numpy_helper.from_array(a, name))
    floats = {i.name: to_array(i) for i in proto.graph.initializer}
    for name, value in (('low', 0), ('high', levels)):
        g.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.uint8), name))
    done = set()
    for n in g.node:
        nodes.append(n)
        if n.op_type == 'QuantizeLinear' and n.input[0] not in known:
            scale, zero = n.input[1:3]
            if scale not in done:
                wide, z = to_array(known[scale]), to_array(known[zero]).astype(np.float64)
                fine = (wide * np.float64(255) / levels).astype(np.float32)
                put(scale, fine), put(zero, np.round(z * levels / 255).astype(np.uint8))
                done.add(scale)
            out, n.output[0] = n.output[0], f'{n.output[0]}_wide'
            nodes.append(onnx.helper.make_node('Clip', [n.output[0], 'low', 'high'], [out]))
        elif n.op_type == 'DequantizeLinear' and n.input[0].removesuffix('_quantized') in floats:
            name, q = n.input[0].removesuffix('_quantized'), to_array(known[n.input[0]])
            if q.dtype != np.int8 or n.input[0] in done: continue
            half = 2 ** (bits - 1) - 1
            fine = (to_array(known[n.input[1]]) * np.float64(127) / half).astype(np.float32)
            axis = next((a.i for a in n.attribute if a.name == 'axis'), 0)
            shape = [-1 if k == axis else 1 for k in range(q.ndim)] if fine.size > 1 else []
            found = np.round(floats[name] / fine.reshape(shape))
            put(n.input[0], np.clip(found, -half, half).astype(np.int8)), put(n.input[1], fine)
            done.add(n.input[0])
    made = {n.output[0]: n for n in g.node if n.op_type == 'DequantizeLinear'}
    for n in g.node:
        if len(n.input) < 3 or not {*n.input[:3]} <= {*made}: continue
        x, w, b = (made[name] for name in n.input[:3])
        q, old = (to_array(known[name]).astype(np.float64) for name in b.input[:2])
        step = to_array(known[x.input[1]]) * to_array(known[w.input[1]])
        put(b.input[0], np.round(q * old / step).astype(np.int32)), put(b.input[1], step)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del g.node[:]
    g.node.extend(nodes)
    onnx.save(model, str(path))


def crafted_sets(run):
    "Crafted images at 8 bits, and at 4 where the others are; random sets to compare them with."
    made = lambda bits: lambda: (lambda model, pool, table, s: (s, None, model, pool, table))(
        *run.crafted(bits))
    random = lambda d: lambda: (select_random(run.table, 100, d), None)
    draws = range(DRAWS[100] if run.tool == 'onnxruntime' else 5)
    for d in draws: run.add(f'random 100 {d}', random(d), simulate=d < SIMULATED)
    run.add('craft 8', made(8))
    if run.name in FEW and run.tool == 'onnxruntime':
        four = dict(integer=IntegerSettings(a_bits=4, w_bits=4), w_bits=4)
        for d in range(10): run.add(f'W4A4 random 100 {d}', random(d), **four)
        run.add('W4A4 craft 8', made(4), **four)


def six(run):
    "Sets at six bits, in integers of eight that are clipped."
    add = lambda key, choose, ranges='set', **more: run.add(
        f'W6A6 {key}', choose, ranges, w_bits=6, a_bits=6, **more)
    for n, draws in {10: 5, 100: 10}.items():
        for d in range(draws):
            add(f'random {n} {d}', lambda: (select_random(run.table, n, d), None))
    add('selectq 100', lambda: (select(run.table, 100, SelectQSettings()), None))
    target = lambda: run.target(bits=6)
    for n in (10, 100):
        add(f'match {n}', lambda: (match(run.table, target(), n, default_rule(run.tool)), None))
    some = lambda: select_random(run.table, 100, 0)
    add('direct mse', lambda: (some(), target()), 'target', strategy='direct mse', n=SAMPLE)


def sets(run):
    "All sets of a network in a tool."
    table, rule = run.table, default_rule(run.tool)
    plain = lambda s: lambda: (s, None)
    for n, draws in DRAWS.items():
        if n > len(table): continue
        draws = draws if run.tool == 'onnxruntime' else min(draws, 5)
        for d in range(draws):
            run.add(f'random {n} {d}', plain(select_random(table, n, d)),
                    simulate=d < SIMULATED or (n, d) == UNLUCKY)
    n = min(100, len(table))
    run.add(f'selectq {n}', plain(select(table, n, SelectQSettings())))
    for n in [n for n in (10, 100) if n <= len(table)]:
        run.add(f'match {n}', lambda: (match(table, run.target(), n, rule), None), simulate=True)
    some = select_random(table, min(100, len(table)), 0)
    for estimator in ('mse', 'percentile'):
        for seed in range(3 if estimator == 'mse' else 1):
            run.add(f'direct {estimator} {seed}', lambda: (some, run.target(estimator, seed)),
                    'target', strategy=f'direct {estimator}', seed=seed, n=SAMPLE)
    if run.tool == 'onnxruntime' and len(table) <= 1000:
        n = len(table)
        run.add(f'direct mse {n} images', lambda: (some, run.target(sample=n)), 'target',
                strategy='direct mse', n=n)
    if run.tool == 'onnxruntime':
        run.add('A16', plain(some), integer=IntegerSettings(a_bits=16))


def few_bits(run):
    "Sets at four bits, which onnxruntime has types for; the target is one of four bits."
    four = IntegerSettings(a_bits=4, w_bits=4)
    add = lambda key, choose, ranges='set', **more: run.add(
        f'W4A4 {key}', choose, ranges, four, w_bits=4, **more)
    for n, draws in {1: 5, 10: 10, 100: 10}.items():
        for d in range(draws):
            add(f'random {n} {d}', lambda: (select_random(run.table, n, d), None))
    add('selectq 100', lambda: (select(run.table, 100, SelectQSettings()), None))
    target = lambda: run.target(bits=4)
    for n in (1, 10, 100):
        add(f'match {n}', lambda: (match(run.table, target(), n, default_rule(run.tool)), None),
            simulate=n == 10)
    some = lambda: select_random(run.table, 100, 0)
    add('direct mse', lambda: (some(), target()), 'target', strategy='direct mse', n=SAMPLE)


def unpack(entry):
    "The answers of a row: (images,) 0 or 1."
    packed = np.frombuffer(bytes.fromhex(entry['right']), np.uint8)
    return np.unpackbits(packed)[:entry['row']['images']].astype(float)


def merge(rows, path, keys, columns, digits):
    "Write rows to a file, and those of the file that have other keys."
    new = merged(path, pd.DataFrame(rows).reindex(columns=columns), keys)
    path.parent.mkdir(parents=True, exist_ok=True)
    new.sort_values(keys, kind='stable').round(digits).to_csv(path, index=False)


def write(args):
    "Rows, and paired differences from the mean of the random sets of 100 images."
    rows, pairs = [], []
    for path in sorted(args.work.glob('*/*.json')):
        if path.stem not in ('onnxruntime', 'openvino', 'litert'): continue
        found = json.loads(path.read_text())
        rows += [e['row'] for e in found.values()]
        for key, e in found.items():
            few = key[:5] * key.startswith(('W4A4', 'W6A6'))
            if key.startswith(f'{few}random'): continue
            base = [unpack(e) for k, e in found.items() if k.startswith(f'{few}random 100 ')]
            base = base or [unpack(e) for k, e in found.items() if k.startswith('random 10 ')]
            if not base: continue  # what it is compared with was not run
            d = 100 * (unpack(e) - np.mean(base, 0))
            rng = np.random.default_rng(0)
            means = [d[rng.integers(0, len(d), len(d))].mean() for _ in range(4000)]
            p = 2 * min(np.mean(np.array(means) <= 0), np.mean(np.array(means) >= 0), .5)
            pairs.append(dict(network=e['row']['network'], tool=e['row']['tool'], key=key,
                              difference=d.mean(), low=np.percentile(means, 2.5),
                              high=np.percentile(means, 97.5), p=max(p, 1 / 4000)))
    merge(rows, args.out / 'integer_models.csv', KEYS, COLUMNS, 4)
    merge(pairs, args.out / 'integer_pairs.csv', ['network', 'tool', 'key'], [*pairs[0]], 5)


def main(args):
    "Every network in every tool."
    for name in args.networks:
        for tool in args.tools:
            run, parts = Run(name, tool, args), args.parts
            if 'sets' in parts: sets(run)
            if 'crafted' in parts and name != LITE: crafted_sets(run)
            if 'four' in parts and name in FEW and tool == 'onnxruntime': few_bits(run)
            if 'six' in parts and name == MENET and tool == 'onnxruntime': six(run)
    write(args)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('what', choices=('run', 'write'))
    add('--networks', nargs='+', default=[MENET, MOBILE, LITE])
    add('--tools', nargs='+', default=['onnxruntime', 'openvino'])
    add('--parts', nargs='+', default=PARTS, choices=PARTS)
    for name, default in (('data', os.environ.get('SELECTQ_DATA', '.')), ('out', ROOT / 'results'),
                          ('tables', ROOT / '.tables'), ('work', ROOT / '.integer')):
        add(f'--{name}', type=Path, default=Path(default))
    args = parser.parse_args()
    dict(run=main, write=write)[args.what](args)
