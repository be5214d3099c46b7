"""What a W4A4 evaluation costs beside a full-precision one of the same network and batches.

    python benchmarks/evaluation.py [--batch-size 16] [--repeats 15]
                                    [--networks resnet18 mobilenetv2_w1]

Each figure is the median of paired runs on the same synthetic 224 x 224 batch, channels-last.
`unfused` is the same network with the fake quantization of PyTorch in the hooks.
"""
import argparse

import numpy as np
import torch

from common import paired, ratio_row, save
from selectq.calibration import pass_ranges, quantized, quantized_weights, swapped
from selectq.models import build_network
from selectq.quantizer import scale_offset
from selectq.sites import SiteHooks, find_sites, inference


def with_torch(module, ranges, weights, x):
    "W4A4 with PyTorch's operation."
    deltas, offsets = scale_offset(torch.from_numpy(ranges.alpha), torch.from_numpy(ranges.beta), 4)
    deltas, points = deltas.tolist(), (-offsets).int().tolist()
    fake = lambda k, a: torch.fake_quantize_per_tensor_affine(a, deltas[k], points[k], -8, 7)
    with inference(module), swapped(weights), SiteHooks(module, ranges.kind, fake, ranges.sites):
        return module(x)


def cost(name, kind, batch_size, repeats):
    "Ratios of one network and one kind of sites."
    net = build_network(name)
    module = net.module.eval().to(memory_format=torch.channels_last)
    x = torch.randn(batch_size, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    with inference(module): sites = find_sites(module, kind, x[:1])
    ranges, weights = pass_ranges(net, [x], kind, sites), quantized_weights(module, 4)
    def plain():
        with inference(module): return module(x)
    def ours():
        with quantized(net, ranges, 4, 4, weights=weights) as q: return q(x)
    assert torch.equal(ours(), with_torch(module, ranges, weights, x))
    rows = []
    for label, other in (('selectq', ours),
                         ('unfused', lambda: with_torch(module, ranges, weights, x))):
        t = paired(plain, other, repeats)
        rows.append(dict(network=name, sites=kind, quantizer=label, batch_size=batch_size,
                         number_of_sites=len(sites), plain_s=np.median(t[:, 0]),
                         quantized_s=np.median(t[:, 1]), **ratio_row(t)))
    return rows


def main(batch_size, repeats, networks):
    save([row for n in networks for kind in ('activation', 'output', 'input')
          for row in cost(n, kind, batch_size, repeats)], 'evaluation')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--networks', nargs='+', default=['resnet18', 'mobilenetv2_w1'])
    main(**vars(parser.parse_args()))
