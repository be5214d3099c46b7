"""What the four statistics cost beside plain inference, and one traversal beside the paper's two.

    python benchmarks/statistics.py [--device cpu] [--batch-size 16] [--repeats 15] [--networks resnet18 mobilenetv2_w1 resnet50]

Each figure is the median of paired runs on the same synthetic 224 x 224 batch, in the same memory format and precision.
"""
import sys
sys.path.append(sys.path.pop(0))  # behind the standard library, which has a statistics module too

import argparse
from contextlib import nullcontext

import numpy as np
import torch

from common import paired, ratio_row, save
from selectq.clustering import SelectQSettings, cluster
from selectq.models import build_network
from selectq.ranking import score_images
from selectq.sites import SiteHooks, find_sites, inference
from selectq.statistics import batch_statistics, site_statistics


def autocast(device, precision): return torch.autocast(torch.device(device).type, torch.bfloat16) if precision == 'bfloat16' else nullcontext()


def cost(name, device, batch_size, fmt, precision, compiled, repeats):
    "Statistics beside plain inference of one network."
    module = build_network(name).module.to(device).eval().to(memory_format=fmt)
    x = torch.randn(batch_size, 3, 224, 224, device=device).contiguous(memory_format=fmt)
    parts = []
    with inference(module), autocast(device, precision):
        sites = find_sites(module, 'activation', x[:1])
        plain = torch.compile(module) if compiled else module
        plain(x)
        if compiled:  # hooks are compiled with the network, so they are set before
            hooked = build_network(name).module.to(device).eval().to(memory_format=fmt)
            with SiteHooks(hooked, 'activation', lambda k, a: parts.append(site_statistics(a))):
                watched = torch.compile(hooked)
                def other():
                    parts.clear(); watched(x)
                    return torch.stack(parts, 1).cpu()
                t = paired(lambda: plain(x), other, repeats, device)
        else: t = paired(lambda: plain(x), lambda: batch_statistics(module, x, 'activation', sites, fmt), repeats, device)
    return dict(network=name, device=device, batch_size=batch_size, memory_format=str(fmt).split('.')[1], precision=precision, compiled=compiled, sites=len(sites),
                plain_images_per_s=batch_size / np.median(t[:, 0]), statistics_images_per_s=batch_size / np.median(t[:, 1]), **ratio_row(t))


def two_traversals(name, device, batch_size, batches, repeats):
    "One traversal and a table, beside the paper's procedure: two traversals with a separate mean and std at every site."
    from clustering import generated_table
    module = build_network(name).module.to(device).eval().to(memory_format=torch.channels_last)
    xs = [torch.randn(batch_size, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last) for _ in range(batches)]
    sites = find_sites(module, 'activation', xs[0][:1])
    table, s = generated_table(batch_size * batches, len(sites)), SelectQSettings()
    def separate(k, a): a.mean((1, 2, 3)).cpu(); a.std((1, 2, 3), correction=0).cpu()
    def paper():
        with SiteHooks(module, 'activation', separate):
            for x in xs: module(x)
            clustering = cluster(table, s)
            for x in xs: module(x)
            score_images(table, clustering)
    def ours():
        for x in xs: batch_statistics(module, x, 'activation', sites, torch.channels_last)
        score_images(table, cluster(table, s))
    with inference(module): t = paired(paper, ours, repeats, device)
    return dict(network=name, device=device, batch_size=batch_size, batches=batches, paper_s=np.median(t[:, 0]), ours_s=np.median(t[:, 1]), **ratio_row(t))


def main(device, batch_size, repeats, networks):
    cuda = device.startswith('cuda')
    cases = [(torch.channels_last, 'float32', False), (torch.contiguous_format, 'float32', False)]
    if cuda: cases += [(torch.channels_last, 'bfloat16', False), (torch.channels_last, 'float32', True), (torch.channels_last, 'bfloat16', True)]
    tag = '_gpu' if cuda else ''
    save([cost(n, device, batch_size, *c, repeats) for n in networks for c in cases], f'statistics{tag}', device)
    save([two_traversals(n, device, batch_size, 4, max(3, repeats // 3)) for n in networks], f'traversals{tag}', device)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--networks', nargs='+', default=['resnet18', 'mobilenetv2_w1', 'resnet50'])
    main(**vars(parser.parse_args()))
