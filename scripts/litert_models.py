"""Add LiteRT to the work folder of `scripts/integer_models.py`: real integer models of its own.

    python scripts/litert_models.py [--networks NAME...] [--work FOLDER]

Needs an environment of its own: `pip install -c constraints-litert.txt '.[onnx]' litert-torch
ai-edge-quantizer ai-edge-litert`. A run that was stopped goes on.
"""
import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from clipping import LITE
from experiments import MENET, ROOT
from integer_models import Run

from selectq.clustering import SelectQSettings
from selectq.deployment import measure_model
from selectq.interop import calibration_set, litert_data
from selectq.matching import match
from selectq.ranking import select, select_random
from selectq.onnx_models import need
from selectq.tools import default_rule

TOOL, ORDERS = 'litert', 2  # other orders of a matched set


def converted(run, case_net):
    "The float model as LiteRT reads it, made once."
    path = run.work / f'{run.name}.tflite'
    if not path.exists():
        import torch
        side = run.model.preprocess.crop
        module = case_net.module.eval()
        edge = need('litert-torch').convert(module, (torch.zeros(1, 3, side, side),))
        edge.export(str(path))
    return path


def quantized(path, calib, out):
    "An int8 model with LiteRT's default recipe; the images in the order of the set."
    from ai_edge_quantizer import quantizer, recipe
    q = quantizer.Quantizer(str(path))
    q.load_quantization_recipe(recipe.static_wi8_ai8())
    found = q.calibrate(litert_data(calib))
    q.quantize(found).export_model(str(out), overwrite=True)
    return out


def runner(path):
    "Images through a LiteRT model, one by one; its input and output are integers."
    from ai_edge_litert.interpreter import Interpreter
    model = Interpreter(str(path), num_threads=1)
    model.allocate_tensors()
    (i,), (o,) = model.get_input_details(), model.get_output_details()

    def one(x):
        scale, zero = i['quantization']
        if i['dtype'] == np.int8: x = np.clip(np.round(x / scale) + zero, -128, 127)
        model.set_tensor(i['index'], x.astype(i['dtype']))
        model.invoke()
        y = model.get_tensor(o['index']).astype(np.float32)
        return (y - o['quantization'][1]) * o['quantization'][0] if o['dtype'] == np.int8 else y
    return lambda x: [np.concatenate([one(row[None]) for row in np.asarray(x)])]


class LiteRun(Run):
    "One network in LiteRT."
    def add_set(self, key, choose, **more):
        "Quantize with a set and evaluate, unless the row is there."
        if key in self.rows: return
        selection = choose()
        calib = calibration_set(selection, self.pool, self.model.preprocess, TOOL,
                                table=more.pop('table', None))
        order = more.pop('order', None)
        if order is not None: calib = replace(calib, index=calib.index[order])
        path = quantized(self.float, calib, self.work / '.litert.tflite')
        right, best = measure_model(self.model, runner(path), self.val)
        self.keep(key, right, best, dict(strategy=selection.strategy, n=len(selection),
                                         seed=selection.seed, ranges='set') | more)


def sets(run):
    "Sets in the orders that `selectq` hands over, and matched ones in others."
    table, rule = run.table, default_rule(TOOL)
    for n, draws in {1: 5, 10: 5, 100: 10}.items():
        for d in range(draws):
            run.add_set(f'random {n} {d}', lambda: select_random(table, n, d))
    run.add_set('selectq 100', lambda: select(table, 100, SelectQSettings()))
    run.add_set('selectq 100, ordered', lambda: select(table, 100, SelectQSettings()), table=table)
    for n in (10, 100):
        found = match(table, run.target(), n, rule)
        run.add_set(f'match {n}', lambda: found)
        for k in range(ORDERS):
            order = np.random.default_rng(k).permutation(n)
            run.add_set(f'match {n}, order {k}', lambda: found, order=order,
                        strategy='match, shuffled', seed=k)


def main(args):
    "Every network."
    for name in args.networks:
        run = LiteRun(name, TOOL, args)
        run.float = converted(run, run.case.net)
        sets(run)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--networks', nargs='+', default=[MENET, LITE])
    for name, default in (('data', os.environ.get('SELECTQ_DATA', '.')),
                          ('tables', ROOT / '.tables'), ('work', ROOT / '.integer')):
        add(f'--{name}', type=Path, default=Path(default))
    main(parser.parse_args())
