"""Images per second and worker for decode + resize + crop, exact and fast, and what fast decoding does to a selection.

    SELECTQ_DATA=DIR python benchmarks/decoding.py [--images 300] [--enlarge 3]

Reads the ImageNet sample (short side 256) as it is, and enlarged to the size of photos (re-encoded at quality 90).
"""
import sys
sys.path.append(sys.path.pop(0))  # behind the standard library, which has a statistics module too

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from common import save, seconds
from selectq.clustering import SelectQSettings
from selectq.data import open_pool, load_batches
from selectq.models import load_network
from selectq.ranking import select
from selectq.traversal import collect


def enlarge(pool, factor, folder):
    "The pool's images, `factor` times larger, as JPEG files of quality 90."
    for i in range(len(pool)):
        img = pool.image(i)
        img.resize((img.width * factor, img.height * factor), Image.Resampling.BICUBIC).save(Path(folder) / f'{i:05d}.jpg', quality=90)
    return open_pool(folder)


def rate(pool, preprocess, images, workers, repeats=5):
    "Images per second, the median of several readings."
    images = min(images, len(pool))
    def once():
        for _ in load_batches(pool, preprocess, np.arange(images), 32, workers): pass
    return images / np.median([seconds(once) for _ in range(repeats)])


def overlap(a, b): return len(set(a.index) & set(b.index)) / len(a)


def main(images, factor, n):
    data = Path(os.environ.get('SELECTQ_DATA') or sys.exit('SELECTQ_DATA is not set: give the folder that holds imagenet-sample and weights'))
    net = load_network('menet128_8x1_g4', data / 'weights/menet128_8x1_g4.safetensors')
    fast, sample = replace(net, preprocess=replace(net.preprocess, draft=True)), open_pool(data / 'imagenet-sample/train')
    with tempfile.TemporaryDirectory() as folder:
        photos, rows = enlarge(sample, factor, folder), []
        for name, pool in (('ImageNet sample, short side 256', sample), (f'enlarged {factor} times', photos)):
            kb = np.mean(pool.sizes()) / 1000
            for decoding, p in (('exact', net.preprocess), ('fast', fast.preprocess)):
                for workers in (0, 1, 2): rows.append(dict(pool=name, mean_kb=kb, decoding=decoding, workers=workers, images_per_s=rate(pool, p, images, workers), images=images))
        save(rows, 'decoding')
        exact, quick = collect(net, photos, workers=2), collect(fast, photos, workers=2)
    rows = []
    gap = np.abs(quick.stats - exact.stats) / np.maximum(np.abs(exact.stats).max(0), 1e-12)
    for name, s in (('additive, highest', SelectQSettings()), ('shift, lowest', SelectQSettings(update='shift', order='lowest'))):
        rows.append(dict(reading=name, n=n, images=len(exact), overlap=overlap(select(exact, n, s), select(quick, n, s)), overlap_of_two_seeds=overlap(select(exact, n, s), select(exact, n, replace(s, seed=1))),
                         overlap_by_chance=n / len(exact), largest_change_of_a_mean=gap[..., 0].max(), largest_change_of_a_max=gap[..., 3].max()))
    save(rows, 'fast_decoding')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=300)
    parser.add_argument('--enlarge', type=int, default=3, dest='factor')
    parser.add_argument('-n', type=int, default=100)
    main(**vars(parser.parse_args()))
