"""Peak resident memory of `selectq stats` for growing pools, and of `selectq select`.

The table to select from has 1.28 million images x 21 sites.

    python benchmarks/memory.py [--pools 1000 10000 100000] [--images 1281167]
"""
import sys
sys.path.append(sys.path.pop(0))  # behind the standard library, which has a statistics module too

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from clustering import generated_table
from common import peak_memory, save
from selectq.batches import Batch
from selectq.files import write_json
from selectq.table import _part, _write_part
from selectq.engines import _settings_hash


def generated_pool(folder, n):
    "n small PNG files in sub-folders of 1000."
    rng = np.random.default_rng(0)
    for i in range(n):
        p = Path(folder) / f'{i // 1000:04d}' / f'{i:07d}.png'
        if i % 1000 == 0: p.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(p, compress_level=1)
    return folder


def write_generated(folder, images, sites, chunk=1024):
    "A generated table in the layout of `selectq stats`."
    table = generated_table(images, sites)
    meta = dict(format=1, network='generated', weights='0' * 64, kind='activation',
                sites=table.sites, preprocess=dict(resize=256, crop=224), batch_size=32,
                chunk=chunk, noise=dict(images=100, seed=0),
                pool=dict(source='generated', fingerprint='', images=images))
    meta |= dict(settings=_settings_hash(meta), complete=True, unreadable=[], images=images,
                 seconds=1., waiting=0., device='cpu', versions={})
    folder.mkdir(); write_json(folder / 'meta.json', meta)
    def part(path, c, rows, stats):
        batch = Batch(rows, [f'n{i // 1300:08d}/n{i // 1300:08d}_{i}.JPEG' for i in rows],
                      [hashlib.blake2b(b'%d' % i, digest_size=8).hexdigest() for i in rows], None,
                      [], rows // 1300)
        _write_part(path, [batch], [stats], table.sites, dict(settings=meta['settings'], chunk=c,
                                                              rows=len(rows), unreadable=[]))
    for c in range(-(-images // chunk)):
        rows = np.arange(c * chunk, min(c * chunk + chunk, images))
        part(_part(folder, c), c, rows, table.stats[rows])
    part(folder / 'noise.parquet', -1, np.arange(100), table.noise)
    return sum(p.stat().st_size for p in folder.iterdir()) / 1e6


def main(pools, images, sites):
    rows = []
    with tempfile.TemporaryDirectory() as d:
        for n in pools:
            pool, out = generated_pool(Path(d) / f'pool{n}', n), Path(d) / f'stats{n}'
            mb, s = peak_memory('-m', 'selectq.cli', 'stats', 'digits', pool, '--out', out,
                                '--workers', 0)
            rows.append(dict(command='stats', images=n, sites=7, peak_mb=mb, seconds=s,
                             table_mb=sum(p.stat().st_size for p in out.iterdir()) / 1e6))
    with tempfile.TemporaryDirectory() as d:
        size = write_generated(Path(d) / 'stats', images, sites)
        mb, s = peak_memory('-m', 'selectq.cli', 'select', Path(d) / 'stats', '-n', 1000, '--out',
                            Path(d) / 'selection.json')
        assert json.loads((Path(d) / 'selection.json').read_text())['n'] == 1000
        rows.append(dict(command='select', images=images, sites=sites, peak_mb=mb, seconds=s,
                         table_mb=size))
    save(rows, 'memory')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--pools', type=int, nargs='+', default=[1000, 10_000, 100_000])
    parser.add_argument('--images', type=int, default=1_281_167)
    parser.add_argument('--sites', type=int, default=21)
    main(**vars(parser.parse_args()))
