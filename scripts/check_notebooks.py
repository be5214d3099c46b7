"""Run notebooks from top to bottom, each in its process, as many at once as there are cores.

Other people's libraries are imported once, and every notebook runs in a fork of that process: most
notebooks would spend longer importing torch than on their cells. The package is imported by each
notebook itself. The processor's seconds of each are kept, and the longest start first.
"""

import argparse
import atexit
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# what each notebook took last time
SECONDS = Path(sys.prefix) / "notebook_seconds.json"
# Imported before the forks. onnxruntime is not: it starts a thread when it is imported.
LIBRARIES = (
    "nbdev.test matplotlib.pyplot matplotlib_inline.backend_inline numpy pandas seaborn torch "
    "torch.utils.data numba sklearn.cluster sklearn.datasets sklearn.metrics pyarrow.parquet "
    "PIL.Image safetensors.torch pytorchcv.model_provider tqdm typer ipywidgets onnx"
).split()
FORK_SAFE = ("jemalloc_bg_thd",)  # threads of pyarrow's allocator, which looks after forks itself


def notebooks():
    """The notebooks below nbs/ that nbdev would see."""
    found = (p.relative_to(ROOT) for p in (ROOT / "nbs").rglob("*.ipynb"))
    return sorted(p for p in found if not any(part[0] in "._" for part in p.parts))


def cores():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2


def recorded_seconds():
    """What each notebook took when it last ran in this environment."""
    try:
        return json.loads(SECONDS.read_text())
    except (OSError, ValueError):
        return {}


def longest_first(paths, seconds):
    """By the seconds of the last run; those that never ran come first, the larger the earlier."""
    return sorted(
        paths, key=lambda p: (-seconds.get(str(p), float("inf")), -(ROOT / p).stat().st_size)
    )


def load_libraries():
    """Import what notebooks share. A fork is safe only while there is no thread but this."""
    for name in LIBRARIES:
        importlib.import_module(name)
    tasks = Path("/proc/self/task").glob("*/comm")
    names = sorted(p.read_text().strip() for p in tasks if p.parent.name != str(os.getpid()))
    if others := [name for name in names if name not in FORK_SAFE]:
        sys.exit(f"a library started threads when it was imported, forks may hang: {others}")


def start(work, log):
    """Run `work` in a process, and a group of processes, of its own; what it prints is in `log`."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        code = work()
        atexit._run_exitfuncs()  # removes the temporary folders, for one
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_notebook(path):
    """Run the cells of one notebook, in this process: 0 or 1."""
    import nbdev.test
    from nbdev.config import get_config

    # nobody looks at these figures: one pixel a point instead of two
    nbdev.test.CaptureShell = partial(nbdev.test.CaptureShell, mpl_format="png")
    flags = get_config().tst_flags.split()
    passed, _ = nbdev.test.test_nb(ROOT / path, skip_flags=flags, basepath=ROOT)
    return int(not passed)


def run_pytest():
    """Become pytest."""
    os.execv(sys.executable, [sys.executable, "-m", "pytest", "-q", "tests"])


class Pool:
    """Processes, at most so many at once: their exit codes, and the processor's seconds of each."""

    def __init__(self, at_once):
        self.at_once, self.running = at_once, {}
        self.codes, self.seconds, self.texts = {}, {}, {}

    def add(self, name, work):
        """Start `work` as soon as there is room."""
        while len(self.running) >= self.at_once:
            self.wait()
        log = tempfile.TemporaryFile()
        self.running[start(work, log)] = name, log, time.time()

    def wait(self):
        """Until one of them has ended."""
        pid, status, usage = os.wait4(-1, 0)
        name, log, began = self.running.pop(pid)
        log.seek(0)
        self.texts[name] = log.read().decode(errors="replace")
        self.codes[name] = abs(os.waitstatus_to_exitcode(status))
        self.seconds[name] = round(usage.ru_utime + usage.ru_stime, 1)
        took = f"{time.time() - began:.1f} s, processor {self.seconds[name]} s"
        print(f"      {name}: {'failed' if status else 'ran'} in {took}", flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        while self.running and not any(error):
            self.wait()
        for pid in self.running:
            os.killpg(pid, signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="none means all below nbs/")
    parser.add_argument("--pytest", type=Path, help="run tests/ as well; its answer as JSON")
    args = parser.parse_args()
    seconds = recorded_seconds()
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", MPLBACKEND="agg")
    with Pool(cores()) as pool:
        if args.pytest:  # the longest of all; it imports for itself
            pool.add("tests", run_pytest)
        if sys.platform == "linux":
            load_libraries()
        for path in longest_first(args.notebooks or notebooks(), seconds):
            pool.add(str(path), partial(run_notebook, path))
    if args.pytest:
        args.pytest.write_text(json.dumps([pool.codes.pop("tests"), pool.texts.pop("tests")]))
    failed = sorted(name for name, code in pool.codes.items() if code)
    for name in failed:
        print(f"\n{name}\n{pool.texts[name]}")
    total = sum(pool.seconds.values())
    print(f"      processor: {total:.0f} s in all, {pool.seconds.pop('tests', 0):.0f} s for tests/")
    try:
        SECONDS.write_text(json.dumps(seconds | pool.seconds))
    except OSError:  # an environment that cannot be written: the order is a matter of minutes only
        pass
    if failed:
        sys.exit(f"does not run (see above): {', '.join(failed)}")


if __name__ == "__main__":
    main()
