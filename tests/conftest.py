"""A generated world of images, and two ways to run `selectq`: here, and as a process."""

import os

# before torch: the machine may be busy
os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", MPLBACKEND="agg")

import io
import json
import shlex
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import Forked
from safetensors.torch import save_file

from selectq.cli import main
from selectq.data import open_pool
from selectq.models import build_network, load_network

CLASSES = [str(k) for k in range(10)]

# In the background Ctrl-C is ignored, and the processes that the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def call(command, **places):
    """Run `selectq COMMAND` in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exit:
        main([word.format(**places) for word in shlex.split(command)])
    return exit.value.code, out.getvalue(), err.getvalue()


def start(command, cwd, env={}, **places):
    """Start `selectq COMMAND` in a process, and a process group, of its own."""
    words = [word.format(**places) for word in shlex.split(command)]
    return Forked([sys.executable, "-m", "selectq.cli", *words], cwd, {**os.environ, **env})


def finish(process):
    """Wait for a process: exit code, stdout, stderr."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def one_line(result, *words):
    """The one line of a refusal: exit code 2, nothing else on stderr, no traceback, all words."""
    code, out, err = result
    assert code == 2, (code, out, err)
    assert out == "" and "Traceback" not in err
    assert err.startswith("selectq: ") and err.endswith("\n") and err.count("\n") == 1, err
    for word in words:
        assert word in err, f"{word!r} is not in {err!r}"
    return err


def tree(folder):
    """Every path below a folder with its size and time of change."""
    return {
        p.relative_to(folder).as_posix(): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    } | {p.relative_to(folder).as_posix(): None for p in folder.rglob("*") if p.is_dir()}


def write_digits(root, part, rows, flat=False):
    """Digits as PNG files, one folder per class or flat."""
    pool = open_pool("digits", part)
    for i in rows:
        path = root / ("" if flat else str(pool.labels[i])) / f"{part}{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pool.image(i).save(path)
    return root


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Paths of pools, validation sets, weights, tables and selections. Nothing in it may change."""
    root = tmp_path_factory.mktemp("world")
    w = SimpleNamespace(root=root)
    w.pool = write_digits(root / "pool", "train", range(60))
    w.val = write_digits(root / "val", "val", range(40))
    w.flat = write_digits(root / "flat", "val", range(12), flat=True)
    w.few = write_digits(
        root / "few",
        "val",
        [i for i in range(60) if open_pool("digits", "val").labels[i] in (2, 5)],
    )
    w.leak = write_digits(write_digits(root / "leak", "val", range(40)), "train", [7])
    # with an image of the pool under another name
    w.copy = write_digits(root / "copy", "val", range(40))
    shared = next(w.pool.rglob("*.png"))
    (w.copy / shared.parent.name / "holiday.png").write_bytes(shared.read_bytes())
    w.broken = write_digits(root / "broken", "train", range(60, 120))  # 2 of 62 cannot be decoded
    (w.broken / "0" / "zero.png").write_bytes(b"")
    (w.broken / "1" / "text.jpg").write_bytes(b"not an image")
    w.empty, w.texts = root / "empty", root / "texts"
    w.empty.mkdir()
    w.texts.mkdir()
    (w.texts / "notes.txt").write_text("hello")
    w.classes, w.eleven = root / "classes.json", root / "eleven.json"
    w.classes.write_text(json.dumps(CLASSES))
    w.eleven.write_text(json.dumps([*CLASSES, "ten"]))
    w.nan, w.other, w.unfit, w.garbage = (
        root / "nan.safetensors",
        root / "other.safetensors",
        root / "unfit.pth",
        root / "garbage.pth",
    )
    state = load_network("digits").module.state_dict()
    save_file(
        {
            k: (
                torch.full_like(v, float("nan"))
                if k == "features.stage2.unit1.body.conv1.conv.weight"
                else v
            )
            for k, v in state.items()
        },
        w.nan,
    )
    torch.manual_seed(0)
    save_file(build_network("digits").module.state_dict(), w.other)
    torch.save({k: v for k, v in state.items() if "stage3" not in k}, w.unfit)
    w.garbage.write_bytes(bytes(range(256)))
    w.tables = root / "tables"
    for name, command in {
        "table": "stats digits {pool}",
        "input": "stats digits {pool} --sites input",
        "unlabelled": "stats digits {flat}",
        "others": "stats digits {pool} --weights {other}",
        "incomplete": "stats digits {pool}",
    }.items():
        code, _, err = call(
            command + " --workers 0 --noise 12 --chunk 25 --out {tables}/" + name, **vars(w)
        )
        assert code == 0, err
        setattr(w, name, w.tables / name)
    meta = w.incomplete / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "complete": False}))
    for name in ("table", "input"):
        assert (
            call("select {tables}/" + name + " -n 10 --out {root}/" + name + ".json", **vars(w))[0]
            == 0
        )
    w.selection, w.strange, w.junk = root / "table.json", root / "input.json", root / "junk.json"
    w.junk.write_text('{"images": [')
    w.file = root / "file"
    w.file.write_text("mine")
    assert {
        folder.name: open_pool(folder).classes
        for folder in (w.pool, w.val, w.leak, w.copy, w.broken)
        if open_pool(folder).classes != tuple(CLASSES)
    } == {}
    before = tree(root)
    yield w
    assert tree(root) == before


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
