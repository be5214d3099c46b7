"""Installed from a copy of the repository into a fresh environment, not editable: it all works."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = "network strategy update order sites ranges w_bits a_bits n seed top1 top5 se".split()


def run(*args, cwd, **env):
    clean = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    done = subprocess.run(
        [*map(str, args)],
        cwd=cwd,
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel from a copy of the working tree, caches and all; no network is needed."""
    root = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "*.egg-info", "build", "_docs", "_proc", "results", "benchmarks"
    )
    shutil.copytree(ROOT, root / "copy", ignore=ignored, symlinks=True)
    cache = root / "copy" / "selectq" / "__pycache__"  # what numba leaves beside the modules
    cache.mkdir(exist_ok=True)
    (cache / "statistics._fold-1.py311.nbi").write_bytes(b"cache")
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "--no-index",
        "-w",
        root,
        root / "copy",
        cwd=root,
    )
    return next(root.glob("selectq_ptq-*.whl"))


def test_wheel(wheel):
    """The package, its weights and its metadata: no test, no notebook, no cache."""
    names = zipfile.ZipFile(wheel).namelist()
    top = {n.split("/")[0] for n in names}
    assert (
        len(top) == 2 and "selectq" in top and next(iter(top - {"selectq"})).endswith(".dist-info")
    )
    inside = {n for n in names if n.startswith("selectq/")}
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "selectq").rglob("*.py")}
    assert modules <= inside and "selectq/weights/digits_resnet8.safetensors" in inside
    assert [
        n
        for n in names
        if "test" in n or "__pycache__" in n or n.endswith((".ipynb", ".nbi", ".nbc", ".pyc"))
    ] == []


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of a fresh environment: the other packages of this one, and the built selectq."""
    env = tmp_path_factory.mktemp("env")
    run(sys.executable, "-m", "venv", "--without-pip", env / "v", cwd=env)
    python = env / "v" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=env
        ).stdout.strip()
    )
    (site / "packages.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )  # .pth files over there are not followed: the editable selectq is not seen
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        wheel,
        cwd=env,
    )
    return python


def test_installed(python, tmp_path):
    """`selectq` is the installed one; importing it and asking for help load nothing heavy."""
    code = (
        "import sys, selectq, selectq.cli\n"
        "try: selectq.cli.main(['--help'])\n"
        "except SystemExit as e: assert not e.code\n"
        "print([m for m in ('torch', 'numba', 'pandas', 'matplotlib') if m in sys.modules])\n"
        "print(selectq.__file__)"
    )
    heavy, place = run(python, "-c", code, cwd=tmp_path).stdout.splitlines()[-2:]
    assert heavy == "[]" and Path(place).is_relative_to(python.parent.parent)
    assert "stats" in run(python.parent / "selectq", "--help", cwd=tmp_path).stdout


def test_demo(python, tmp_path):
    """`selectq demo` from another folder: weights and images come with it; the report is whole."""
    done = run(python.parent / "selectq", "demo", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.stderr == "" and "selectq-demo" in done.stdout
    results = pd.read_csv(tmp_path / "selectq-demo" / "results.csv")
    assert set(COLUMNS) <= set(results.columns)
    full = results[(results.w_bits == 32) & (results.a_bits == 32)]
    assert len(full) == 1 and full.strategy.tolist() == ["float"] and full.top1.iloc[0] > 95
    assert {(w, a) for w, a in zip(results.w_bits, results.a_bits)} == {
        (32, 32),
        (8, 8),
        (6, 6),
        (4, 4),
        (3, 3),
    }
    assert (results.strategy == "random").sum() == 20 * 4 and set(results["update"].dropna()) == {
        "additive",
        "shift",
    }
    assert (
        results[["top1", "top5", "se"]].notna().all().all()
        and results.top1.between(0, 100).all()
        and (results.top5 >= results.top1).all()
    )
    assert {"selection.json", "results.csv", "comparison.png", "stats"} <= {
        p.name for p in (tmp_path / "selectq-demo").iterdir()
    } and [p.name for p in tmp_path.iterdir()] == ["selectq-demo"]
