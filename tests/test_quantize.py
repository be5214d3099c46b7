"""`selectq quantize` as a user runs it: onnxruntime, OpenVINO, a metric, refusals."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import call, one_line, write_digits

from selectq.data import open_pool
from selectq.integer import digits_onnx

LOOK = "--resize 32 --crop 32 --mean 0.3,0.3,0.3 --std 0.35,0.35,0.35"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model, a pool and labelled images in a folder whose name is not plain."""
    root = tmp_path_factory.mktemp("größe und platz")
    (root / "model.onnx").write_bytes(digits_onnx().read_bytes())
    write_digits(root / "pool", "train", range(60))
    write_digits(root / "val", "val", range(40))
    (root / "metric.py").write_text(
        "import numpy as np\n\n"
        "def margin(outputs, labels):\n"
        "    rows = np.arange(len(labels))\n"
        "    return outputs[rows, labels] - outputs.mean(1)\n"
    )
    return root


def quantize(root, more, out):
    """Run the command and read its report."""
    words = f"quantize '{root}/model.onnx' '{root}/pool' --out '{out}' -n 10 --random 1 {LOOK} "
    code, text, err = call(words + more)
    assert code == 0, err
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= 80
    return json.loads((out / "report.json").read_text())


def test_openvino_and_its_ranges(small, tmp_path):
    """NNCF's model answers as the float model nearly everywhere; both files lie in the folder."""
    report = quantize(small, f"--tool openvino --val '{small}/val'", tmp_path / "ov")
    assert report["rule"] == "mean" and report["images"] == 40 and report["agreement"] > 0.9
    assert {p.suffix for p in (tmp_path / "ov").glob("model_int8.*")} == {".xml", ".bin"}
    assert len(report["random"]) == 1 and report["bytes"][1] < report["bytes"][0]
    d, low, high = report["difference"]
    assert low <= d <= high and np.isclose(d, report["integer"] - report["float"])


def test_a_metric_of_the_user(small, tmp_path):
    """A function of outputs and labels takes the place of top-1."""
    more = f"--val '{small}/val' --metric '{small}/metric.py:margin'"
    report = quantize(small, more, tmp_path / "m")
    assert report["metric"].endswith("metric.py:margin") and report["float"] > 1
    words = f"quantize '{small}/model.onnx' '{small}/pool' --out '{tmp_path}/m' -n 10 --random 1 "
    code, text, _ = call(f"{words} {LOOK} {more} --format csv")
    row = pd.read_csv(io.StringIO(text)).iloc[0]
    assert code == 0 and np.isclose(row["float"], report["float"], rtol=1e-5)


def test_the_set_is_that_of_the_manifest(small, tmp_path):
    """The images in selection.json are the ones whose extremes the model carries."""
    from selectq.integer import onnx_ranges
    from selectq.table import load_table

    quantize(small, "--strategy random --seed 3", tmp_path / "r")
    table = load_table(tmp_path / "r" / "stats_onnxruntime")
    images = json.loads((tmp_path / "r" / "selection.json").read_text())["images"]
    rows = np.searchsorted(table.index, [i["index"] for i in images])
    found = onnx_ranges(tmp_path / "r" / "model_int8.onnx")
    assert len(images) == 10 and set(table.sites) & set(found)
    for k, site in enumerate(table.sites):
        if site in found:
            low, high, _ = found[site]
            assert abs(high - max(0, table.stats[rows, k, 3].max())) <= (high - low) / 250


@pytest.mark.parametrize(
    "more, words",
    {
        "--ranges best": ("best",),
        "-n 0": ("0", "whole number"),
        "-n 61": ("61", "60 images"),
        "--crop 30": ("30",),
        "--val nowhere": ("nowhere",),
        "--metric nowhere.py:f --val digits": ("nowhere.py",),
    }.items(),
)
def test_refusals(small, tmp_path, more, words):
    """One line, exit code 2."""
    base = f"quantize '{small}/model.onnx' '{small}/pool' --out '{tmp_path}/x' {LOOK} "
    base = base.replace("--crop 32 ", "") if "--crop" in more else base
    one_line(call(base + more), *words)
    assert not (tmp_path / "x" / "model_int8.onnx").exists()


def test_pool_is_not_changed(small):
    """Nothing is written beside the images."""
    assert len(open_pool(small / "pool")) == 60
    assert {p.suffix for p in (small / "pool").rglob("*") if p.is_file()} == {".png"}


def test_openvino_reports_nothing_to_anybody():
    """Neither its import nor NNCF's sends an event, and the environment stays as it was."""
    code = (
        "import os, openvino_telemetry\n"
        "from openvino_telemetry.backend.backend_ga4 import GA4Backend\n"
        "sent = []\n"
        "GA4Backend.send = lambda self, message: sent.append(message)\n"
        "before = dict(os.environ)\n"
        "from selectq.tools import need\n"
        "need('nncf', 'openvino'), need('openvino')\n"
        "import time; time.sleep(.2)\n"
        "assert not sent, sent\n"
        "assert os.environ.get('CI') == before.get('CI')\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "NNCF_CI")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def test_a_match_after_another_strategy_measures_influences(small, tmp_path):
    """Only `match` needs them; a target that was made without is made again for it."""
    target = tmp_path / "target_onnxruntime_0.json"
    known = []
    for strategy in ("random", "match"):
        quantize(small, f"--strategy {strategy}", tmp_path)
        sites = json.loads(target.read_text())["sites"].values()
        known.append([s.get("influence") is not None for s in sites])
    assert not any(known[0]) and all(known[1])
    chosen = json.loads((tmp_path / "selection.json").read_text())
    assert chosen["settings"]["objective"] == "influence"
