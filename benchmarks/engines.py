"""Engines beside each other: plain inference, and a traversal with its four statistics.

    python benchmarks/engines.py [--threads 2] [--batch-size 16] [--rounds 15] [--note "quiet"]
        [--networks resnet18 mobilenetv2_w1 resnet50]

Random weights, one synthetic 224 x 224 batch. Every round runs each engine once, one after the
other, so that whatever else the machine does falls on all of them; a ratio is taken within a round.
ONNX engines watch the tensors that onnxruntime's quantize_static ranges, PyTorch its activation
functions.
"""
import argparse
import logging
import os
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument('--threads', type=int, default=2)
parser.add_argument('--batch-size', type=int, default=16)
parser.add_argument('--rounds', type=int, default=15)
parser.add_argument('--note', default='')
parser.add_argument('--networks', nargs='+', default=['resnet18', 'mobilenetv2_w1', 'resnet50'])
args = parser.parse_args() if __name__ == '__main__' else None
if args: os.environ['OMP_NUM_THREADS'] = str(args.threads)  # read when libraries are imported

import numpy as np
import pandas as pd
import torch

from common import RESULTS
from selectq.models import build_network
from selectq.onnx_export import export_onnx
from selectq.onnx_models import Runner, need
from selectq.onnx_statistics import OnnxEngine, add_statistics
from selectq.sites import find_sites, inference
from selectq.statistics import batch_statistics
from selectq.table import hardware, versions


def torch_engines(net, x):
    "Plain inference and statistics by PyTorch: name -> function of nothing."
    module, last = net.module.to(memory_format=torch.channels_last), torch.channels_last
    images = torch.from_numpy(x).contiguous(memory_format=last)
    sites = find_sites(module, 'activation', images[:1])
    yield 'torch eager', 'plain', lambda: module(images)
    yield ('torch eager', 'statistics',
           lambda: batch_statistics(module, images, 'activation', sites, last))
    try:
        compiled = torch.compile(module)
        compiled(images)
        yield 'torch.compile', 'plain', lambda: compiled(images)
    except Exception as e:  # it needs a C++ compiler
        print(f'{net.name}: torch.compile does not work here ({type(e).__name__})')


def onnxruntime_engines(model, x):
    "The same by onnxruntime."
    engine = OnnxEngine(model)
    yield 'onnxruntime', 'plain', partial(Runner(model), x)
    yield 'onnxruntime', 'statistics', partial(engine.statistics(), x)


def openvino_engines(model, x, threads):
    "The same by OpenVINO, in float32."
    try: ov, onnx = need('openvino'), need('onnx')
    except ValueError as e:
        print(f'{model.name}: {e}')
        return
    graph, _ = add_statistics(model, OnnxEngine(model).tensors)
    how = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads}
    for what, proto in (('plain', model.proto), ('statistics', graph)):
        with tempfile.TemporaryDirectory() as d:
            onnx.save(proto, str(Path(d, 'model.onnx')))
            request = ov.compile_model(str(Path(d, 'model.onnx')), 'CPU', how)
        yield 'openvino', what, partial(request.create_infer_request().infer, {0: x})


def measure(name, batch_size, rounds, threads):
    "Rows of one network."
    net = build_network(name)
    net.module.eval()
    x = np.random.default_rng(0).standard_normal((batch_size, *net.in_shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as d: model = export_onnx(net, Path(d, f'{name}.onnx'))
    with inference(net.module):
        runs = [*torch_engines(net, x), *onnxruntime_engines(model, x),
                *openvino_engines(model, x, threads)]
        seconds = np.empty((rounds, len(runs)))
        for _, _, run in runs: run()  # warm
        for r in range(rounds):
            for k, (_, _, run) in enumerate(runs):
                start = time.perf_counter()
                run()
                seconds[r, k] = time.perf_counter() - start
    at = {(engine, what): k for k, (engine, what, _) in enumerate(runs)}
    for (engine, what), k in at.items():
        faster = np.quantile(seconds[:, at['torch eager', 'plain']] / seconds[:, k], [.5, .25, .75])
        cost = np.quantile(seconds[:, k] / seconds[:, at[engine, 'plain']], [.5, .25, .75])
        yield dict(network=name, engine=engine, what=what, batch_size=batch_size,
                   images_per_s=batch_size / np.median(seconds[:, k]),
                   over_eager=faster[0], over_eager_q25=faster[1], over_eager_q75=faster[2],
                   over_plain=cost[0], over_plain_q25=cost[1], over_plain_q75=cost[2],
                   rounds=rounds, threads=threads)


def main(threads, batch_size, rounds, networks, note):
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    rows = [r for n in networks for r in measure(n, batch_size, rounds, threads)]
    found = versions(('torch', 'onnxruntime', 'openvino'))
    used = {p: found[p] for p in ('torch', 'onnxruntime', 'openvino') if p in found}
    df = pd.DataFrame(rows).assign(hardware=hardware(), note=note, **used)
    df.round(4).to_csv(RESULTS / 'benchmarks_engines.csv', index=False)
    print(df.iloc[:, :12].round(3).to_string(index=False))


if __name__ == '__main__': main(**vars(args))
