"""A small network that makes images twice as large: trained, quantized with sets of all kinds.

    python scripts/restoration.py train [--steps 4000]
    python scripts/restoration.py run [--seeds 10]

`train` writes selectq/weights/upscale.safetensors from the photographs of the ImageNet sample:
about six minutes on one CPU core. `run` writes results/restoration.csv, one row for each set and
pair of bits, and results/restoration_pairs.csv, every set beside the random ones on the same
validation images (every second of 500); about ten minutes. Both take [--data $SELECTQ_DATA] and
[--out FILE or FOLDER].
"""
import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file
from selectq.calibration import quantized, table_ranges
from selectq.crafting import craft, start_pixels
from selectq.data import open_pool
from selectq.deployment import (DeploymentSettings, integer_runner, make_integer_model,
                                measure_model)
from selectq.matching import match
from selectq.models import build_network, load_network
from selectq.onnx_export import export_onnx
from selectq.onnx_statistics import collect_onnx
from selectq.onnx_targets import make_onnx_target
from selectq.ranking import select_random
from selectq.strategies import How, choose_images
from selectq.studies import hardware
from selectq.table import versions
from selectq.targets import make_target
from selectq.traversal import collect

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / 'selectq' / 'weights' / 'upscale.safetensors'
SIDE = 128  # of a sharp image; the network reads half of it
BITS = (8, 8), (6, 6), (4, 4)


def photographs(folder, whole=False):
    "Photographs at half size, uint8 (H, W, 3): the short side is 128 pixels, cropped or whole."
    pool, found = open_pool(folder), []
    for k in range(len(pool)):
        image = pool.image(k)
        s = SIDE / min(image.size)
        w, h = (max(SIDE, round(v * s)) for v in image.size)
        image = image.resize((w, h), Image.Resampling.BICUBIC)
        left, top = (w - SIDE) // 2, (h - SIDE) // 2
        found.append(np.asarray(image if whole else
                                image.crop((left, top, left + SIDE, top + SIDE))))
    return found


def halved(x):
    "Every pixel the mean of four, rounded to 8 bits: (..., 2 H, 2 W) to (..., H, W), in 0..1."
    return (torch.nn.functional.avg_pool2d(x, 2) * 255).round() / 255


def psnr(made, sharp):
    "Peak signal-to-noise ratio of every image in dB: (B, 3, H, W) twice to (B,)."
    return -10 * ((made.clamp(0, 1) - sharp) ** 2).mean((1, 2, 3)).log10()


def crops(images, n, side, rng):
    "n random squares, mirrored at random: (n, 3, side, side) in 0..1."
    found = []
    for k in rng.integers(len(images), size=n):
        top, left = (rng.integers(v - side + 1) for v in images[k].shape[:2])
        part = images[k][top:top + side, left:left + side]
        found.append(part[:, ::-1] if rng.integers(2) else part)
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255


def planes(images):
    "(n, 3, H, W) in 0..1."
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def quality(module, sharp):
    "PSNR of every image."
    return torch.cat([psnr(module(halved(x)), x) for x in sharp.split(50)]).numpy()


def train(args):
    "Mean absolute error, Adam, a cosine schedule."
    torch.manual_seed(args.seed)
    rng, start = np.random.default_rng(args.seed), time.time()
    images = photographs(args.data / 'imagenet-sample' / 'train', whole=True)
    sharp = planes(photographs(args.data / 'imagenet-sample' / 'val'))
    module = build_network('upscale').module
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    for step in range(args.steps):
        x = crops(images, 16, 64, rng)
        loss = (module(halved(x)) - x).abs().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step(); schedule.step()
        if step % 500 == 499:
            print(f'step {step + 1}: {loss.item():.4f}, {time.time() - start:.0f} s', flush=True)
    out = args.out or WEIGHTS
    save_file(module.eval().state_dict(), out)
    plain = quality(lambda x: torch.nn.functional.interpolate(x, scale_factor=2, mode='bicubic'),
                    sharp)
    print(f'{out}: {out.stat().st_size / 1e3:.0f} KB, {quality(module, sharp).mean():.2f} dB on '
          f'{len(sharp)} validation images, bicubic {plain.mean():.2f} dB')


@dataclass
class Case:
    "The network, its pool and its validation images."
    net: object
    pool: object  # small images, without labels
    val: object  # small images; the label of each is its number
    sharp: torch.Tensor  # (n, 3, H, W) what they should become

    def metric(self, outputs, labels):
        "PSNR, as `selectq quantize --metric` asks for it."
        return psnr(torch.from_numpy(outputs), self.sharp[labels]).numpy()


