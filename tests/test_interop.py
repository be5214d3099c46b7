"""Sets handed to other tools: real onnxruntime and NNCF on the digits, stand-ins for the rest."""

import contextlib
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from selectq import interop, tools
from selectq.data import open_pool
from selectq.files import InputError
from selectq.images import Preprocess
from selectq.integer import digits_onnx
from selectq.models import load_network
from selectq.ranking import make_selection, select_random
from selectq.rules import rule_ends
from selectq.traversal import collect


@pytest.fixture(scope="module")
def digits():
    net, pool = load_network("digits"), open_pool("digits")
    return net, pool, collect(net, pool, "input")


@pytest.fixture(scope="module")
def calib(digits):
    net, pool, table = digits
    return interop.calibration_set(select_random(table, 12, 0), pool, net.preprocess)


@pytest.fixture
def stand_in(monkeypatch):
    "Puts modules of these names into `sys.modules`; returns the last."

    def make(*names, **attributes):
        for name in names:
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        for k, v in attributes.items():
            setattr(sys.modules[names[-1]], k, v)
        return sys.modules[names[-1]]

    return make


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("onnxruntime")
    return digits_onnx()


def images(calib):
    return np.concatenate(list(calib.batches(5)))


def test_onnxruntime_ranges_are_those_of_the_reader(calib, model, tmp_path):
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    found = []
    for batch in (1, 5):
        with tools.quiet():
            c = create_calibrator(
                str(model), None, str(tmp_path / "a.onnx"), CalibrationMethod.MinMax
            )
            c.collect_data(interop.OnnxReader(calib, "image", batch))
            found.append(c.compute_data()["image"].range_value)
    x = images(calib)
    for low, high in found:
        assert np.isclose(np.ravel(low)[0], x.min()) and np.isclose(np.ravel(high)[0], x.max())


def test_reader_rewinds_and_takes_ranges(calib):
    reader = interop.OnnxReader(calib, "x", 5)
    assert [len(d["x"]) for d in reader] == [5, 5, 2] and reader.get_next() is None
    reader.rewind()
    assert np.array_equal(np.concatenate([d["x"] for d in reader]), images(calib))
    reader.set_range(5, 9)
    assert np.array_equal(np.concatenate([d["x"] for d in reader]), images(calib)[5:9])
    assert len(reader) == 12


def test_nncf_reads_every_image(digits, model):
    pytest.importorskip("nncf")
    pytest.importorskip("openvino")
    import openvino

    net, pool, table = digits
    calib = interop.calibration_set(select_random(table, 301, 1), pool, net.preprocess, "openvino")
    given = interop.nncf_arguments(calib, "image")
    assert given["subset_size"] == 301
    seen = list(given["calibration_dataset"].get_inference_data())
    assert len(seen) == 301 and np.array_equal(seen[-1]["image"], images(calib)[-1:])
    import nncf

    few = interop.calibration_set(select_random(table, 4, 1), pool, net.preprocess, "openvino")
    with tools.quiet():
        made = nncf.quantize(
            openvino.Core().read_model(str(model)), **interop.nncf_arguments(few)
        )
    assert any(op.get_type_name() == "FakeQuantize" for op in made.get_ops())


def test_the_same_images_in_the_same_order_everywhere(calib, tmp_path):
    want = images(calib)
    data = interop.litert_data(calib, "a", "s")["s"]
    assert isinstance(data, list) and len(data) == 12
    assert np.array_equal(np.concatenate([d["a"] for d in data]), want)
    last = interop.litert_data(calib, "a", "s", channels_last=True)["s"]
    assert np.array_equal(np.concatenate([d["a"] for d in last]), np.moveaxis(want, 1, 3))
    assert np.array_equal(torch.cat(list(interop.torch_loader(calib, 5))).numpy(), want)
    interop.save_npz(calib, tmp_path / "s.npz", "x")
    with np.load(tmp_path / "s.npz", allow_pickle=False) as f:
        assert np.array_equal(f["x"], want) and f["names"].tolist() == calib.names()
    seen = []
    module = torch.nn.Identity()
    module.register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    interop.forward_loop(calib, 5)(module)
    assert np.array_equal(torch.cat(seen).numpy(), want)


def test_loops_go_through_the_tools_modes(calib, stand_in, monkeypatch):
    depth = []

    @contextlib.contextmanager
    def mode(model):
        depth.append(1)
        yield
        depth.pop()

    inside = []
    module = torch.nn.Identity()
    note = lambda m, args: inside.append((len(depth), torch.is_grad_enabled()))
    module.register_forward_pre_hook(note)
    stand_in("brevitas", "brevitas.graph", "brevitas.graph.calibrate", calibration_mode=mode)
    assert interop.calibrate_brevitas(calib, module, 6) is module
    assert inside == [(1, False)] * 2 and not depth
    stand_in("torchao")
    assert interop.calibrate_pt2e(calib, module, 6) is module
    assert inside[2:] == [(0, False)] * 2


