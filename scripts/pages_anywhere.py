"""Run every page from the built wheel, in a clean environment, away from the repository.

    python scripts/pages_anywhere.py [PAGE ...] [--env FOLDER] [--failed]

The wheel is installed with its extras into a fresh environment, in a folder whose name has spaces
and letters beyond ASCII. Each page runs in an empty folder of its own, without SELECTQ_DATA, one
after the other: more than an hour on one core. FOLDER keeps the environment and pages.json, the
answers so far; `--failed` runs only the pages that failed there. Pages that are never run
(`skip_exec`) are left out: they need a toolkit with an environment of its own.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import pages  # noqa: E402

# PYTHONPATH would show the repository, SELECTQ_DATA what few users have
NOT_KEPT = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SELECTQ_DATA")
NOT_COPIED = (".git", ".venv*", "*.egg-info", "build", "_docs", "_proc", "results", "__pycache__")
EXTRAS = "onnx,openvino,explorer"
MORE = ("polars", "duckdb")  # that one page reads a table with
MOST = 1800  # seconds for a page


def run(*args, cwd, **options):
    """Run a program in a clean environment."""
    env = {k: v for k, v in os.environ.items() if k not in NOT_KEPT}
    env.update(MPLBACKEND="agg", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    env["IPYTHONDIR"] = str(cwd)
    return subprocess.run([*map(str, args)], cwd=cwd, env=env, **options)


def skipped(path):
    """Whether a page is never run, by its first lines."""
    cells = json.loads((ROOT / path).read_bytes())["cells"]
    return any("skip_exec: true" in "".join(c["source"]) for c in cells[:2])


def wheel(folder):
    """Build the wheel from a copy of the working tree."""
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, copy)
        run(*command, cwd=folder, check=True)
    return next(folder.glob("selectq_ptq-*.whl"))


def environment(folder):
    """The Python of an environment with the wheel, made if it is not there; the wheel is new."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", folder, cwd=ROOT, check=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    found = wheel(folder)
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    constrained = (f"{found}[{EXTRAS}]", *MORE, "-c", ROOT / "constraints.txt")
    run(*pip, *constrained, cwd=folder, check=True)
    run(*pip, "--no-deps", "--force-reinstall", found, cwd=folder, check=True)
    return python


def archive(folder):
    """`results/` as GitHub packs a branch."""
    path = folder / "main.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for file in sorted((ROOT / "results").rglob("*")):
            if file.is_file():
                tar.add(file, f"selectq-main/{file.relative_to(ROOT).as_posix()}")
    return path


def run_page(python, page, packed):
    """(what is wrong or '', seconds) of a page in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="a page, älter ") as tmp:
        copy, here = Path(tmp) / page.name, Path(tmp) / "here"
        copy.write_bytes(pages.refreshed(page))
        here.mkdir()
        start = time.time()
        script = ROOT / "scripts" / "run_page.py"
        options = dict(cwd=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=MOST)
        try:
            done = run(python, script, copy, packed, **options)
        except subprocess.TimeoutExpired:
            return f"more than {MOST} s", MOST
    text = done.stdout.decode(errors="replace")
    return text[-3000:] if done.returncode else "", round(time.time() - start, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="none means all")
    parser.add_argument("--env", type=Path, help="folder of the environment; kept")
    parser.add_argument("--failed", action="store_true", help="only those that failed before")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="selectq, älter ") as tmp:
        folder = (args.env or Path(tmp) / "an environment").resolve()
        python, packed = environment(folder), archive(folder)
        kept = folder / "pages.json"
        answers = json.loads(kept.read_text()) if kept.exists() else {}
        chosen = args.pages or [p for p in pages.pages(ROOT) if not skipped(p)]
        if args.failed:
            chosen = [p for p in chosen if answers.get(str(p), [""])[0]]
        for page in chosen:
            problem, seconds = answers[str(page)] = run_page(python, page, packed)
            print(f"{page}: {'failed' if problem else 'ran'} in {seconds} s", flush=True)
            kept.write_text(json.dumps(answers, indent=1))
    failed = {page: a[0] for page, a in answers.items() if a[0]}
    for page, problem in failed.items():
        print(f"\n{page}\n{problem}")
    print(f"{len(answers) - len(failed)} of {len(answers)} pages ran")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
