"""Clustering and ranking of 1.28 million images x 21 sites x 10 centroids, on generated statistics.

    python benchmarks/clustering.py [--images 1281167] [--sites 21] [--repeats 5]
"""
import sys
sys.path.append(sys.path.pop(0))  # behind the standard library, which has a statistics module too

import argparse

import numpy as np
import pyarrow as pa

from common import save, seconds
from selectq.clustering import SelectQSettings, cluster
from selectq.ranking import score_images
from selectq.table import StatisticsTable


def generated_table(images, sites, seed=0):
    "A table whose statistics have the shape of those after ReLUs: positive, correlated, long-tailed."
    rng = np.random.default_rng(seed)
    stats = np.empty((images, sites, 4), np.float32)
    for s in range(sites):
        std = rng.gamma(20, .05, images) * rng.uniform(.3, 3)
        stats[:, s] = np.stack([std * rng.uniform(.4, .7, images), std, np.zeros(images), std * rng.gamma(30, .3, images)], 1)
    names = [f'generated.{k}' for k in range(sites)]
    meta = dict(network='generated', weights='0' * 64, kind='activation', sites=names, pool=dict(source='generated', images=images))
    text = pa.array(['']).take(pa.array(np.zeros(images, np.int64)))
    return StatisticsTable(stats, np.arange(images), text, text, None, stats[rng.choice(images, 100)] * np.float32(1.3), meta)


def main(images, sites, repeats):
    table, rows = generated_table(images, sites), []
    for update in ('additive', 'shift'):
        s = SelectQSettings(update=update)
        clustering = cluster(table, s)
        score_images(table, clustering)  # both are compiled now
        t = np.array([[seconds(lambda: cluster(table, s)), seconds(lambda: score_images(table, clustering))] for _ in range(repeats)])
        rows.append(dict(update=update, images=images, sites=sites, centroids=s.centroids, clustering_s=np.median(t[:, 0]), ranking_s=np.median(t[:, 1]),
                         together_s=np.median(t.sum(1)), least_s=t.sum(1).min(), most_s=t.sum(1).max(), repeats=repeats))
    save(rows, 'clustering')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=1_281_167)
    parser.add_argument('--sites', type=int, default=21)
    parser.add_argument('--repeats', type=int, default=5)
    main(**vars(parser.parse_args()))
