"""What makes the pages and the site: addresses, first cells, entries of the library, checks."""

import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import address  # noqa: E402
import check  # noqa: E402
import check_notebooks  # noqa: E402
import inventory  # noqa: E402
import pages  # noqa: E402
import stated  # noqa: E402


def code(*lines):
    return dict(cell_type="code", id="c", metadata={}, source="\n".join(lines), outputs=[])


def prose(*lines):
    return dict(cell_type="markdown", id="m", metadata={}, source="\n".join(lines))


# Addresses


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of what holds addresses, with its pages in step."""
    root = tmp_path_factory.mktemp("copy")
    junk = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.egg-info")
    for name in ("nbs", "selectq", "scripts", ".github", "benchmarks"):
        shutil.copytree(ROOT / name, root / name, ignore=junk, symlinks=True)
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy(path, root)
    names = pages.settings(root)
    address.change(root, names["owner"], names["repository"])
    return root


def contents(root):
    files = (p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


def test_address(copy):
    """Two moves leave no trace of the place between; the way back gives the same bytes."""
    names, before = pages.settings(copy), contents(copy)
    here = names["owner"], names["repository"]
    places = [("zz-first", "zz-set"), ("zz-second", "zz-other"), here]
    for old, new in zip([here, *places], places):
        address.change(copy, *new)
        after = contents(copy)
        assert pages.stale(copy) == []
        for name, data in after.items():
            if old != here:
                assert old[0].encode() not in data and old[1].encode() not in data, name
            assert f"{old[0]}/{old[1]}".encode() not in data, name
            assert f"{old[0]}.github.io".encode() not in data, name
        for name in (
            "settings.ini",
            "README.md",
            "nbs/nbdev.yml",
            "selectq/_modidx.py",
            "_quarto.yml",
        ):
            assert new[0].encode() in after[name] and new[1].encode() in after[name], name
    assert after == before


def test_address_refuses(copy):
    with pytest.raises(SystemExit, match="cannot be a name"):
        address.change(copy, "a/b", "c")


def test_addresses_are_ours():
    """Nothing but settings.ini decides; the addresses of another project are gone."""
    names = pages.settings()
    assert names["distribution"] == "selectq-ptq" and names["library"] == "selectq"
    made = ["README.md", "nbs/nbdev.yml", "selectq/_modidx.py", "_quarto.yml", "CONTRIBUTING.md"]
    for name in made:
        text = (ROOT / name).read_text(encoding="utf-8")
        owners = re.findall(r"github\.com/(?:github/)?([\w.-]+)/selectq\b", text)
        assert set(owners) <= {names["owner"]}, name


# First cells

PAGE = [
    code("#| default_exp thing"),
    prose("# Thing\n> of a kind"),
    prose(
        "[![Open in Colab](https://x/badge.svg)]"
        "(https://colab.research.google.com/github/a/b/blob/c/d)"
    ),
    prose("Words."),
    code("from pathlib import Path", "import pandas as pd", "from selectq.data import Pool"),
    code(
        "a = pd.read_csv(Path('../../results') / 'a.csv')", "b = pd.read_csv(f'../results/{x}.csv')"
    ),
]


@pytest.fixture
def site(tmp_path):
    (tmp_path / "nbs" / "ablations").mkdir(parents=True)
    shutil.copy(ROOT / "settings.ini", tmp_path)
    page = tmp_path / "nbs" / "ablations" / "thing.ipynb"
    page.write_text(json.dumps(dict(cells=PAGE, metadata={}, nbformat=4, nbformat_minor=5)))
    return tmp_path


def test_pages(site):
    """Badge, first cell and results are put in once; a second run changes nothing."""
    assert len(pages.refresh(site)) == 1 and pages.refresh(site) == []
    cells = json.loads((site / "nbs" / "ablations" / "thing.ipynb").read_text())["cells"]
    texts = ["".join(c["source"]) for c in cells]
    names = pages.settings(site)
    assert len(cells) == len(PAGE) + 1 and texts[0] == "#| default_exp thing"
    place = f"{names['owner']}/{names['repository']}/blob/main/nbs/ablations/thing.ipynb"
    assert texts[2] == f"[Open in Colab](https://colab.research.google.com/github/{place})"
    assert texts[3] == pages.setup_cell(names) and cells[3]["cell_type"] == "code"
    assert texts[5].split("\n") == [
        "import pandas as pd",
        "from selectq.colab import results_folder",
        "from selectq.data import Pool",
    ]
    assert texts[6].split("\n") == [
        "a = pd.read_csv(results_folder() / 'a.csv')",
        "b = pd.read_csv(results_folder() / f'{x}.csv')",
    ]


@pytest.mark.parametrize("colab, installed", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_first_cell(monkeypatch, colab, installed):
    """The first cell installs on Colab, unless the package is there, and does nothing elsewhere."""
    calls, names = [], pages.settings()
    monkeypatch.setattr(subprocess, "check_call", calls.append)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: installed or None)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(pages.setup_cell(names), {})
    assert len(calls) == (colab and not installed)
    if calls:
        url = f"git+https://github.com/{names['owner']}/{names['repository']}@{names['branch']}"
        assert calls[0][:4] == [sys.executable, "-m", "pip", "install"]
        assert calls[0][-1] == f"{names['distribution']} @ {url}"


def test_results_folder(tmp_path, monkeypatch):
    """From anywhere in the repository, its results; no address is asked for."""
    from selectq import colab

    monkeypatch.setattr("urllib.request.urlopen", lambda url: pytest.fail(url))
    for folder in (ROOT, ROOT / "nbs", ROOT / "nbs" / "experiments"):
        monkeypatch.chdir(folder)
        assert colab.results_folder() == ROOT / "results"
    names = pages.settings()
    repository = f"https://github.com/{names['owner']}/{names['repository']}"
    assert colab.archive_address() == f"{repository}/archive/refs/heads/{names['branch']}.tar.gz"


# Entries of the library


def entry(symbol, monkeypatch):
    from nbdev.showdoc import show_doc

    monkeypatch.chdir(ROOT)  # nbdev reads settings.ini
    monkeypatch.syspath_prepend(str(ROOT))
    return show_doc(symbol)._repr_markdown_()


def rows(text):
    """The cells of each row of all tables: {first cell: the others}."""
    found = [
        [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    return {first: rest for first, *rest in found}


def test_entry_of_a_function(monkeypatch):
    from selectq.traversal import collect

    text = entry(collect, monkeypatch)
    found = rows(text)
    assert text.startswith("---\n\n[source](https://github.com/") and "### collect\n" in text
    assert re.search(r"selectq/traversal\.py#L\d+\)", text)
    assert {"`net`", "`pool`", "`kind`", "`out`", "`settings`", "`**changes`"} <= set(found)
    assert found["`net`"][1] == "required" and found["`out`"][1] == "`None`"
    assert "`'activation'` or " in found["`kind`"][0]
    assert "batch_size" in found["`**changes`"][2]  # of the settings, not of the result
    assert re.search(r"^\*\*Returns\*\* `StatisticsTable`", text, re.MULTILINE)
    assert "batch_size" not in text.split("**Returns**")[1]


def test_entry_of_a_dataclass(monkeypatch):
    from dataclasses import fields

    from selectq.clustering import SelectQSettings

    found = rows(entry(SelectQSettings, monkeypatch))
    for field in fields(SelectQSettings):
        kind, default, meaning = found[f"`{field.name}`"]
        assert kind and default == f"`{field.default!r}`" and meaning, field.name
    assert found["`update`"][0] == "`'additive'` or `'shift'`" and "Eq. 3" in found["`update`"][2]


def test_entry_of_ranges(monkeypatch):
    from selectq.calibration import Ranges

    found = rows(entry(Ranges, monkeypatch))
    assert found["`alpha`"][1:] == ["required", "(sites,) float32, <= 0"]
    assert found["`estimator`"][1] == "`'minmax'`"


def test_entry_of_a_command(monkeypatch):
    from selectq.cli import select

    text = entry(select, monkeypatch)
    found = rows(text)
    assert "Annotated" not in text and "selectq select STATS [OPTIONS]" in text
    assert found["`STATS`"][1] == "required" and found["`-n`, `--number`"][:2] == [
        "`int`",
        "`1000`",
    ]
    assert "Eq. 3" in found["`--update`"][2] and found["`--update`"][1] == "`additive`"


class Box:
    "Holds things."

    def __init__(
        self,
        size: int = 3,  # how many
    ):
        self.size = size

    @property
    def full(self) -> bool:
        "Whether no more will fit."

    def put(self, thing, *, at: int | None = None) -> int:
        "Put a thing in. Raises `ValueError` or `TypeError` for a thing too many. It is kept."

    def _hidden(self): ...


def plain(a, b: "int | str" = "x | y", *more: int):  # the result
    "Do it. Raises `KeyError`."


def test_entry_of_a_class(monkeypatch):
    text = entry(Box, monkeypatch)
    found = rows(text)
    assert "```python\nBox(size=3)\n```" in text and found["`size`"] == ["`int`", "`3`", "how many"]
    assert found["`full`"] == ["`bool`", "Whether no more will fit."]
    put = found["`put(thing, *, at=None)`"]
    assert put[0] == "`int`" and put[1].startswith(
        "Put a thing in. It is kept. **Raises** `ValueError` or"
    )
    assert "_hidden" not in text and "for a thing too many." in put[1]


def test_entry_of_one_line(monkeypatch):
    """A comment behind a one-line signature is on the result; a bar in a default ends no cell."""
    text = entry(plain, monkeypatch)
    found = rows(text)
    assert found["`a`"] == ["", "required", ""] and found["`*more`"] == ["`int`", "", ""]
    assert "`'x \\| y'`" in text and len(found["`b`"]) == 3
    assert text.rstrip().endswith("**Returns** the result.\n\n**Raises** `KeyError`.")


def test_names_of_two(monkeypatch):
    """`evaluate` of the library and of the command line are told apart, in entries and links."""
    from types import SimpleNamespace

    from selectq import cli, evaluation

    showdoc = pytest.importorskip("scripts.showdoc")
    monkeypatch.chdir(ROOT)
    for module in (cli, evaluation):
        known = module.evaluate
        seen = types.FunctionType(
            known.__code__, vars(module), "evaluate", (None,) * 9, known.__closure__
        )
        seen.__kwdefaults__, seen.__qualname__ = known.__kwdefaults__, known.__qualname__
        seen.__dict__.update(vars(known))  # of a command: its signature, and what it wraps
        seen.__module__ = "__main__"  # as on a page
        assert showdoc.exported(seen) is module.evaluate
    text = "[`evaluate`](https://x/y/cli.html#evaluate), [`stats`](https://x/y/cli.html#stats)"
    for path, page in {"nbs/90_cli.ipynb": "cli", "nbs/quickstart.ipynb": "evaluation"}.items():
        links = showdoc.LibraryLinks(SimpleNamespace(path_=path))
        links.begin()
        cell = types.SimpleNamespace(cell_type="markdown", source=text)
        cell.get = lambda key, default=None: getattr(cell, key, default)
        links.cell(cell)
        assert f"/{page}.html#evaluate" in cell.source and "/cli.html#stats" in cell.source


# Figures of answers

CELL = [
    *stated.FOLD,
    "stated = {'56.0 ± 4.0': f'{a:.1f} ± {b:.1f}', 'four of ten': f'{n} of ten'}",
    "for text, computed in stated.items(): assert text == computed, (text, computed)",
]
TEXT = [
    "**Answer.** Random sets reach 56.0 ± 4.0 %",
    "with 4 bits (W4A4) on ResNet-20, four of ten.",
]


def test_stated():
    assert stated.problems([prose(*TEXT), code(*CELL)]) == []
    assert (
        stated.problems(
            [prose("## Reading"), prose("Random: 56.0 ± 4.0, four of ten."), code(*CELL)]
        )
        == []
    )
    parts = [prose("**Answer.** 56.0 ± 4.0."), prose("**Reading.** In four of ten."), code(*CELL)]
    assert stated.problems(parts) == []
    assert stated.problems([prose("**Answer.** Nothing at stake."), code("x = 1")]) == []
    assert stated.problems([prose("## Setting\n\n100 images."), code("x = 1")]) == []
    assert (
        stated.problems([prose("## Reading\n\nNo.\n\n## Command\n\nTakes 40 s."), code("x = 1")])
        == []
    )


def test_stated_exempts():
    free = (
        "**Reading.** W4A4 and W3A3, 8-bit, 8, 6 and 5 bits, from 4 bits up, ResNet-20, CIFAR-10, "
        "MENet-128, top-1, Eq. 3, Eqs. 2 to 5, Fig. 2, Figs. 6 and 7, Table 4, Section 5, 32 x 32, "
        "224×224, `n=100`, $2^8$, [10 of 12](a.ipynb#9)."
    )
    assert stated.problems([prose(free)]) == []


@pytest.mark.parametrize(
    "text, cell, word",
    [
        (TEXT + ["Not 12."], CELL, "not in `stated`: 12"),
        (TEXT, ["x = 1"], "no dict `stated`"),
        (TEXT, [], "no dict `stated`"),
        (["**Answer.** 56.0 ± 4.0."], CELL, "'four of ten' of `stated` is not in the text"),
        (TEXT, CELL[:3], "nothing asserts"),
        (TEXT, [*CELL[:3], "for t, c in stated.items(): assert t"], "nothing asserts"),
        (TEXT, [CELL[0].replace("fold: true", "fold: show"), *CELL[1:]], "begins with"),
        (
            TEXT,
            [*CELL[:2], CELL[2].replace("f'{n} of ten'", "'four of ten'"), CELL[3]],
            "is a constant",
        ),
        (TEXT, [*CELL[:2], "#| eval: false", *CELL[2:]], "not run"),
        (["**Answer.** 156.0 ± 4.0, four of ten."], CELL, "not in the text"),
        (["**Answer.** 56.0 ± 4.05, four of ten."], CELL, "not in the text"),
    ],
)
def test_stated_refuses(text, cell, word):
    """A figure that is not stated, a key that is not in the text, no assert, and the like."""
    cells = [prose(*text)] + ([code(*cell)] if cell else [])
    problems = stated.problems(cells)
    assert any(word in problem for problem in problems), problems


# The other checks


def test_words():
    texts = {
        "a": "# Centroids\n\n## The wound: pain",
        "b": "# Centroids\n\nIs at hand.",
        "c": "# Other\n\n`at hand`",
    }
    found = check.word_problems(texts)
    assert (
        len(found) == 3 and "The wound" in found[0] and "at hand" in found[1] and "a, b" in found[2]
    )


def test_mixed_imports():
    """The build of the site runs cells with imports, and none of those they may rest on."""
    export, both = code("#| export", "import os", "x = 1"), code("import sys", "print(x)")
    assert check.mixed_imports([export, prose("# A"), both, code("import a"), code("f()")]) == [3]
    assert check.mixed_imports([both]) == []  # nothing is run for a page without exports


def test_option_problems():
    image = {"data": {"image/png": ""}}
    cell = lambda source, *outputs: {"source": source, "outputs": list(outputs)}
    found = lambda *args: list(check.option_problems(cell(*args)))
    assert found("#| fig-alt: Two lines, one above the other.\nplot()", image) == []
    assert found("#| code-fold: true\n1 + 1", {"data": {"text/plain": "2"}}) == []
    assert "no YAML" in found("#| fig-alt: Two lines: one rises.\nplot()", image)[0]
    assert "fig-alt" in found("plot()", image)[0]


def test_long_signatures():
    """A function with nine parameters is named; options in one object, or self, do not count."""
    eight = ", ".join("abcdefgh")
    assert check.long_signatures(f"def f({eight}): ...\nclass C:\n def g(self, {eight}): ...") == []
    for nine in (f"{eight}, i", f"{eight}, *more", f"{eight}, **more", f"{eight}, *, i=0"):
        assert check.long_signatures(f"def f({nine}): ...") == ["f has 9 parameters"]


def test_longest_first(tmp_path):
    paths = [Path("nbs/index.ipynb"), Path("nbs/quickstart.ipynb"), Path("nbs/glossary.ipynb")]
    seconds = {"nbs/index.ipynb": 3.0, "nbs/quickstart.ipynb": 30.0}
    assert [p.stem for p in check_notebooks.longest_first(paths, seconds)] == [
        "glossary",
        "quickstart",
        "index",
    ]


def test_checks_that_are_off():
    assert set(check.OFF) <= set(check.CHECKS) and list(check.CHECKS)[-1] == "pytest"


def test_inventory():
    report = inventory.report(ROOT)
    for words in (
        "exported names: ",
        "longest signature: ",
        "lines over 100 columns: ",
        "never shows: ",
    ):
        assert words in report
    assert re.search(r"^colab +\d+ +3 ", report, re.MULTILINE)


# The site


def test_quarto():
    """What the pages rely on: width, sidebar, bar, footer, icon, colours."""
    settings = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    html, website = settings["format"]["html"], settings["website"]
    assert html["grid"]["body-width"] == "900px" and html["respect-user-color-scheme"] is True
    assert set(html["theme"]) == {"light", "dark"}
    assert website["sidebar"] == {"style": "docked", "collapse-level": 1}
    bar = [item["text"] for item in website["navbar"]["left"]]
    assert bar[:4] == ["Quickstart", "Experiments", "Library", "Command line"]
    for item in website["navbar"]["left"]:
        assert (ROOT / "nbs" / item["href"]).is_file(), item
    assert (ROOT / "nbs" / website["favicon"]).is_file() and "page-footer" in website
    assert (ROOT / "nbs" / "_quarto.yml").resolve() == ROOT / "_quarto.yml"


def test_glossary():
    """Every column of a study, every reading's name and every kind is in the glossary."""
    from selectq.studies import ROW

    cells = json.loads((ROOT / "nbs" / "glossary.ipynb").read_text(encoding="utf-8"))["cells"]
    words = set(re.findall(r"`([^`\n]+)`", "\n".join("".join(c["source"]) for c in cells)))
    assert set(ROW) <= words, set(ROW) - words
    assert {
        "printed",
        "text",
        "additive-lowest",
        "shift-highest",
        "activation",
        "relu",
        "output",
        "input",
    } <= words
