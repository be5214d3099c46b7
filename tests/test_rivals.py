"""Strategies from the command line: select, generate, run and compare; the script of the rivals."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import call, one_line, tree
from PIL import Image

from selectq import evaluation, studies
from selectq.data import open_pool
from selectq.generated import read_images
from selectq.studies import ROW
from selectq.table import load_table

ROOT = Path(__file__).resolve().parent.parent
FAST = "--workers 0 --batch-size 40"
COMPARE = "compare digits {pool} {val} --strategies random,herding --workers 0 --out c "

REFUSED = {
    "select {table} -n 5 --strategy zeroq": "'zeroq' selectq kmeans facility",
    "select {table} -n 5 --strategy match": "match --target",
    "select {unlabelled} -n 5 --strategy balanced": "no labels",
    "select {table} -n 61 --strategy kcenter": "-n 61 60 images",
    "generate digits --strategy craft": "'craft' zeroq, dsg, noise",
    "generate digits -n 0": "-n 0",
    "generate digits --out {texts}": "holds files",
    "generate digits --steps 0": "steps=0",
    "generate resnet81": "'resnet81'",
    "run digits {pool} {val} -n 5 --strategies random,best --workers 0": "'best' random, zeroq",
    "run digits {flat} {val} -n 5 --strategies balanced --workers 0": "no labels balanced",
    "run digits {pool} {val} -n 5 --strategies zeroq --fold-batchnorm --workers 0": "BatchNorm",
    COMPARE + "-n 61": "-n 61 60 images",
    COMPARE + "-n 0": "-n 0",
    COMPARE + "-n 5 --bits 1": "--bits 1",
    COMPARE + "-n 5 --ranges ema": "'ema'",
    COMPARE + "-n 5 --sites none": "'none'",
    COMPARE + "-n 5 --seeds 0": "--seeds",
    "compare digits {pool} {flat} -n 5 --workers 0": "no labels",
    "compare digits {pool} {copy} -n 5 --workers 0": "leak --allow-leak",
    "compare digits {pool} {val} -n 5 --strategies dsg --fold-batchnorm": "dsg BatchNorm",
}


@pytest.mark.parametrize("command", REFUSED)
def test_refused(command, world, here):
    """One line that says what is wrong, and nothing made."""
    one_line(call(command, **vars(world)), *REFUSED[command].split(" "))
    assert tree(here) == {}


def test_select(world, here):
    """Every strategy from the table; the manifest says what was aimed at, and the value."""
    ways = "random balanced first kmeans kcenter herding facility"
    for name in ways.split():
        for out in ("a", "b"):
            line = f"select {{table}} -n 9 --strategy {name} --seed 2 --out {out}.json"
            code, printed, err = call(line, **vars(world))
            assert (code, err) == (0, "") and printed.startswith(f"{out}.json: 9 images ({name})")
        a, b = (json.loads((here / f"{out}.json").read_text()) for out in "ab")
        assert a == b and a["strategy"] == name and len({i["index"] for i in a["images"]}) == 9
        if name in ("kmeans", "kcenter", "herding", "facility"):
            assert a["settings"]["value"] > 0 and f'{a["settings"]["value"]:.4g}' in printed


def test_generate(world, here):
    """Distilled images are files that the next command reads; the gap of each layer is shown."""
    code, out, err = call("generate digits -n 3 --steps 25 --seed 4 --out z", **vars(world))
    assert (code, err) == (0, "") and out.endswith("z: 3 images (zeroq)\n")
    layers = [line.split() for line in out.splitlines() if "->" in line]
    assert len(layers) == 11 and all(float(after) < float(before)
                                     for _, before, _, after in layers[1:])
    manifest, pool = read_images("z")
    assert len(pool) == 3 and manifest["seed"] == 4 and len(manifest["losses"]) == 25
    assert manifest["gap"] < manifest["gap_before"]
    assert call("generate digits -n 3 --steps 25 --seed 4 --out again", **vars(world))[0] == 0
    same = [open_pool(f).image(k).tobytes() for f in ("z", "again") for k in range(3)]
    assert same[:3] == same[3:]
    assert call("stats digits z --out s --noise 1 --workers 0")[0] == 0
    assert len(load_table("s")) == 3
    assert call("generate digits --strategy noise -n 2 --out n")[1] == "n: 2 images (noise)\n"
    assert np.asarray(Image.open("n/noise_000.png")).std() > 60


def test_run_strategies(world, here):
    """Matched and crafted sets beside random and SelectQ in one table and one figure."""
    command = ("run digits {pool} {val} -n 6 --bits 4 3 --random-seeds 2 --sites input "
               "--strategies random,selectq match craft --workers 0 --out r")
    code, out, err = call(command, **vars(world))
    assert (code, err) == (0, "")
    results = pd.read_csv("r/results.csv")
    count = results.groupby("strategy").size().to_dict()
    assert count == dict(float=1, random=4, selectq=2, match=2, craft=2)
    assert set(results.n[1:]) == {6} and results.columns.tolist() == evaluation.COLUMNS
    names = {"selection.json", "selection_match_4.json", "selection_match_3.json"}
    listed = json.loads((here / "r/run.json").read_text())["files"]
    assert names < set(listed) and not list((here / "r").glob("*partial*"))
    assert len(list((here / "r/generated").glob("craft*/manifest.json"))) == 2
    assert all(word in out for word in ("match", "craft", "random"))
    before = (here / "r/results.csv").read_bytes()
    assert call(command, **vars(world))[0] == 0 and (here / "r/results.csv").read_bytes() == before


@pytest.fixture(scope="module")
def compared(world, tmp_path_factory):
    """A comparison of six strategies."""
    out = tmp_path_factory.mktemp("compared")
    command = ("compare digits {pool} {val} --strategies random,first,kcenter,match,zeroq,noise "
               "-n 5 --bits 4 3 --seeds 2 --steps 20 --sites input --workers 0 --out {out}")
    places = dict(vars(world), out=out)
    code, printed, err = call(command, **places)
    assert (code, err) == (0, ""), err
    return command, places, out, printed


def test_compare(compared):
    """Rows of the studies' schema, costs measured alone, paired differences, one page."""
    _, _, out, printed = compared
    rows = pd.read_csv(out / "results.csv")
    assert rows.columns.tolist() == ROW
    count = rows[rows.strategy != "float"].groupby("strategy").size().to_dict()
    assert count == dict(random=4, first=2, kcenter=4, match=4, zeroq=4, noise=4)
    costs = pd.read_csv(out / "costs.csv")
    assert set(costs.strategy) == {"random", "first", "kcenter", "match", "zeroq", "noise"}
    assert (costs.seconds >= 0).all() and (costs.megabytes > 50).all()
    pairs = pd.read_csv(out / "differences.csv")
    assert set(pairs.strategy) == {"first", "kcenter", "match", "zeroq", "noise"}
    assert np.allclose(pairs.difference, pairs.top1 - pairs.random)
    for r in pairs.itertuples():  # accuracies are those of the rows
        same = rows[(rows.strategy == r.strategy) & (rows.w_bits == r.w_bits)]
        assert np.isclose(same.top1.mean(), r.top1)
    page = (out / "index.html").read_text()
    assert page.count("data:image/png") >= 2 and "<script" not in page
    assert 'src="http' not in page and "kcenter" in page
    assert "index.html" in printed


