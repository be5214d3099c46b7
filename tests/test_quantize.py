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
from PIL import Image

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import TensorProto, helper, numpy_helper

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
        "    return outputs[rows, labels] - outputs.mean(1)\n\n"
        "def whole(outputs, labels):\n"
        "    return outputs.mean()\n"
    )
    (root / "broken.py").write_text("def f(outputs, labels\n")
    return root


def quantize(root, more, out):
    """Run the command and read its report."""
    words = f"quantize '{root}/model.onnx' '{root}/pool' --out '{out}' -n 10 --random 1 {LOOK} "
    code, text, err = call(words + more)
    assert code == 0, err
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= 80
    return json.loads((out / "report.json").read_text())


def test_openvino_takes_a_hundred_or_half_the_pool(small, tmp_path):
    """Where no number is given; fewer than a hundred get a warning that fits the terminal."""
    words = f"quantize '{small}/model.onnx' '{small}/pool' --out '{tmp_path}/half' {LOOK} "
    code, text, err = call(f"{words} --tool openvino --strategy random")
    assert code == 0, err
    report = json.loads((tmp_path / "half" / "report.json").read_text())
    assert report["n"] == min(100, len(open_pool(small / "pool")) // 2)
    assert "from" in report["pits"][0] and "give a hundred" in report["pits"][0]
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= 80


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
        "-n 60": ("-n 60 takes the whole pool", "--val"),
        "--seed -1": ("--seed -1", "whole number from 0 on"),
        "--val {root}/pool/0": ("--val have no labels", "--metric"),
        "--diagnose": ("--val",),
        "--diagnose --tool openvino --val {root}/val": ("openvino",),
        "--val {root}/val --metric {root}/metric.py:whole": ("shape ()", "one number for each"),
        "--val {root}/val --metric {root}/broken.py:f": ("broken.py", "SyntaxError"),
    }.items(),
)
def test_refusals(small, tmp_path, more, words):
    """One line, exit code 2, before anything is written."""
    base = f"quantize '{small}/model.onnx' '{small}/pool' --out '{tmp_path}/x' {LOOK} "
    base = base.replace("--crop 32 ", "") if "--crop" in more else base
    one_line(call(base + more.replace("{root}", f"'{small}'")), *words)
    assert not (tmp_path / "x").exists()


def write_images(folder, mode="RGB", n=8, sides=(32,)):
    """Random images of a mode, of several sizes in turn."""
    g = np.random.default_rng(0)
    folder.mkdir()
    for k in range(n):
        side = sides[k % len(sides)]
        image = Image.fromarray(g.integers(0, 256, (side, side + k % 3, 4), dtype=np.uint8))
        image.convert(mode).save(folder / f"{k}.png")


@pytest.mark.parametrize("kind", ["L", "RGBA", "P", "mixed"])
def test_images_of_any_kind(small, tmp_path, kind):
    """Grey, transparent and indexed images, and images of mixed sizes."""
    mode, sides = ("RGB", (32, 9, 64)) if kind == "mixed" else (kind, (32,))
    write_images(tmp_path / "pool", mode, sides=sides)
    words = f"quantize '{small}/model.onnx' '{tmp_path}/pool' --out '{tmp_path}/x' -n 3 {LOOK}"
    code, out, err = call(words + " --strategy random")
    assert code == 0 and "on 5 images of the pool" in out, err
    images = json.loads((tmp_path / "x" / "selection.json").read_text())["images"]
    assert len(images) == 3


def odd_model(path, shape, outputs, transposed=False):
    """One convolution, pooled to `outputs` scores, or none: a map."""
    g = np.random.default_rng(0)
    w = numpy_helper.from_array(g.normal(0, 0.3, (outputs or 3, 3, 3, 3)).astype("float32"), "w")
    value = lambda name, s: helper.make_tensor_value_info(name, TensorProto.FLOAT, s)
    nodes = [("Transpose", "x", "t", dict(perm=[0, 3, 1, 2]))] if transposed else []
    conv = "t w" if transposed else "x w"
    nodes += [("Conv", conv, "a" if outputs else "y", dict(pads=[1] * 4))]
    nodes += [("GlobalAveragePool", "a", "p", {}), ("Flatten", "p", "y", {})] if outputs else []
    made = [helper.make_node(op, i.split(), [o], **kw) for op, i, o, kw in nodes]
    graph = helper.make_graph(made, "odd", [value("x", shape)], [value("y", None)], [w])
    ids = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=ids, ir_version=8), str(path))


ODD = {
    "a map of pixels": (["n", 3, 32, 32], 0, "--val VAL", "(3, 32, 32)|metric"),
    "one score": (["n", 3, 32, 32], 1, "--val VAL", "(1,)|metric"),
    "fewer classes": (["n", 3, 32, 32], 4, "--val VAL", "4 classes"),
    "a batch of 4": ([4, 3, 32, 32], 10, "-n 5", "4 images|5|multiple"),
    "channels last": (["n", 32, 32, 3], 10, "", "NHWC|NCHW"),
    "a free size": (["n", 3, "h", "w"], 10, "NOTHING", "crops 224|--crop"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_models(small, tmp_path, kind):
    """What cannot be quantized or measured is refused before anything is written."""
    shape, outputs, more, words = ODD[kind]
    odd_model(tmp_path / "odd.onnx", shape, outputs, shape[-1] == 3)
    look = "" if more == "NOTHING" else LOOK
    more = more.replace("VAL", f"'{small}/val'").replace("NOTHING", "")
    base = f"quantize '{tmp_path}/odd.onnx' '{small}/pool' --out '{tmp_path}/x' {look} "
    one_line(call(base + more), *words.split("|"))
    assert not (tmp_path / "x").exists()


def test_a_free_size_is_that_of_the_options(small, tmp_path):
    """A model that reads any size reads the one of --crop; so does the integer model."""
    odd_model(tmp_path / "odd.onnx", ["n", 3, "h", "w"], 10)
    code, out, err = call(
        f"quantize '{tmp_path}/odd.onnx' '{small}/pool' --out '{tmp_path}/x' {LOOK} "
        f"--val '{small}/val' --strategy random --random 0"
    )
    assert code == 0, err
    assert "top-1 on 40 images" in out


def test_places_that_cannot_be_used(small, tmp_path):
    """No pool, a pool of one image, images that cannot be read, a file for --out."""
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "one", n=1)
    write_images(tmp_path / "sick", n=5)
    (tmp_path / "sick" / "3.png").write_bytes(b"none")
    (tmp_path / "file").write_text("mine")
    cases = dict(empty="empty holds no images", one="-n 1 takes the whole pool", sick="3.png")
    base = f"quantize '{small}/model.onnx' {LOOK} -n 1 "
    for pool, words in cases.items():
        one_line(call(f"{base} '{tmp_path}/{pool}' --out '{tmp_path}/x'"), words)
        assert not (tmp_path / "x").exists(), pool
    one_line(call(f"{base} '{small}/pool' --out '{tmp_path}/file'"), "is a file", "folder")
    assert (tmp_path / "file").read_text() == "mine"


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
        "from selectq.onnx_models import need\n"
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
