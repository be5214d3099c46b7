"""A text detector from a PyPI package, quantized by onnxruntime with sets of all kinds.

    pip install --no-deps rapidocr-onnxruntime    # Apache-2.0; only its model file is read
    python scripts/text_detection.py images FOLDER    # and the model in opset 17
    python scripts/text_detection.py run [--model FILE.onnx] [--seeds 4] [--out results]
    python scripts/text_detection.py picture          # of the page

`images` draws words on photographs: FOLDER/pool, FOLDER/val, FOLDER/boxes.json and
FOLDER/detector.onnx. `run` writes results/text_detection.csv and results/text_detection_pairs.csv
in about five minutes on one core. This file is a metric as well: in FOLDER,
`selectq quantize detector.onnx pool --val val --metric .../text_detection.py:found_text`.
"""
import argparse
import importlib.util
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from selectq.batches import load_batches
from selectq.data import PartPool, open_pool
from selectq.deployment import DeploymentSettings, integer_runner, make_integer_model
from selectq.images import Preprocess
from selectq.matching import match
from selectq.onnx_models import load_onnx
from selectq.onnx_statistics import collect_onnx
from selectq.onnx_targets import make_onnx_target
from selectq.ranking import select_random
from selectq.studies import hardware
from selectq.table import versions

ROOT = Path(__file__).resolve().parents[1]
SIDE = 320
LOOK = Preprocess(SIDE, SIDE, (.5,) * 3, (.5,) * 3)
MODEL = 'ch_PP-OCRv4_det_infer.onnx'
WORDS = ('calibration range tensor choose images quantize 8 bit integer minimum maximum 2025 photo '
         'network pool seed OPEN EXIT 42 street coffee market 19.90 north library platform').split()
FONTS = 'DejaVuSans', 'DejaVuSans-Bold', 'DejaVuSerif', 'DejaVuSansMono', 'DejaVuSerif-Bold'


def model_file():
    "The detector in the installed package, or None."
    spec = importlib.util.find_spec('rapidocr_onnxruntime')
    path = spec and Path(spec.submodule_search_locations[0]) / 'models' / MODEL
    return path if path and path.is_file() else None


def newer(path, out):
    "The model in opset 17: it comes in 12, and quantized models need 13 or later."
    import onnx
    onnx.save(onnx.version_converter.convert_version(onnx.load(str(path)), 17), str(out))
    return out


def background(photos, rng):
    "Part of a photograph, or paper."
    if rng.integers(3) == 0:
        return Image.new('RGB', (SIDE, SIDE), tuple(rng.integers(170, 256, 3).tolist()))
    photo = Image.fromarray(photos[rng.integers(len(photos))])
    side = int(rng.integers(160, 400))
    left, top = (int(rng.integers(v - side + 1)) for v in photo.size)
    return photo.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))


def draw_words(photos, fonts, rng):
    "An image with up to four lines of words, and their boxes (left, top, right, bottom)."
    image = background(photos, rng)
    draw, boxes, top = ImageDraw.Draw(image), [], int(rng.integers(5, 50))
    for _ in range(rng.integers(1, 5)):
        font = ImageFont.truetype(fonts[rng.integers(len(fonts))], int(rng.integers(16, 40)))
        text = ' '.join(rng.choice(WORDS, rng.integers(1, 3)))
        l, t, r, b = draw.textbbox((0, 0), text, font)
        if r - l > SIDE - 12 or top + b - t > SIDE - 6: continue
        left = int(rng.integers(6, SIDE - (r - l) - 5))
        there = np.asarray(image.crop((left, top, left + r - l, top + b - t))).mean()
        ink = rng.integers(0, 60, 3) if there > 115 else rng.integers(200, 256, 3)
        draw.text((left - l, top - t), text, tuple(ink.tolist()), font)
        boxes.append([left, top, left + r - l, top + b - t])
        top += int(b - t + rng.integers(12, 60))
    return image, boxes


