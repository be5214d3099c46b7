"""Interrupted or killed, the same command goes on and ends with the same table."""
import json
import os
import signal
import time

import pandas as pd
import pytest
from conftest import call, finish, start, write_digits

from selectq.table import load_table

STATS = "stats digits {pool} --out {out} --batch-size 1 --chunk 1 --noise 10 --workers {workers}"  # one image, one part: seconds for 300
RUN = "run digits {pool} {val} --out {out} -n 10 --bits 4 --random-seeds 1 --workers 0"


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("interrupt") / "pool", "train", range(300))


@pytest.fixture(scope="module")
def uninterrupted(pool, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "stats"
    assert call(STATS, pool=pool, out=out, workers=0)[0] == 0
    return load_table(out)


def stop(process, out, number, parts=10):
    """Send a signal to the process and its children, as a terminal does, when some parts are there."""
    deadline = time.monotonic() + 60
    while len(list(out.glob("part-*"))) < parts:
        assert process.poll() is None and time.monotonic() < deadline, finish(process)
        time.sleep(.005)
    os.killpg(process.pid, number)
    return finish(process)


@pytest.mark.parametrize("workers", (0, 2))
def test_interrupted(workers, pool, uninterrupted, tmp_path):
    """Ctrl-C: exit code 130 and one line. The parts so far are whole, and the same command makes only the others."""
    out = tmp_path / "stats"
    code, printed, err = stop(start(STATS, tmp_path, pool=pool, out=out, workers=workers), out, signal.SIGINT)
    assert (code, printed) == (130, "") and err.startswith("selectq: interrupted") and err.count("\n") == 1, err
    parts = {p.name: p.stat().st_mtime_ns for p in out.glob("part-*")}
    assert 10 <= len(parts) < 300 and not json.loads((out / "meta.json").read_text())["complete"]
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]
    assert call("select {out} -n 5 --out {out}/../s.json", out=out)[0] == 2
    assert call(STATS, pool=pool, out=out, workers=workers)[0] == 0
    assert all((out / name).stat().st_mtime_ns == at for name, at in parts.items())
    assert load_table(out).hash == uninterrupted.hash


def test_killed(pool, uninterrupted, tmp_path):
    """SIGKILL in the middle, twice: the same command ends with the same table."""
    out = tmp_path / "stats"
    for parts in (5, 60):
        code, *_ = stop(start(STATS, tmp_path, pool=pool, out=out, workers=0), out, signal.SIGKILL, parts)
        assert code == -signal.SIGKILL and len(list(out.glob("part-*"))) < 300
    assert call(STATS, pool=pool, out=out, workers=0)[0] == 0
    assert load_table(out).hash == uninterrupted.hash


def test_run_interrupted(pool, world, tmp_path, monkeypatch):
    """`run`, interrupted while it reads the pool and again while it evaluates: the same command ends with the results of an uninterrupted one."""
    import selectq.data
    import selectq.traversal
    import selectq.evaluation
    places = dict(pool=pool, val=world.val)
    assert call(RUN, out=tmp_path / "whole", **places)[0] == 0
    for name, after in (("batch_statistics", 3), ("count_correct", 2)):
        module = selectq.traversal if name == "batch_statistics" else selectq.evaluation
        genuine, calls = getattr(module, name), [0]
        def interrupting(*args, **kw):
            calls[0] += 1
            if calls[0] > after:
                raise KeyboardInterrupt
            return genuine(*args, **kw)
        monkeypatch.setattr(module, name, interrupting)
        with pytest.raises(KeyboardInterrupt):
            selectq_main(RUN, out=tmp_path / "report", **places)
        monkeypatch.undo()
        assert not (tmp_path / "report" / "results.csv").exists()
    assert call(RUN, out=tmp_path / "report", **places)[0] == 0
    whole, again = (pd.read_csv(tmp_path / name / "results.csv") for name in ("whole", "report"))
    pd.testing.assert_frame_equal(whole, again)
    images = [json.loads((tmp_path / name / "selection.json").read_text())["images"] for name in ("whole", "report")]
    assert images[0] == images[1] and {p.name for p in (tmp_path / "report").iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def selectq_main(command, **places):
    import shlex
    from selectq.cli import main
    main([word.format(**places) for word in shlex.split(command)])


def test_run_in_a_process(pool, world, tmp_path):
    """Ctrl-C during `run` in a process of its own: one line, exit code 130, no report."""
    process = start(RUN.replace("--workers 0", "--workers 1"), tmp_path, pool=pool, val=world.val, out=tmp_path / "report")
    while not (tmp_path / "report" / "stats" / "meta.json").exists():
        assert process.poll() is None
        time.sleep(.005)
    os.killpg(process.pid, signal.SIGINT)
    code, printed, err = finish(process)
    assert (code, printed) == (130, "") and err.startswith("selectq: interrupted") and err.count("\n") == 1, err
    assert not (tmp_path / "report" / "results.csv").exists()
