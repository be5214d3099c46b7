"""Every strategy on the same images, and pools with bad images: results/rivals.csv and others.

    python scripts/rivals.py rivals [--networks NAME...] [--bits 3] [--images 1000] [--draws 3]
    python scripts/rivals.py dirty [--networks NAME] [--images 1000]

Both take [--data $SELECTQ_DATA] [--out results] [--tables FOLDER] [--work FOLDER]. A run that was
stopped goes on: rows, targets and made images stay in the work folder. `--networks digits` is over
in a minute.
"""

import argparse
import io
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from clipping import LITE, LiteCase
from experiments import CIFAR, MENET, ROOT, load_case, merged

from selectq.comparison import DRAWN, Comparison, compare_strategies, comparison_target
from selectq.comparison import paired_differences
from selectq.data import Pool, limit_pool, open_pool
from selectq.studies import _digest, _key, read_rows
from selectq.studies import ROW, Recipe, choose, read_study, run_study
from selectq.traversal import collect

POOL = ("random", "match", "selectq", "kcenter", "kmeans", "herding", "facility", "first",
        "one-per-class")
MADE = ("craft", "zeroq", "dsg", "noise")
BITS = {MENET: 5, LITE: 5}  # where sets differ; 3 on CIFAR-10
BAD = ("inverted", "saturated", "noise", "other data", "blank", "wrong size")
SHARES = (0, 1, 5, 20)  # per cent of bad images


def case_of(name, args):
    """The network with its images and its table at `input` sites."""
    load = LiteCase if name == LITE else lambda *a: load_case(name, *a)
    return load(args.data, args.tables, "input")


def batch_size(name):
    """Images per forward pass."""
    return 25 if name in (MENET, LITE) else 125


def rivals(args):
    """All strategies at `input` sites under min/max ranges, n = 10 and 100; made sets of 10."""
    sizes = (5, 10) if args.networks == ["digits"] else (10, 100)
    for name in args.networks:
        case = case_of(name, args)
        val = limit_pool(case.val, min(args.images, len(case.val)))
        for bits in args.bits or [BITS.get(name, 3)]:
            for part in (POOL, MADE):
                ways = tuple(s for s in part if s in args.strategies)
                if not ways:
                    continue
                beside = ways if "random" in ways else ("random", *ways)
                what = Comparison(beside, sizes, (bits,), draws=args.draws, seeds=args.seeds,
                                  kind="input", steps=args.steps)
                found = compare_strategies(
                    case.net, val, case.table, case.pool, what, args.work / name, "rivals",
                    answers=True, batch_size=batch_size(name), share=4)
                print(found.groupby(["strategy", "n"]).top1.mean().round(1).to_string())
            write_rivals(args)


def gathered(paths):
    """Rows of some studies, and their paired differences."""
    rows, pairs = [], []
    for path in paths:
        if not path.with_suffix(".answers.json").exists():
            continue  # a copy of the results
        answers = json.loads(path.with_suffix(".answers.json").read_text())
        own = read_rows(path.parent, path.name)
        rows += own
        frame = read_study(path)
        frame = frame.assign(right=[answers.get(_digest(_key(r))) for r in own])
        found = paired_differences(frame[frame.right.notna()])
        pairs.append(found.assign(study=path.stem))
    return pd.DataFrame(rows, columns=ROW), pd.concat(pairs).round(4)


def write(args, study, paths):
    """Rows and paired differences as result files; what else is in the files stays."""
    args.out.mkdir(parents=True, exist_ok=True)
    for name, new in zip((study, f"{study}_pairs"), gathered(paths)):
        path = args.out / f"{name}.csv"
        merged(path, new, ["study", "network", "w_bits"]).to_csv(path, index=False)


def write_rivals(args):
    """All networks in the work folder."""
    write(args, "rivals", sorted(args.work.glob("*/rivals.csv")))


def spoiled(image, way, rng, other):
    """A bad version of an image: an RGB image of the same size."""
    x, side = np.asarray(image), image.size
    if way == "inverted":
        return Image.fromarray(255 - x)
    if way == "saturated":  # contrast times 4 around grey
        return Image.fromarray(np.clip((x.astype(int) - 128) * 4 + 128, 0, 255).astype(np.uint8))
    if way == "noise":
        return Image.fromarray(rng.integers(0, 256, x.shape, dtype=np.uint8))
    if way == "other data":
        return other.resize(side, Image.Resampling.BILINEAR)
    if way == "blank":
        return Image.fromarray(np.full_like(x, rng.integers(0, 256)))
    w, h = side  # wrong size: a corner, enlarged without smoothing
    return image.crop((0, 0, w // 4, h // 4)).resize(side, Image.Resampling.NEAREST)


class DirtyPool(Pool):
    """Good images of a pool, then bad versions of others, one kind after the other in turn."""

    def __init__(self, pool, good, bad, others):
        rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(30,)))
        rows = rng.permutation(len(pool))[: good + bad]
        self.pool, self.good, self.source = pool, np.sort(rows[:good]), f"{good} and {bad} bad"
        self.kinds = [BAD[k % len(BAD)] for k in range(bad)]
        self.bad = []
        for k, (i, way) in enumerate(zip(rows[good:], self.kinds)):
            image = spoiled(pool.image(int(i)), way, rng, others[k % len(others)])
            out = io.BytesIO()
            image.save(out, "png")
            self.bad.append(out.getvalue())
        self.labels = pool.labels[np.concatenate([self.good, rows[good:]])]
        self.classes = pool.classes

    def __len__(self):
        return len(self.good) + len(self.bad)

    def name(self, i):
        k = i - len(self.good)
        return self.pool.name(int(self.good[i])) if k < 0 else f"bad {k} {self.kinds[k]}"

    def content(self, i):
        k = i - len(self.good)
        return self.pool.content(int(self.good[i])) if k < 0 else self.bad[k]

    def image(self, i, at_least=None):
        k = i - len(self.good)
        if k >= 0:
            return Image.open(io.BytesIO(self.bad[k])).convert("RGB")
        return self.pool.image(int(self.good[i]), at_least)

    def sizes(self):
        return np.array([len(self.content(i)) for i in range(len(self))])