def make_images(folder, pool=100, val=80):
    "Images with words: the pool flat, each validation image in a folder of its number."
    from matplotlib import get_data_path
    from sklearn.datasets import load_sample_images
    photos = load_sample_images().images
    fonts = [str(Path(get_data_path(), 'fonts', 'ttf', f'{name}.ttf')) for name in FONTS]
    for part, n, key in (('pool', pool, 0), ('val', val, 1)):
        rng, known = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(key,))), []
        for k in range(n):
            image, boxes = draw_words(photos, fonts, rng)
            path = folder / part / (f'{k:04d}/image.png' if key else f'{k:04d}.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
            known.append(boxes)
    (folder / 'boxes.json').write_text(json.dumps(known))  # of the validation images


def found_boxes(chance):
    "Boxes in a map of chances (H, W): connected parts, grown as the detector was trained."
    from scipy.ndimage import find_objects, label
    parts, _ = label(chance > .3)
    boxes = []
    for k, (rows, columns) in enumerate(find_objects(parts), 1):
        h, w = rows.stop - rows.start, columns.stop - columns.start
        if min(h, w) < 3 or chance[rows, columns][parts[rows, columns] == k].mean() < .5: continue
        grow = 1.6 * h * w / (2 * (h + w))
        boxes.append([columns.start - grow, rows.start - grow, columns.stop + grow,
                      rows.stop + grow])
    return boxes


def overlap(a, b):
    "Intersection over union of two boxes."
    w, h = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    area = lambda v: (v[2] - v[0]) * (v[3] - v[1])
    return max(w, 0) * max(h, 0) / (area(a) + area(b) - max(w, 0) * max(h, 0))


def f1(found, known):
    "Harmonic mean of precision and recall at half overlap; 1 where nothing is and nothing found."
    left, hits = list(known), 0
    for box in found:
        best = max(left, key=lambda v: overlap(box, v), default=None)
        if best is not None and overlap(box, best) >= .5:
            left.remove(best)
            hits += 1
    return 2 * hits / (len(found) + len(known)) if found or known else 1.


def found_text(outputs, labels, known=None):
    "F1 of every image; the label of an image is its number in boxes.json."
    known = known or json.loads(Path('boxes.json').read_text())
    return np.array([f1(found_boxes(y[0]), known[k]) for y, k in zip(outputs, labels)])


def maps(model, run, val):
    "The map of every validation image, and its number."
    found = [(run(b.images)[0][:, 0], b.labels) for b in load_batches(val, LOOK, None, 16,
                                                                       arrays=True)]
    return [np.concatenate(v) for v in zip(*found)]


def measured(path, folder, seeds):
    "Rows: facts, and F1 of every image."
    make_images(folder)
    model = load_onnx(newer(path, folder / 'detector.onnx'), LOOK)
    pool, val = open_pool(folder / 'pool'), open_pool(folder / 'val')
    known = json.loads((folder / 'boxes.json').read_text())
    exact, labels = maps(model, integer_runner(model, threads=1), val)
    score = lambda y: found_text(y[:, None], labels, known)
    yield dict(strategy='float', n=0, seed=0), score(exact)
    table = collect_onnx(model, pool, 'onnxruntime')
    # without influences, which take three passes for each of its tensors
    target = make_onnx_target(model, table, pool, bits=8, costs=False)
    sets = [('target', len(pool), 0, None)]
    for n in (1, 10):
        sets.append(('match', n, 0, match(table, target, n)))
        sets += [('random', n, s, select_random(table, n, s)) for s in range(seeds)]
    for strategy, n, seed, chosen in sets:
        s = DeploymentSettings(n=n, ranges='target' if chosen is None else 'set', random=0)
        given = chosen or select_random(table, 1, 0)
        made = make_integer_model(model, pool, given, target, folder / 'int8.onnx', s, table)
        y, _ = maps(model, integer_runner(model, made, threads=1), val)
        db = 10 * np.log10(exact.var() / ((y - exact) ** 2).mean())
        yield dict(strategy=strategy, n=n, seed=seed, db=db), score(y)


def beside_random(found):
    "Each set beside the mean of the random sets of its size, paired by image."
    cells = {}
    for facts, values in found: cells.setdefault((facts['strategy'], facts['n']), []).append(values)
    for (strategy, n), mine in cells.items():
        others = cells.get(('random', n)) or cells[('random', 10)]
        if strategy in ('random', 'float'): continue
        d = np.mean(mine, 0) - np.mean(others, 0)
        yield dict(strategy=strategy, n=n, random_sets=len(others), images=len(d),
                   difference=d.mean(), se=d.std(ddof=1) / len(d) ** .5,
                   above=np.mean([np.mean(mine) > v.mean() for v in others]))


def run(args):
    "Both result files."
    path = args.model or model_file()
    if path is None: raise SystemExit('no detector: pip install --no-deps rapidocr-onnxruntime')
    found, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for facts, values in measured(path, Path(folder), args.seeds):
            found.append((facts, values))
            rows.append(dict(model=path.stem, tool='onnxruntime', **facts, f1=values.mean(),
                             se=values.std(ddof=1) / len(values) ** .5, images=len(values)))
            print(rows[-1], flush=True)
    v = versions(('torch', 'onnxruntime'))
    about = dict(hardware=hardware(), selectq=v['selectq'], onnxruntime=v['onnxruntime'])
    args.out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows).assign(**about).round(4)
    table.to_csv(args.out / 'text_detection.csv', index=False)
    pairs = pd.DataFrame([*beside_random(found)]).round(4)
    pairs.to_csv(args.out / 'text_detection_pairs.csv', index=False)


