"""What people install: the version, `python -m selectq`, completion, light commands, formats."""
import ast
import configparser
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
from conftest import call, one_line

import selectq

ROOT = Path(__file__).resolve().parent.parent


def python(*words, cwd, **env):
    """Run Python in a process of its own: exit code and stdout."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": path, **env})
    return done.returncode, done.stdout


def test_version():
    """One version: of the package, the settings and the citation."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    assert selectq.__version__ == settings["DEFAULT"]["version"] == cited


def test_as_a_module(here):
    """`python -m selectq` is the command line, with its name and its exit codes."""
    code, out = python("-m", "selectq", "--help", cwd=here)
    assert code == 0 and "python -m selectq" in out and "--install-completion" in out
    assert python("-m", "selectq", "info", "nowhere", cwd=here) == (2, "")


def test_completion(here):
    """The shell is told the commands that begin with what was typed."""
    env = dict(_SELECTQ_COMPLETE="complete_bash", COMP_WORDS="selectq sta", COMP_CWORD="1")
    code = "import sys; sys.argv[0] = 'selectq'; from selectq.cli import _main; _main()"
    assert python("-c", code, cwd=here, **env)[1].split() == ["stats"]


def test_light_commands(world, here):
    """`info` and `select` on a finished table load no torch; `select` the same without Numba."""
    code = ("import sys\nfrom selectq.cli import main\n"
            "try: main(sys.argv[1:])\nexcept SystemExit as e: assert not e.code\n"
            "heavy = 'torch', 'matplotlib', 'pandas', 'numba', 'scipy'\n"
            "print([m for m in heavy if m in sys.modules])")
    out = python("-c", code, "select", world.table, "-n", 5, cwd=here)[1].splitlines()
    assert out[0].startswith("selection.json: 5 images") and out[-1] == "[]"
    compiled = ("-c", "import numba\n" + code, "select", world.table, "-n", 5, "--out", "b.json")
    assert "numba" in python(*compiled, cwd=here)[1].splitlines()[-1]
    light, heavy = (json.loads((here / f).read_text()) for f in ("selection.json", "b.json"))
    assert light == heavy and len(light["images"]) == 5
    out = python("-c", code, "info", world.table, cwd=here)[1].splitlines()
    assert out[0].startswith("network") and out[-1] == "['pandas']"


def test_formats(world, here):
    """Text of 80 columns; CSV that pandas reads; Markdown; anything else is refused by name."""
    given = "evaluate digits {val} --stats {table} --selection {selection} --bits 8 4:8 --workers 0"
    forms = "text", "csv", "markdown"
    texts = {f: call(f"{given} --format {f}", **vars(world))[:2] for f in forms}
    assert {code for code, _ in texts.values()} == {0}
    text, csv, markdown = (out for _, out in texts.values())
    assert max(map(len, text.splitlines())) <= 80 and "4:8" in text
    assert text.splitlines()[0] == "ranges minmax, n 10, seeds 1"
    rows = pd.read_csv(io.StringIO(csv))
    assert rows.w_bits.tolist() == [32, 8, 4] and rows.a_bits.tolist() == [32, 8, 8]
    assert [line[0] for line in markdown.splitlines()] == ["|"] * (len(rows) + 2)
    one_line(call(f"{given} --format html", **vars(world)), "--format 'html'", "markdown")


def test_formats_of_other_tables(world, here):
    """`info` and `score` as CSV that pandas reads, and as Markdown; nothing else on stdout."""
    for command, columns in (("info {table}", "site mean std"),
                             ("score {table} {selection} {selection}", "set images")):
        code, csv, _ = call(f"{command} --format csv", **vars(world))
        rows = pd.read_csv(io.StringIO(csv))
        assert code == 0 and len(rows) >= 2 and set(columns.split()) <= set(rows)
        code, markdown, _ = call(f"{command} --format markdown", **vars(world))
        assert [line[0] for line in markdown.splitlines()] == ["|"] * (len(rows) + 2)
        one_line(call(f"{command} --format html", **vars(world)), "html", "markdown")


def page_trees():
    """Every page of the site with the syntax trees of its cells; the cell for Colab is left out."""
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if path.parent.name == "tests" or ".ipynb_checkpoints" in path.parts:
            continue
        cells = json.loads(path.read_bytes())["cells"]
        texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        for text in texts:
            if "google.colab" not in text and not text.startswith("%%"):
                lines = [l for l in text.splitlines() if not l.lstrip().startswith(("%", "!"))]
                yield path.relative_to(ROOT), ast.parse("\n".join(lines))


def test_pages_need_no_repository():
    """No page imports a script or a test, or reads a file by its place in the repository."""
    folders = {"scripts", "tests", "benchmarks"}
    ours = folders | {p.stem for f in folders for p in (ROOT / f).glob("*.py")}
    beyond = re.compile(r"^(\.\./|nbs/|scripts/|benchmarks/|tests/|results/)\S*$")
    problems, seen = [], set()
    for path, tree in page_trees():
        seen.add(path)
        for node in ast.walk(tree):
            names = ([a.name for a in node.names] if isinstance(node, ast.Import) else
                     [node.module] if isinstance(node, ast.ImportFrom) and not node.level else [])
            problems += [(path, n) for n in names if n.split(".")[0] in ours - {"statistics"}]
            text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if text and path.stem != "95_colab":  # which makes a repository of its own
                problems += [(path, node.value)] * bool(beyond.match(node.value))
    assert problems == [] and len(seen) > 80