def test_tensorrt_calibrator(calib, stand_in, tmp_path, monkeypatch):
    class Base:
        def __init__(self):
            self.made = True

    stand_in("tensorrt", IInt8EntropyCalibrator2=Base)
    monkeypatch.setattr(interop._Batches, "_upload", lambda self, x: torch.from_numpy(x))
    c = interop.tensorrt_calibrator(calib, 4, tmp_path / "cache")
    assert isinstance(c, Base) and c.made and c.get_batch_size() == 4
    seen = []
    while (at := c.get_batch(["image"])) is not None:
        assert at == [c.held.data_ptr()]
        seen.append(c.held.clone())
    assert np.array_equal(torch.cat(seen).numpy(), images(calib))
    assert c.read_calibration_cache() is None
    c.write_calibration_cache(memoryview(b"ranges"))
    assert c.read_calibration_cache() == b"ranges"
    with pytest.raises(InputError, match="no multiple of batch_size=5"):
        interop.tensorrt_calibrator(calib, 5)
    with pytest.raises(InputError, match="kind='IInt8MinMaxCalibrator' is no calibrator"):
        interop.tensorrt_calibrator(calib, 4, kind="IInt8MinMaxCalibrator")


@pytest.mark.parametrize("package", ["nncf", "torchao", "brevitas", "tensorrt"])
def test_a_missing_package_is_refused_with_the_command(calib, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    ways = {
        "nncf": lambda: interop.nncf_arguments(calib),
        "torchao": lambda: interop.calibrate_pt2e(calib, torch.nn.Identity()),
        "brevitas": lambda: interop.calibrate_brevitas(calib, torch.nn.Identity()),
        "tensorrt": lambda: interop.tensorrt_calibrator(calib),
    }
    with pytest.raises(InputError, match=f"{package} is not installed; run: .*pip install"):
        ways[package]()


@pytest.fixture
def folder(tmp_path):
    for k, name in enumerate("cab"):
        place = tmp_path / f"pool/{name}"
        place.mkdir(parents=True)
        Image.new("RGB", (8, 8), (90 * k, 0, 0)).save(place / "same.png")
    return open_pool(tmp_path / "pool")


def test_folders_and_lists_keep_the_order(folder, tmp_path):
    calib = interop.CalibrationSet(folder, np.array([2, 0, 1]), Preprocess(8, 8), "joint", "")
    wanted = [folder.content(i) for i in (2, 0, 1)]
    for link in (False, True):
        out = tmp_path / f"out{link}"
        files = interop.save_folder(calib, out, link)
        assert sorted(files) == files == sorted(os.listdir(out))
        assert [Path(out, f).read_bytes() for f in files] == wanted
        assert all(Path(out, f).is_symlink() == link for f in files)
        with pytest.raises(InputError, match="holds files"):
            interop.save_folder(calib, out, link)
    interop.save_list(calib, tmp_path / "list.txt")
    lines = (tmp_path / "list.txt").read_text().splitlines()
    assert [Path(p).read_bytes() for p in lines] == wanted
    assert not list(tmp_path.glob(".*"))


def test_links_need_files(calib, tmp_path):
    with pytest.raises(InputError, match="is no folder of images"):
        interop.save_folder(calib, tmp_path / "x", link=True)
    assert not list(tmp_path.iterdir())


def test_orders(digits):
    net, pool, table = digits
    chosen = select_random(table, 9, 3)
    ready = lambda tool, rule=None, **more: interop.calibration_set(
        chosen, pool, net.preprocess, tool, rule, **more
    )
    for tool in ("onnxruntime", "openvino", "generic"):
        assert np.array_equal(ready(tool).index, chosen.index)
    rows = np.searchsorted(table.index, chosen.index)
    stats = table.stats[rows]
    ends = np.concatenate([stats[..., 3], -stats[..., 2]], 1)
    scale = np.abs(ends).mean(0).clip(1e-12)

    def off(order, rule):
        got = rule_ends(ends[order], interop.read_rule(rule))
        return np.abs((got - ends.mean(0)) / scale).mean()

    for rule in ("ema 0.95", "ema 0.5", "batch-mean 4"):
        found = interop.sequence_for(ends, rule)
        assert sorted(found) == list(range(9)) and off(found, rule) <= off(np.arange(9), rule)
    given = ready("litert", table=table)
    assert sorted(given.index) == sorted(chosen.index) and "closest to the mean" in given.sequence
    assert "may be unlucky" in ready("litert").sequence
    matched = make_selection(table, rows, "match", dict(rule="ema 0.95"))
    kept = interop.calibration_set(matched, pool, net.preprocess, "litert", table=table)
    assert np.array_equal(kept.index, matched.index) and "as matched" in kept.sequence


def test_a_set_of_another_pool_is_refused(digits):
    net, pool, table = digits
    chosen = make_selection(table, [len(table) - 1], "last")
    with pytest.raises(InputError, match="give the pool that it was chosen from"):
        interop.calibration_set(chosen, open_pool("digits", "val"), net.preprocess)


def test_quiet_puts_everything_back():
    import logging

    before = logging.root.manager.disable
    with pytest.raises(ZeroDivisionError), tools.quiet():
        1 / 0
    assert logging.root.manager.disable == before
    with tools.quiet():
        pass
    with pytest.warns(UserWarning):
        import warnings

        warnings.warn("heard")
