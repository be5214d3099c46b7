"""ONNX files on the command line: a table, a target, and what is refused."""

import json

import numpy as np
import pytest
from conftest import call, one_line, tree, write_digits

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from onnx import TensorProto, helper, numpy_helper

from selectq.integer import digits_onnx
from selectq.table import load_table

LOOK = "--resize 32 --crop 32 --mean 0.3,0.3,0.3 --std 0.35,0.35,0.35"


def graph(path, inputs=("x",), opset=17, kind=TensorProto.FLOAT, op="Conv", weight=1.0):
    """An ONNX file of one operator."""
    value = lambda name, shape: helper.make_tensor_value_info(name, kind, shape)
    w = numpy_helper.from_array(np.full((4, 3, 3, 3), weight, np.float32), "w")
    node = helper.make_node(op, [*inputs, "w"], ["y"])
    made = helper.make_graph(
        [node],
        "one",
        [value(name, ["n", 3, 32, 32]) for name in inputs],
        [value("y", ["n", 4, 30, 30])],
        [w],
    )
    ids = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(made, opset_imports=ids, ir_version=8), str(path))


@pytest.fixture(scope="module")
def w(tmp_path_factory):
    """Models, images, and a table; nothing in it may change."""
    root = tmp_path_factory.mktemp("onnx")
    write_digits(root / "pool", "train", range(24))
    (root / "digits.onnx").write_bytes(digits_onnx().read_bytes())
    (root / "text.onnx").write_text("no model")
    graph(root / "two.onnx", ("x", "mask"))
    graph(root / "old.onnx", opset=11)
    graph(root / "unknown.onnx", op="NoSuchOperator")
    graph(root / "half.onnx", kind=TensorProto.FLOAT16)
    graph(root / "nan.onnx", weight=float("nan"))
    graph(root / "one.onnx")
    whole = f"stats {{root}}/digits.onnx {{root}}/pool --out {{root}}/stats --noise 8 {LOOK}"
    code, out, err = call(whole, root=root)
    assert (code, err) == (0, ""), err
    assert out.count("\n") == 1 and "24 images" in out and "of digits for onnxruntime" in out
    before = tree(root)
    yield root
    assert tree(root) == before


REFUSED = {
    "stats {root}/none.onnx {root}/pool --out x": "none.onnx does not exist",
    "stats {root}/text.onnx {root}/pool --out x": "text.onnx cannot be read",
    "stats {root}/two.onnx {root}/pool --out x": "two.onnx 2 inputs mask",
    "stats {root}/old.onnx {root}/pool --out x": "old.onnx opset 11 13",
    "stats {root}/unknown.onnx {root}/pool --out x": "unknown.onnx NoSuchOperator",
    "stats {root}/half.onnx {root}/pool --out x": "half.onnx FLOAT16",
    f"stats {{root}}/nan.onnx {{root}}/pool --out x --for generic {LOOK}": "NaN",
    "stats {root}/digits.onnx {root}/pool --out x --for tensorrt": "'tensorrt' onnxruntime",
    "stats {root}/digits.onnx {root}/pool --out x --engine torch": "'torch' onnxruntime openvino",
    "stats digits {root}/pool --out x --engine openvino": "--engine openvino export-onnx digits",
    f"stats {{root}}/digits.onnx {{root}}/pool --out {{root}}/stats --engine openvino {LOOK}": (
        "holds a table"
    ),
    "stats {root}/digits.onnx {root}/pool --out x --crop 30": "30 32",
    "stats {root}/digits.onnx {root}/pool --out x --resize 20": "--resize 20 32",
    "stats {root}/digits.onnx {root}/pool --out x --mean 1,2": "--mean 1,2 three",
    "stats {root}/digits.onnx {root}/pool --out x --std 0,1,1": "--std 0,1,1",
    "stats {root}/digits.onnx {root}/nowhere --out x": "nowhere does not exist",
    f"stats {{root}}/one.onnx {{root}}/pool --out {{root}}/stats {LOOK}": "holds a table",
    "target {root}/one.onnx {root}/pool --stats {root}/stats --out x.json": "table of model",
    "target {root}/none.onnx {root}/pool --stats {root}/stats --out x.json": "none.onnx",
    "quantize {root}/two.onnx {root}/pool --out x -n 2": "2 inputs",
    "quantize {root}/old.onnx {root}/pool --out x -n 2": "opset 11",
    "quantize {root}/text.onnx {root}/pool --out x -n 2": "text.onnx",
}


@pytest.mark.parametrize("command", REFUSED)
def test_refused(command, w, here):
    """Exit code 2, one line that names the thing, nothing made."""
    one_line(call(command, root=w), *REFUSED[command].split(" "))
    assert tree(here) == {}


def test_a_target_of_a_file(w, here):
    """Ranges of the table's tensors; the last layer's output keeps its extremes."""
    code, out, err = call(
        "target {root}/digits.onnx {root}/pool --stats {root}/stats --bits 4 --out t.json", root=w
    )
    assert (code, err) == (0, "")
    table, made = load_table(w / "stats"), json.loads((here / "t.json").read_text())
    assert made["bits"] == 4 and len(table.sites) > 5
    code, out, err = call("select {root}/stats -n 5 --strategy match --target t.json", root=w)
    assert code == 0 and "5 images (match)" in out, err