def write_small(sharp, folder, numbered):
    "The halved images as PNG files, flat or each in a folder of its number."
    for k, x in enumerate(sharp.split(1)):
        path = folder / (f'{k:04d}/image.png' if numbered else f'{k:04d}.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        small = (halved(x)[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(small).save(path)
    return open_pool(folder)


def load_case(data, folder):
    "Pool and validation images of the ImageNet sample."
    parts = {p: planes(photographs(data / 'imagenet-sample' / p)) for p in ('train', 'val')}
    parts['val'] = parts['val'][::2].clone()
    return Case(load_network('upscale'), write_small(parts['train'], folder / 'pool', False),
                write_small(parts['val'], folder / 'val', True), parts['val'])


def simulated(case, seeds, crafted):
    "Rows of fake quantization: facts, and the PSNR of every image."
    table = collect(case.net, case.pool, 'input')
    yield dict(strategy='float', n=0, seed=0, w_bits=32, a_bits=32), quality(case.net.module,
                                                                             case.sharp)
    for w, a in BITS:
        target = make_target(case.net, table, case.pool, 'mse', a)
        def row(ranges, **facts):
            with quantized(case.net, ranges, w, a) as module:
                return facts | dict(w_bits=w, a_bits=a), quality(module, case.sharp)
        yield row(target.ranges, strategy='mse', n=256, seed=0)
        for n in (1, 10, 100):
            chosen = match(table, target, n)
            yield row(table_ranges(table, chosen), strategy='match', n=n, seed=0)
            for seed in range(seeds):
                drawn = select_random(table, n, seed)
                yield row(table_ranges(table, drawn), strategy='random', n=n, seed=seed)
        for seed in range(3):
            for n in (10, 100):
                chosen = choose_images(table, 'selectq', n, seed, How())
                yield row(table_ranges(table, chosen), strategy='selectq', n=n, seed=seed)
        if crafted:
            start = start_pixels(case.net, table, match(table, target, 8), case.pool)
            made = craft(case.net, target, start, progress=False)
            yield row(made.ranges, strategy='craft', n=8, seed=0)


def integer(case, seeds, folder):
    "Rows of onnxruntime's integer models."
    model = export_onnx(case.net, folder / 'upscale.onnx')
    table = collect_onnx(model, case.pool, 'onnxruntime')
    target = make_onnx_target(model, table, case.pool, bits=8)
    sets = [('target', 256, 0, None)]
    for n in (1, 10, 100):
        sets.append(('match', n, 0, match(table, target, n)))
        sets += [('random', n, s, select_random(table, n, s)) for s in range(seeds)]
    for strategy, n, seed, chosen in sets:
        s = DeploymentSettings(n=n, ranges='target' if chosen is None else 'set', random=0)
        given = chosen or select_random(table, 1, 0)
        path = make_integer_model(model, case.pool, given, target, folder / 'int8.onnx', s, table)
        values, _ = measure_model(model, integer_runner(model, path), case.val, case.metric)
        yield dict(strategy=strategy, n=n, seed=seed, w_bits=8, a_bits=8), values


def beside_random(found, tool):
    "Each set beside the mean of the random sets of its size, paired by image."
    cells = {}
    for facts, values in found:
        key = facts['w_bits'], facts['a_bits'], facts['strategy'], facts['n']
        cells.setdefault(key, []).append(values)
    for (w, a, strategy, n), mine in cells.items():
        others = cells.get((w, a, 'random', n)) or cells.get((w, a, 'random', 10))
        if strategy in ('random', 'float') or not others: continue
        d = np.mean(mine, 0) - np.mean(others, 0)
        yield dict(tool=tool, w_bits=w, a_bits=a, strategy=strategy, n=n, sets=len(mine),
                   random_sets=len(others), images=len(d), difference=d.mean(),
                   se=d.std(ddof=1) / len(d) ** .5,
                   above=np.mean([np.mean(mine) > v.mean() for v in others]))


def run(args):
    "All rows, then both files."
    out = args.out or ROOT / 'results'
    with tempfile.TemporaryDirectory() as folder:
        case, rows, pairs = load_case(args.data, Path(folder)), [], []
        for tool, found in (('simulated', simulated(case, args.seeds, not args.quick)),
                            ('onnxruntime', integer(case, args.seeds, Path(folder)))):
            kept = []
            for facts, values in found:
                kept.append((facts, values))
                se = values.std(ddof=1) / len(values) ** .5
                rows.append(dict(tool=tool, network=case.net.name, sites='input', **facts,
                                 psnr=values.mean(), se=se, images=len(values)))
                print(*rows[-1].values(), flush=True)
            pairs += beside_random(kept, tool)
    v = versions(('torch', 'onnxruntime'))
    about = dict(weights=case.net.hash[:12], pool=len(case.pool), hardware=hardware(),
                 selectq=v['selectq'], torch=v['torch'].split('+')[0],
                 onnxruntime=v['onnxruntime'])
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).assign(**about).round(4).to_csv(out / 'restoration.csv', index=False)
    pd.DataFrame(pairs).round(4).to_csv(out / 'restoration_pairs.csv', index=False)


def parsed(words=None):
    "The command line."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('what', choices=('train', 'run'))
    parser.add_argument('--steps', type=int, default=4000)
    parser.add_argument('--seeds', type=int, default=10, help='random sets of each size')
    parser.add_argument('--seed', type=int, default=0, help='of the training')
    parser.add_argument('--quick', action='store_true', help='no crafted images')
    parser.add_argument('--data', type=Path, default=Path(os.environ.get('SELECTQ_DATA', '.')))
    parser.add_argument('--out', type=Path)
    return parser.parse_args(words)


if __name__ == '__main__':
    args = parsed()
    dict(train=train, run=run)[args.what](args)