def images(args):
    "Images, boxes, and the detector where it is installed."
    folder = args.folder or Path('.')
    make_images(folder)
    if path := args.model or model_file(): newer(path, folder / 'detector.onnx')


def picture(args):
    "nbs/images/text_detection.png: an image of the validation set with the boxes found, its map."
    import matplotlib.pyplot as plt
    from selectq.plots import look
    path = args.model or model_file()
    with tempfile.TemporaryDirectory() as folder, look():
        images(args := argparse.Namespace(folder=Path(folder), model=path))
        model, val = load_onnx(args.folder / 'detector.onnx', LOOK), open_pool(args.folder / 'val')
        small = PartPool(val, [1, 10])
        found, _ = maps(model, integer_runner(model, threads=1), small)
        fig, axs = plt.subplots(2, 2, figsize=(4, 4), layout='constrained')
        for k, row in enumerate(axs):
            row[0].imshow(small.image(k))
            row[1].imshow(found[k], cmap='gray', vmin=0, vmax=1)
            for l, t, r, b in found_boxes(found[k]):
                row[0].add_patch(plt.Rectangle((l, t), r - l, b - t, fill=False, ec='#D55E00'))
            for ax in row: ax.set(xticks=[], yticks=[])
        axs[0, 0].set_title('image, boxes found')
        axs[0, 1].set_title('what the model gives')
        out = io.BytesIO()
        fig.savefig(out, format='png', dpi=120)
    small = Image.open(out).convert('RGB').quantize(128, dither=Image.Dither.NONE)
    small.save(ROOT / 'nbs' / 'images' / 'text_detection.png', optimize=True)


def parsed(words=None):
    "The command line."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('what', choices=('images', 'run', 'picture'))
    parser.add_argument('folder', type=Path, nargs='?', help='of images')
    parser.add_argument('--model', type=Path, help='that of the installed package')
    parser.add_argument('--seeds', type=int, default=4, help='random sets of each size')
    parser.add_argument('--out', type=Path, default=ROOT / 'results')
    return parser.parse_args(words)


if __name__ == '__main__':
    args = parsed()
    dict(run=run, images=images, picture=picture)[args.what](args)
