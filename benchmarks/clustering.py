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
    "A table with statistics such as ReLUs leave: positive, correlated, long-tailed."
    rng = np.random.default_rng(seed)
    stats = np.empty((images, sites, 4), np.float32)
    for s in range(sites):
        std = rng.gamma(20, .05, images) * rng.uniform(.3, 3)
        mean, most = std * rng.uniform(.4, .7, images), std * rng.gamma(30, .3, images)
        stats[:, s] = np.stack([mean, std, np.zeros(images), most], 1)
    names = [f'generated.{k}' for k in range(sites)]
    pool = dict(source='generated', images=images)
    meta = dict(network='generated', weights='0' * 64, kind='activation', sites=names, pool=pool)
    text = pa.array(['']).take(pa.array(np.zeros(images, np.int64)))
    noise = stats[rng.choice(images, 100)] * np.float32(1.3)
    return StatisticsTable(stats, np.arange(images), text, text, None, noise, meta)


def summary(t):
    "Columns from seconds (repeats, 2) of clustering and ranking."
    both = t.sum(1)
    return dict(clustering_s=np.median(t[:, 0]), ranking_s=np.median(t[:, 1]),
                together_s=np.median(both), least_s=both.min(), most_s=both.max())


def main(images, sites, repeats):
    table, rows = generated_table(images, sites), []
    for update in ('additive', 'shift'):
        s = SelectQSettings(update=update)
        clustering = cluster(table, s)
        score_images(table, clustering)  # both are compiled now
        steps = (lambda: cluster(table, s)), (lambda: score_images(table, clustering))
        t = np.array([[seconds(step) for step in steps] for _ in range(repeats)])
        facts = dict(update=update, images=images, sites=sites, centroids=s.centroids)
        rows.append(dict(**facts, **summary(t), repeats=repeats))
    save(rows, 'clustering')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=1_281_167)
    parser.add_argument('--sites', type=int, default=21)
    parser.add_argument('--repeats', type=int, default=5)
    main(**vars(parser.parse_args()))
