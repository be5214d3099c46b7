"""Restart and run the given notebooks (all of nbs/ if none is given) in place, then clean them."""

import argparse
import base64
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NO_EVAL = re.compile(r"^\s*#\s*\|\s*eval\s*:\s*false\s*$", re.IGNORECASE | re.MULTILINE)
NO_EXEC = re.compile(r"^(?:- )?skip_exec\s*:\s*true\s*$", re.IGNORECASE | re.MULTILINE)
SKIP = "skip-execution"


def all_notebooks():
    """The notebooks below nbs/ that nbdev would see."""
    found = (ROOT / "nbs").rglob("*.ipynb")
    return sorted(
        p for p in found if not any(part[0] in "._" for part in p.relative_to(ROOT).parts)
    )


def without_widgets(outputs):
    """Outputs that a static page can show."""
    return [o for o in outputs if not any("widget" in mime for mime in o.get("data", {}))]


def with_palette(png):
    """The same figure (base64) in 256 colours: a third of the size, and it looks the same."""
    image, small = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return min(png, base64.b64encode(small.getvalue()).decode(), key=len)


def run(path, anyway=False):
    """Run one notebook from its folder and write its outputs; `#| eval: false` keeps them."""
    nb = nbformat.read(path, as_version=4)
    if nb.cells and NO_EXEC.search(nb.cells[0].source) and not anyway:
        return print("skipped (skip_exec)")
    for cell in nb.cells:
        cell.metadata["tags"] = [SKIP] if NO_EVAL.search(cell.source) else []
    NotebookClient(
        nb,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        skip_cells_with_tag=SKIP,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = without_widgets(cell.outputs)
            for data in (o.data for o in cell.outputs if "image/png" in o.get("data", {})):
                data["image/png"] = with_palette(data["image/png"])
    nbformat.write(nb, path)
    clean = Path(sys.executable).with_name(
        "nbdev_clean"
    )  # also drops the tags, the counts and the language version
    subprocess.run([sys.executable, str(clean), "--fname", str(path)], cwd=ROOT, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="notebooks to run; none means all")
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="run pages that say skip_exec, too: their tools must be installed here",
    )
    args = parser.parse_args()
    paths = [p.resolve() for p in args.notebooks] or all_notebooks()
    os.environ["PYTHONHASHSEED"] = "0"
    os.environ.pop("MPLBACKEND", None)  # with another backend figures would not get into the page
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # idle threads sleep: other processes may want the cores
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    for path in paths:
        if not path.is_file():
            sys.exit(f"no notebook {path}")
        start = time.time()
        print(f"{path.relative_to(ROOT)} ", end="", flush=True)
        try:
            run(path, args.anyway)
        except CellExecutionError as error:
            sys.exit(f"failed; the file is as it was\n{error}")
        print(f"{time.time() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
