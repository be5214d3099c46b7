"""Installed from a copy of the repository into a fresh environment, not editable: it all works."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import pages  # noqa: E402

COLUMNS = "network strategy update order sites ranges w_bits a_bits n seed top1 top5 se".split()
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
NOT_COPIED = (".git", ".venv", "*.egg-info", "build", "_docs", "_proc", "results", "benchmarks")
# One that only reads results, one that computes and reads, one that computes alone.
PAGES = ("experiments/first_light.ipynb", "ablations/gamma.ipynb", "20_quantizer.ipynb")
RUN_PAGE = ROOT / "scripts" / "run_page.py"


def run(*args, cwd, **env):
    clean = {k: v for k, v in os.environ.items() if k not in OURS}
    options = dict(cwd=cwd, env={**clean, **env}, capture_output=True, text=True, timeout=300)
    done = subprocess.run([*map(str, args)], **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel from a copy of the working tree, caches and all; no network is needed."""
    root = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(*NOT_COPIED)
    shutil.copytree(ROOT, root / "copy", ignore=ignored, symlinks=True)
    cache = root / "copy" / "selectq" / "__pycache__"  # what numba leaves beside the modules
    cache.mkdir(exist_ok=True)
    (cache / "statistics._fold-1.py311.nbi").write_bytes(b"cache")
    alone = ("--no-deps", "--no-build-isolation", "--no-index")
    run(*PIP, "wheel", *alone, "-w", root, root / "copy", cwd=root)
    return next(root.glob("selectq_ptq-*.whl"))


def test_wheel(wheel):
    """The package, its weights and its metadata: no test, no script, no notebook, no cache."""
    names = zipfile.ZipFile(wheel).namelist()
    top = {n.split("/")[0] for n in names}
    info = top - {"selectq"}
    assert len(top) == 2 and len(info) == 1 and next(iter(info)).endswith(".dist-info")
    inside = {n for n in names if n.startswith("selectq/")}
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "selectq").rglob("*.py")}
    assert modules <= inside and "selectq/weights/digits_resnet8.safetensors" in inside
    assert "selectq/py.typed" in inside  # so that type checkers of users read the annotations
    unwanted = (".ipynb", ".nbi", ".nbc", ".pyc")
    assert [n for n in names if "test" in n or "__pycache__" in n or n.endswith(unwanted)] == []


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of a fresh environment: the other packages of this one, and the built selectq."""
    env = tmp_path_factory.mktemp("env")
    run(sys.executable, "-m", "venv", "--without-pip", env / "v", cwd=env)
    python = env / "v" / ("Scripts" if os.name == "nt" else "bin") / "python"
    where = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=env)
    # .pth files over there are not followed: the editable selectq is not seen
    packages = Path(where.stdout.strip()) / "packages.pth"
    packages.write_text(sysconfig.get_path("purelib") + "\n")
    run(*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=env)
    return python


def test_installed(python, tmp_path):
    """`selectq` is the installed one; importing it and asking for help load nothing heavy."""
    code = (
        "import sys, selectq, selectq.cli, selectq.colab\n"
        "try: selectq.cli.main(['--help'])\n"
        "except SystemExit as e: assert not e.code\n"
        "print([m for m in ('torch', 'numba', 'pandas', 'matplotlib') if m in sys.modules])\n"
        "print(selectq.__file__)"
    )
    heavy, place = run(python, "-c", code, cwd=tmp_path).stdout.splitlines()[-2:]
    assert heavy == "[]" and Path(place).is_relative_to(python.parent.parent)
    assert "stats" in run(python.parent / "selectq", "--help", cwd=tmp_path).stdout


def test_distribution(python, tmp_path):
    """What is installed is called selectq-ptq, and comes from the address of settings.ini."""
    names = pages.settings()
    code = "m = __import__('importlib.metadata').metadata.metadata('selectq-ptq')\n"
    done = run(python, "-c", code + "print(m['Name'], m['Home-page'])", cwd=tmp_path)
    repository = f"https://github.com/{names['owner']}/{names['repository']}"
    assert done.stdout.split() == ["selectq-ptq", repository]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The published results as GitHub packs a branch."""
    path = tmp_path_factory.mktemp("archive") / "main.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for file in (ROOT / "README.md", *sorted((ROOT / "results").glob("*.csv"))):
            tar.add(file, f"selectq-main/{file.relative_to(ROOT).as_posix()}")
    return path


@pytest.mark.parametrize("page", PAGES)
def test_page(python, archive, tmp_path, page):
    """A page from the wheel, in an empty folder: it installs nothing and fetches what it reads."""
    (tmp_path / "page.ipynb").write_bytes(pages.refreshed(Path("nbs") / page))
    (tmp_path / "here").mkdir()
    env = dict(OMP_NUM_THREADS="1", MPLBACKEND="agg", IPYTHONDIR=str(tmp_path / "ipython"))
    run(python, RUN_PAGE, tmp_path / "page.ipynb", archive, cwd=tmp_path / "here", **env)
    got = sorted(p.name for p in (tmp_path / "here").iterdir())
    reads = "results_folder()" in (tmp_path / "page.ipynb").read_text(encoding="utf-8")
    assert got == ["selectq-results"] * reads


def test_demo(python, tmp_path):
    """`selectq demo` from another folder: the report is whole, and something can be told apart."""
    done = run(python.parent / "selectq", "demo", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.stderr == "" and "selectq-demo" in done.stdout
    results = pd.read_csv(tmp_path / "selectq-demo" / "results.csv")
    assert set(COLUMNS) <= set(results.columns)
    full = results[(results.w_bits == 32) & (results.a_bits == 32)]
    assert len(full) == 1 and full.strategy.tolist() == ["float"] and full.top1.iloc[0] > 95
    pairs = {(32, 32), (8, 8), (4, 4), (4, 2)}
    assert set(zip(results.w_bits, results.a_bits)) == pairs
    assert results.strategy.value_counts().to_dict() == {
        "float": 1, "random": 20 * 3, "selectq": 2 * 3, "match": 3, "craft": 3}
    assert set(results["update"].dropna()) == {"additive", "shift"}
    low = results[results.a_bits == 2].groupby("strategy").top1
    for chosen in ("match", "craft"):
        assert low.min()[chosen] > low.max()["random"]  # beyond the best of 20 random sets
    assert results[["top1", "top5", "se"]].notna().all().all()
    assert results.top1.between(0, 100).all() and (results.top5 >= results.top1).all()
    written = {p.name for p in (tmp_path / "selectq-demo").iterdir()}
    assert {"selection.json", "results.csv", "comparison.png", "stats"} <= written
    assert [p.name for p in tmp_path.iterdir()] == ["selectq-demo"]
