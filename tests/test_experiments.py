"""The script behind the published results: one row schema, and nothing computed twice."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from forked import Forked

from selectq import studies
from selectq.studies import _SET, ROW, read_rows, read_study

ROOT = Path(__file__).resolve().parent.parent
STUDIES = {
    "table1",
    "table4",
    "fig2",
    "fig6",
    "fig7",
    "grid",
    "readings",
    "readings_pixels",
    "sites",
    "transfer",
    "gamma",
    "step",
    "distance",
    "initialisation",
    "granularity",
    "traversal",
}
MEASURES = {
    "readings_width": {"width", "correlation"},
    "readings_looks": {"brightness", "classes"},
    "readings_sites": {"site", "activation", "width"},
    "centroids_seconds": {"seconds"},
    "distance_cost": {"seconds", "megabytes"},
    "granularity_dead": {"dead", "all_centroids"},
    "agreement": {"positions"},
}


@pytest.fixture(scope="module")
def experiments():
    spec = importlib.util.spec_from_file_location(
        "experiments", ROOT / "scripts" / "experiments.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_parts(experiments, tmp_path, monkeypatch):
    """Every part on the digits; the second run evaluates nothing and changes no file."""
    evaluated, evaluate = [], studies.evaluate
    monkeypatch.setattr(
        studies, "evaluate", lambda *a, **k: evaluated.append(1) or evaluate(*a, **k)
    )
    monkeypatch.setattr(experiments, "ESTIMATORS", ("minmax", "mse"))
    go = lambda: experiments.main(
        [*experiments.PARTS], ["digits"], "nowhere", tmp_path / "out", tmp_path / "tables"
    )
    go()
    files = {p.stem: p for p in (tmp_path / "out").iterdir()}
    assert set(files) == STUDIES | set(MEASURES) and all(p.suffix == ".csv" for p in files.values())
    for name in STUDIES:
        assert pd.read_csv(files[name], nrows=1).columns.tolist() == ROW
        assert set(read_study(files[name]).study) == {name}
    for name, columns in MEASURES.items():
        df = pd.read_csv(files[name])
        assert {"study", *_SET, *columns, "numerics"} <= set(df.columns), name
        assert df.columns[-1] == "numerics", name
    before, count = {name: (p.read_bytes(), len(p.read_text())) for name, p in files.items()}, len(
        evaluated
    )
    assert count > 0
    go()
    assert len(evaluated) == count
    assert all(sorted(files[n].read_text()) == sorted(b[0].decode()) for n, b in before.items())


def test_published_files():
    """The committed studies: one schema, the current numerics only, no question answered twice."""
    found = {
        p.name for p in (ROOT / "results").glob("*.csv") if read_rows(ROOT / "results", p.name)
    }
    assert {
        "table1.csv",
        "table3.csv",
        "fig2.csv",
        "fig6.csv",
        "fig7.csv",
        "readings.csv",
        "traversal.csv",
        "gamma.csv",
    } <= found
    for name in found:
        rows = read_rows(ROOT / "results", name)
        assert len({studies._question(r) for r in rows}) == len(rows), name
        assert {r["method"] for r in rows} == {studies.method_name(r) for r in rows}, name
        assert [r["ranges"] for r in rows if not studies._current(r)] == [], name


@pytest.mark.parametrize("w_bits", [8, 8.0, "8", "8.0"])
def test_merged_replaces_rows_of_the_same_key_whatever_its_type(experiments, tmp_path, w_bits):
    """A number that pandas reads back as a float is the same key; other keys stay."""
    path, keys = tmp_path / "rows.csv", ["network", "w_bits"]
    old = pd.DataFrame(dict(network=["a", "a", "b"], w_bits=[8, None, 8], top1=[1, 2, 3]))
    old.to_csv(path, index=False)  # the gap makes the column one of floats
    new = pd.DataFrame(dict(network=["a"], w_bits=pd.array([w_bits], object), top1=[4]))
    found = experiments.merged(path, new, keys)
    assert sorted(found.top1) == [2, 3, 4]
    found.to_csv(path, index=False)
    assert sorted(experiments.merged(path, new, keys).top1) == [2, 3, 4]


def test_clipping_goes_on_and_drops_rows_of_other_numerics(tmp_path):
    """scripts/clipping.py on the digits: a second run keeps the rows, other numerics are redone."""
    command = [sys.executable, ROOT / "scripts" / "clipping.py", "run", "--networks", "digits",
               "--bits", "3", "--parts", "mixed", "--sizes", "1", "5"]
    for name in ("tables", "work", "out"):
        command += [f"--{name}", tmp_path / name]
    seen = []
    for turn in range(3):
        process = Forked(command)
        out, err = process.communicate(300)
        assert process.returncode == 0, err
        seen.append(out.count("mixed joint"))
        (cell,) = (tmp_path / "work").glob("digits*.json")
        if turn == 1:
            cell.write_text(cell.read_text().replace('"numerics": "2"', '"numerics": "0"'))
    assert seen == [2, 0, 2]
    rows = pd.read_csv(tmp_path / "out" / "clipping.csv")
    assert len(rows) == 2 and set(rows.n) == {1, 5} and rows.top1.between(0, 100).all()


def test_the_worst_single_images_are_found_on_their_shares(monkeypatch):
    """scripts/clipping.py: the draws that lose most on their twentieth are evaluated in full."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import clipping
    mse, one = np.ones(200, bool), np.ones(200, bool)
    one[[7, 27, 47, 3, 23, 12]] = False  # draw 7 loses three of ten images, 3 two and 12 one
    answers = lambda right: dict(right=np.packbits(right).tobytes().hex())
    asked = {}
    run = SimpleNamespace(images=200, table=None, rows={"mse": answers(mse),
                                                        "mixed joint 1": answers(one)},
                          add=lambda key, make: asked.update({key: make()}))
    monkeypatch.setattr(clipping, "random_rows", lambda run, n, draw: (n, draw))
    monkeypatch.setattr(clipping, "rule_ranges", lambda table, rows, rule: (rows, rule))
    clipping.singles(run, "mean", None)
    assert [*asked] == ["single 12", "single 3", "single 7"]
    for draw in (12, 3, 7):
        ranges, facts = asked[f"single {draw}"]
        assert ranges == ((1, draw), "joint") and (facts["n"], facts["seed"]) == (1, draw)


