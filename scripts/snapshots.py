"""Make results/snapshot_*.csv: what the pages on activations and centroids draw of full pools.

    python scripts/snapshots.py [NETWORK...] --data $SELECTQ_DATA [--out results] [--cache FOLDER]

CIFAR-10 networks read their weights from results/weights and all 50,000 training images; MENet-128
reads the ImageNet sample. Four files per network: histograms of one layer, images at a few sites,
correlations at every site, centroids on their way.
"""
import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from selectq.clustering import SelectQSettings, cluster
from selectq.data import open_pool, read_classes
from selectq.batches import load_batches
from selectq.models import load_network
from selectq.paths import centroid_paths
from selectq.snapshots import activation_histograms, class_shares, range_correlations
from selectq.sites import find_sites
from selectq.table import STATISTICS
from selectq.traversal import collect

ROOT = Path(__file__).parents[1]
MENET = 'menet128_8x1_g4'
READINGS = (SelectQSettings(), SelectQSettings(update='shift', order='lowest'))


def load_case(name, data):
    "A network with weights and its pool."
    if name != MENET:
        weights = ROOT / f'results/weights/{name}.safetensors'
        return load_network(name, weights), open_pool(data / 'cifar10/train.parquet')
    net = load_network(name, data / f'weights/{name}.safetensors')
    classes = read_classes(data / 'imagenet-sample/wnids.json')
    return net, open_pool(data / 'imagenet-sample/train', classes=classes)


def second_block(sites):
    "The first convolution of the second block, as in Fig. 3."
    return next(s for s in sites if 'unit2' in s)


def histograms(net, pool, table, seed, images=8):
    "One layer over images of class 0, or of the first classes where a class holds fewer images."
    of_class = np.flatnonzero(pool.labels == 0)
    rows = np.argsort(pool.labels, kind='stable')[:images]
    if len(of_class) >= images:
        rows = np.sort(np.random.default_rng(seed).permutation(of_class)[:images])
    x = next(iter(load_batches(pool, net.preprocess, rows, images))).images
    site = second_block(find_sites(net.module, 'output', x[:2]))
    df = activation_histograms(net, x, site, 'output', names=rows)
    df.insert(0, 'label', pool.labels[df.image])
    return df.assign(site=site)


def few_sites(table, count=4):
    "Numbers of some sites, the first and the last among them."
    return np.linspace(0, len(table.sites) - 1, count).round().astype(int)


def points(net, pool, table, seed, images=350):
    "The four statistics of some images at a few sites."
    rows = np.sort(np.random.default_rng(seed).permutation(len(table))[:images])
    frames = {k: pd.DataFrame(table.stats[rows, k], columns=STATISTICS) for k in few_sites(table)}
    return pd.concat([df.assign(site=table.sites[k], image=table.index[rows])
                      for k, df in frames.items()])


def sites(net, pool, table, seed):
    "Correlations of the range, and what the class explains of it, at every site over all images."
    return range_correlations(table).merge(class_shares(table), on='site')


def centroids(net, pool, table, seed):
    "Positions of the centroids at a few sites, in both readings, and how often each won."
    frames = []
    for settings in READINGS:
        wins = cluster(table, settings).wins
        for k in few_sites(table):
            seen, paths = centroid_paths(table, settings, k)
            grid = pd.MultiIndex.from_product([seen, range(paths.shape[1])],
                                              names=['seen', 'centroid'])
            df = pd.DataFrame(paths.reshape(-1, 2), grid, ['mean', 'std']).reset_index()
            frames.append(df.assign(site=table.sites[k], update=settings.update,
                                    wins=wins[k, df.centroid]))
    return pd.concat(frames)


def main(networks, data, out, cache, seed):
    data, out = Path(data), Path(out)
    with tempfile.TemporaryDirectory() as temporary:
        for name in networks:
            net, pool = load_case(name, data)
            table = collect(net, pool, 'activation',
                            out=Path(cache or temporary) / f'{name}-activation')
            for make in (histograms, points, sites, centroids):
                df = make(net, pool, table, seed).assign(network=name, weights=net.hash[:12],
                                                         images=len(table), seed=seed)
                path = out / f'snapshot_{make.__name__}_{name}.csv'
                df.to_csv(path, index=False, float_format='%.5g')
                print(f'{path.name}: {len(df):,} rows, {path.stat().st_size // 1000} KB',
                      flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('networks', nargs='*',
                        default=['resnet20_cifar10', 'seresnet20_cifar10', 'mobilenetv2_cifar10',
                                 MENET])
    parser.add_argument('--data', default=os.environ.get('SELECTQ_DATA', '.'),
                        help='folder with cifar10, imagenet-sample and weights')
    parser.add_argument('--out', default=ROOT / 'results')
    parser.add_argument('--cache',
                        help='folder for the statistics tables; a temporary one by default')
    parser.add_argument('--seed', type=int, default=0, help='of the images drawn')
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())))
    main(**vars(parser.parse_args()))
