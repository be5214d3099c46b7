"""Put on every page of nbs/ the link to Colab, the cell that installs the package there, and, where
results are read, `results_folder()`. The address of the repository is that of settings.ini.

Running it twice changes nothing; --check writes nothing.
"""

import argparse
import json
import re
import sys
from configparser import ConfigParser
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLAB = "https://colab.research.google.com/github"
INSTALLS = "'google.colab' in sys.modules"  # how the installing cell is known
SETUP = """#| hide
#| eval: false
# On Colab, install the package from the repository of this page.
import importlib.util, subprocess, sys
if {installs} and not importlib.util.find_spec('{library}'):
    repository = '{distribution} @ git+https://github.com/{owner}/{repository}@{branch}'
    subprocess.check_call([sys.executable, '-m', 'pip', 'install', '--quiet', repository])
    importlib.invalidate_caches()"""
# The ways to name a folder that a page does not have outside of the repository.
RESULTS = re.compile(r"""Path\((['"])(?:\.\./)+results/?\1\)""")
RESULT_FILE = re.compile(r"""(f?)(['"])(?:\.\./)+results/([^'"]*)\2""")
IMPORT = "from {library}.colab import results_folder"


def settings(root=ROOT):
    """Names and addresses, from settings.ini."""
    parser = ConfigParser()
    parser.read(root / "settings.ini", encoding="utf-8")
    ini = parser["DEFAULT"]
    return dict(
        owner=ini["user"],
        repository=ini["repo"],
        branch=ini["branch"],
        library=ini["lib_path"],
        distribution=ini["lib_name"],
    )


def pages(root=ROOT):
    """The notebooks of the site: all of nbs/ but the tests."""
    found = (p.relative_to(root) for p in (root / "nbs").rglob("*.ipynb"))
    return sorted(
        p for p in found if "tests" not in p.parts and not any(part[0] in "._" for part in p.parts)
    )


def badge(path, names):
    """The link to the page on Colab; without an image, which Quarto would make a figure of."""
    place = f"{names['owner']}/{names['repository']}/blob/{names['branch']}/{path.as_posix()}"
    return f"[Open in Colab]({COLAB}/{place})"


def setup_cell(names):
    """The source of the cell that installs the package on Colab, and does nothing elsewhere."""
    return SETUP.format(installs=INSTALLS, **names)


def source(cell):
    """The text of a cell."""
    return "".join(cell["source"])


def new_cell(kind, text, path):
    """A cell whose id follows from the page and the kind: the same at every run."""
    cell = dict(
        cell_type=kind, id=sha256(f"{path.as_posix()} {kind}".encode()).hexdigest()[:8], metadata={}
    )
    if kind == "code":
        cell.update(execution_count=None, outputs=[])
    return dict(cell, source=text.splitlines(keepends=True))


def place(cells, kind, text, known, at, path):
    """Replace the text of the first cell that `known` knows, or insert one at `at`; its number."""
    for number, cell in enumerate(cells):
        if cell["cell_type"] == kind and known(source(cell)):
            cell["source"] = text.splitlines(keepends=True)
            return number
    cells.insert(at, new_cell(kind, text, path))
    return at


def with_import(text, line):
    """`text` with an import of the package among its others, where the alphabet has it."""
    if line in text:
        return text
    lines, package = text.split("\n"), line.split(".")[0] + "."
    imports = [i for i, old in enumerate(lines) if re.match(r"(from|import) ", old)]
    same = [i for i in imports if lines[i].startswith(package)]
    at = next((i for i in same if lines[i] > line), (same or imports)[-1] + 1)
    lines.insert(at, line)
    return "\n".join(lines)


def read_results(cells, names):
    """Let a page find the results wherever it runs: `results_folder()` for '../../results'."""
    code = [c for c in cells if c["cell_type"] == "code" and INSTALLS not in source(c)]
    line, seen = IMPORT.format(**names), False
    for cell in code:
        text = RESULTS.sub("results_folder()", source(cell))
        text = RESULT_FILE.sub(r"results_folder() / \1\2\3\2", text)
        seen |= text != source(cell)
        cell["source"] = text.splitlines(keepends=True)
    if not seen:
        return
    imports = next(c for c in code if re.search(r"^(from|import) ", source(c), re.MULTILINE))
    text = with_import(source(imports), line)
    if not any(
        re.search(r"\bPath\b", source(c).replace("from pathlib import Path", "")) for c in code
    ):
        text = re.sub(r"^from pathlib import Path\n", "", text, flags=re.MULTILINE)
    imports["source"] = text.splitlines(keepends=True)


def refreshed(path, root=ROOT):
    """The stored bytes of a page as they should be."""
    names, page = settings(root), json.loads((root / path).read_bytes())
    cells = page["cells"]
    title = next(
        (
            i
            for i, c in enumerate(cells)
            if c["cell_type"] == "markdown" and source(c).startswith("# ")
        ),
        -1,
    )
    if title < 0:
        sys.exit(f"{path}: no title cell; begin the page with a cell `# Title`")
    at = place(
        cells,
        "markdown",
        badge(path, names),
        lambda text: COLAB in text.split("\n")[0],
        title + 1,
        path,
    )
    place(cells, "code", setup_cell(names), lambda text: INSTALLS in text, at + 1, path)
    read_results(cells, names)
    return (json.dumps(page, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def stale(root=ROOT):
    """The pages that are not as they should be."""
    return [path for path in pages(root) if (root / path).read_bytes() != refreshed(path, root)]


def refresh(root=ROOT):
    """Write the pages that are not as they should be; which these were."""
    changed = stale(root)
    for path in changed:
        (root / path).write_bytes(refreshed(path, root))
    return changed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if a page is out of step"
    )
    check = parser.parse_args().check
    paths = stale() if check else refresh()
    print(
        "\n".join(f"{'stale' if check else 'written'}: {path}" for path in paths)
        or "all pages in step"
    )
    sys.exit(check and bool(paths))


if __name__ == "__main__":
    main()
