"""The study of PTQ methods in small: every method and set, nothing twice, pairs by hand."""
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        path = ROOT / "scripts" / "ptq_methods.py"
        spec = importlib.util.spec_from_file_location("ptq_methods", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["ptq_methods"] = module  # its dataclasses look themselves up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def test_small(study, tmp_path, monkeypatch):
    """Every method with one set, every set with one method; a second run computes nothing."""
    work = [f"--{k}={tmp_path / k}" for k in ("out", "tables", "work")]
    common = ["run", "--networks", "digits", "--seeds", "0", "--bits", "3,4", *work]
    runs = (["--sets", "random"], ["--sets", *study.SETS, "--methods", "nearest"])
    for words in runs:
        study.run(study.parsed([*common, *words]))
    rows = pd.read_csv(tmp_path / "out" / "ptq_methods.csv")
    cells = set(zip(rows.ptq.fillna(""), rows.strategy))
    wanted = {(m, "random") for m in study.PTQ} | {("nearest", s) for s in study.SETS}
    assert cells == wanted | {("", "float")} and len(rows) == len(cells)
    assert set(study.MORE) < set(rows.columns) and (rows.images == 40).all()
    learned = rows[rows.ptq.isin(study.LEARNED)]
    assert (learned.better <= learned.units).all() and (learned.iterations == 2).all()
    seconds = rows.cpu_seconds.dropna()
    assert (seconds >= 0).all() and len(seconds) == len(rows) - 1
    before = (tmp_path / "out" / "ptq_methods.csv").read_bytes()
    monkeypatch.setattr(study, "quantize", None)
    for words in runs:
        study.run(study.parsed([*common, *words]))
    assert (tmp_path / "out" / "ptq_methods.csv").read_bytes() == before


def test_pairs(study):
    """Differences on the same images, means over sets first; beside nearest with the same seeds."""
    row = dict(network="net", w_bits=4, a_bits=4)
    right = {("nearest", "random", 0): [1, 1, 0, 0], ("nearest", "random", 1): [1, 0, 0, 0],
             ("nearest", "match", 0): [1, 1, 1, 0], ("brecq", "random", 1): [1, 1, 1, 1]}
    found = [(row | dict(ptq=p, strategy=s, seed=k), np.array(v, float))
             for (p, s, k), v in right.items()]
    table = pd.DataFrame([*study.pairs(found)]).set_index(["ptq", "strategy", "beside"])
    a, b = table.loc[("nearest", "match", "random")], table.loc[("brecq", "random", "nearest")]
    assert len(table) == 2 and (a.sets, a.other_sets, b.sets, b.other_sets) == (1, 2, 1, 1)
    assert a.difference == 37.5 and b.difference == 75
    assert np.isclose(a.se_images, 100 * np.std([0, .5, 1, 0], ddof=1) / 2)
    assert np.isclose(a.se_sets, 25 / 2) and b.se_sets == 0  # sets at 50 and 25 %; one set
    assert np.isclose(a.se, (a.se_images ** 2 + a.se_sets ** 2) ** .5)


def test_the_same_sets_on_both_sides_are_paired(study):
    """Sets that differ by the same on both sides add no error; sets of two kinds do."""
    a, b = [[1, 1, 1, 1], [1, 1, 0, 0]], [[1, 1, 0, 1], [1, 0, 0, 0]]
    alike, apart = study.paired(a, b, True), study.paired(a, b, False)
    assert alike["difference"] == apart["difference"] == 25
    assert alike["se_sets"] == 0 and np.isclose(apart["se_sets"], (2 * (50 ** 2 / 4)) ** .5)