def test_bars_of_clipping_take_the_worst_single_image(tmp_path):
    """scripts/clipping.py bars on the digits: beside the lowest of the single images."""
    script = [sys.executable, ROOT / "scripts" / "clipping.py"]
    folders = [x for name in ("tables", "work", "out") for x in (f"--{name}", tmp_path / name)]
    run = ["run", "--networks", "digits", "--bits", "3", "--sizes", "1", "10"]
    parts = ["--parts", "methods", "mixed", "single"]
    for command in ([*script, *run, *parts, *folders], [*script, "bars", *folders]):
        process = Forked(command)
        _, err = process.communicate(300)
        assert process.returncode == 0, err
    rows = pd.read_csv(tmp_path / "out" / "clipping.csv")
    (bar,) = pd.read_csv(tmp_path / "out" / "clipping_bars.csv").query("n == 10").to_dict("records")
    found = rows[rows.strategy == "single"].top1
    assert len(found) == 3 and bar["worst"] == found.min()
    assert bar["over_worst"] == pytest.approx(bar["match"] - found.min())


def test_matching_gives_a_row_for_each_set(tmp_path):
    """scripts/matching.py on the digits: differences are those of the rows from the target's."""
    command = [sys.executable, ROOT / "scripts" / "matching.py", "run", "--networks", "digits",
               "--bits", "3", "--studies", "objective"]
    for name in ("tables", "work", "out"):
        command += [f"--{name}", tmp_path / name]
    process = Forked(command)
    _, err = process.communicate(300)
    assert process.returncode == 0, err
    rows = pd.read_csv(tmp_path / "out" / "match.csv")
    target = rows[rows.study == "mse"].top1.iloc[0]
    assert (rows.difference - (rows.top1 - target)).abs().max() < 1e-3
    sets = rows[rows.study == "objective"]
    assert set(zip(sets.objective, sets.n)) == {(o, n) for o in ("influence", "error", "log")
                                                for n in (10, 100)}