@dataclass(frozen=True)
class Share:
    """A part of a dirty pool with its table: all good images, the first bad ones."""

    pool: object
    table: object
    bad: int


def part_of(pool, table, good, bad):
    """The table of the first images of a dirty pool, and that pool."""
    keep = slice(0, good + bad)
    meta = {**table.meta, "images": good + bad}
    meta["pool"] = {**meta["pool"], "images": good + bad}
    part = replace(table, stats=table.stats[keep], index=table.index[keep], meta=meta,
                   names=table.names[keep], digests=table.digests[keep],
                   labels=None if table.labels is None else table.labels[keep])
    return Share(pool, part, bad)


def dirty(args):
    """What every strategy picks from a pool with bad images, and what the sets are worth."""
    for name in args.networks:
        small = name == "digits"
        good, n = (100, 10) if small else (5000, 100)
        case = case_of(name, args)
        val = limit_pool(case.val, min(args.images, len(case.val)))
        others = [Image.new("RGB", (40, 40), (k, 99, 255 - k)) for k in range(0, 250, 10)]
        if not small:
            sample = open_pool(args.data / "imagenet-sample/train")
            others = [sample.image(i) for i in range(0, len(sample), 5)]
        bad = good * SHARES[-1] // (100 - SHARES[-1])  # 20 % of all
        pool = DirtyPool(case.pool, good, bad, others)
        whole = collect(case.net, pool, "input", out=args.tables / f"{name}-dirty", noise=100)
        picks = []
        for share in SHARES:
            part = part_of(pool, whole, good, round(good * share / (100 - share)))
            picks += picked(case, part, share, n, args)
            worth(case, val, part, share, n, args)
        pd.DataFrame(picks).to_csv(args.work / f"dirty-{name}" / "picks.csv", index=False)
    gather(args)


def dirty_recipes(part, n, target, draws):
    """Every strategy that chooses from the pool."""
    found = []
    for s in POOL:
        seeds = draws if s in DRAWN else 1
        size = len(np.unique(part.table.labels)) if s == "one-per-class" else n
        name = target if s == "match" else ""
        found += [Recipe(s, size, k, name=name) for k in range(seeds)]
    return found


def target_of(case, part, share, args):
    """The target of matched images, from a random sample of the pool with its bad images."""
    bits = args.bits[0] if args.bits else 3
    what = Comparison(("match",), (1,), (bits,), kind="input")
    folder = args.work / f"dirty-{case.net.name}" / str(share)
    return comparison_target(case.net, part.table, part.pool, what, bits, folder), bits


def picked(case, part, share, n, args):
    """How many bad images of each kind every strategy chooses."""
    target, _ = target_of(case, part, share, args)
    good, rows = len(part.pool.good), []
    for r in dirty_recipes(part, n, "mse", 1 if case.net.name == "digits" else 10):
        chosen = choose(part.table, r, targets={"mse": target}).index
        kinds = [part.pool.kinds[i - good] for i in chosen if i >= good]
        rows.append(dict(network=case.net.name, share=share, strategy=r.strategy, n=r.n,
                         seed=r.seed, bad=len(kinds), **{k: kinds.count(k) for k in BAD}))
    return rows


def worth(case, val, part, share, n, args):
    """Accuracy of the sets."""
    target, bits = target_of(case, part, share, args)
    recipes = dirty_recipes(part, n, "mse", args.draws)
    run_study(case.net, val, part.table, recipes, bits, study=f"share{share}", answers=True,
              out=args.work / f"dirty-{case.net.name}", given=dict(targets={"mse": target}),
              batch_size=batch_size(case.net.name), share=4)


def gather(args):
    """Rows of all shares, with the share as the study's name; what was picked."""
    write(args, "dirty_pool", sorted(args.work.glob("dirty-*/share*.csv")))
    picks = pd.concat(map(pd.read_csv, sorted(args.work.glob("dirty-*/picks.csv"))))
    path = args.out / "dirty_picks.csv"
    merged(path, picks, ["network"]).to_csv(path, index=False)


def parse(words=None):
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("rivals", "dirty", "write", "gather"))
    parser.add_argument("--networks", nargs="+", default=[*CIFAR, MENET, LITE])
    parser.add_argument("--strategies", nargs="+", default=[*POOL, *MADE])
    parser.add_argument("--bits", nargs="+", type=int, default=None)
    parser.add_argument("--images", type=int, default=1000, help="validation images, at random")
    parser.add_argument("--draws", type=int, default=3, help="sets drawn at random")
    parser.add_argument("--seeds", type=int, default=1, help="sets of the others with seeds")
    parser.add_argument("--steps", type=int, default=None, help="of craft, zeroq and dsg")
    for name, default in (("data", os.environ.get("SELECTQ_DATA", ".")), ("out", ROOT / "results"),
                          ("tables", ROOT / ".tables"), ("work", ROOT / ".rivals")):
        parser.add_argument(f"--{name}", type=Path, default=Path(default))
    return parser.parse_args(words)


def main(words=None):
    """Run what is asked for."""
    args = parse(words)
    torch.set_num_threads(1)
    {"rivals": rivals, "dirty": dirty, "write": write_rivals, "gather": gather}[args.what](args)


if __name__ == "__main__":
    main()