def test_compare_again(compared, monkeypatch):
    """The same command evaluates and measures nothing; another size computes what is new."""
    command, places, out, printed = compared
    before = {n: (out / n).read_bytes() for n in ("results.csv", "costs.csv", "differences.csv")}
    evaluated, evaluate = [], studies.evaluate
    counting = lambda *a, **k: evaluated.append(1) or evaluate(*a, **k)
    monkeypatch.setattr(studies, "evaluate", counting)
    assert call(command, **places)[1] == printed and evaluated == []
    rows = lambda text: sorted(text.splitlines())
    assert all(rows((out / n).read_bytes()) == rows(b) for n, b in before.items())
    (out / "results.answers.json").write_text("{}")
    assert call(command, **places)[1] == printed and len(evaluated) > 3, "rows without answers"


@pytest.fixture(scope="module")
def script():
    """scripts/rivals.py as a module."""
    sys.path.insert(0, str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("rivals", ROOT / "scripts" / "rivals.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "scripts"))


def test_script(script, tmp_path):
    """Both parts in small on the digits."""
    places = [f"--{n}={tmp_path / n}" for n in ("out", "tables", "work")]
    small = ["--networks", "digits", "--images", "40", "--draws", "2", "--bits", "3"]
    ways = ["--strategies", "random", "first", "zeroq", "noise", "--steps", "5"]
    script.main(["rivals", *small, *ways, *places])
    rows, pairs = (pd.read_csv(tmp_path / "out" / f"rivals{n}.csv") for n in ("", "_pairs"))
    assert rows.columns.tolist() == ROW
    assert set(rows.strategy) == {"float", "random", "first", "zeroq", "noise"}
    assert set(pairs.strategy) == {"first", "zeroq", "noise"}
    script.main(["dirty", *small, *places])
    picks = pd.read_csv(tmp_path / "out" / "dirty_picks.csv")
    assert set(picks.share) == {0, 1, 5, 20} and (picks.bad[picks.share == 0] == 0).all()
    assert (picks[list(script.BAD)].sum(axis=1) == picks.bad).all() and picks.bad.max() > 0
    assert len(pd.read_csv(tmp_path / "out" / "dirty_pool.csv")) > 4
    other = rows.assign(network="another", top1=1.25)
    pd.concat([rows.assign(top1=-1.0), other]).to_csv(tmp_path / "out" / "rivals.csv", index=False)
    script.main(["write", *places])
    merged = pd.read_csv(tmp_path / "out" / "rivals.csv")
    assert len(merged) == 2 * len(rows), "rows of another network stay, the same rows are replaced"
    assert (merged.top1[merged.network == "another"] == 1.25).all() and merged.top1.min() >= 0


def test_bad_images(script):
    """Every kind of bad image is what it says; the good ones are untouched."""
    pool = open_pool("digits")
    others = [Image.new("RGB", (9, 9), (200, 0, 0))]
    dirty = script.DirtyPool(pool, 30, 12, others)
    assert len(dirty) == 42 and dirty.kinds == [*script.BAD, *script.BAD]
    assert all(dirty.content(k) == pool.content(int(i)) for k, i in enumerate(dirty.good))
    arrays = {w: np.asarray(dirty.image(30 + k)) for k, w in enumerate(script.BAD)}
    assert all(a.shape == arrays["blank"].shape for a in arrays.values())
    assert np.ptp(arrays["blank"]) == 0 and arrays["noise"].std() > 60
    assert (arrays["other data"] == [200, 0, 0]).all()
    assert {*np.unique(arrays["saturated"])} & {0, 255}
    assert arrays["inverted"].max() == 255, "the background of a digit is 0"
