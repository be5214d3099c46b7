"""Write README.md from nbs/index.ipynb, or with --check say whether it is in step."""

import argparse
import posixpath
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.filters import strip_ansi

ROOT = Path(__file__).resolve().parent.parent
INDEX, README = ROOT / "nbs" / "index.ipynb", ROOT / "README.md"
HEADER = "<!-- Generated from nbs/index.ipynb by scripts/readme.py: edit the notebook. -->\n\n"
DIRECTIVE = re.compile(r"^\s*#\s*\|\s*(.*?)\s*$")
CODE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
# The target of [text](target), of [id]: target, and of src="target" or href="target".
LINK = re.compile(r"""(\]\(|^\[(?!\^)[^\]]+\]:\s*|\b(?:src|href)=["'])([^)\s"'>]+)""", re.MULTILINE)
DROP = {"hide", "include: false"}
NO_INPUT = {"echo: false", "hide_input"}
NO_OUTPUT = {"output: false", "hide_output"}


def split_directives(source):
    """The `#|` lines at the top of a cell, normalised, and the source without them."""
    lines, directives = source.splitlines(), set()
    while lines and (match := DIRECTIVE.match(lines[0])):
        directives.add(re.sub(r"\s*:\s*", ": ", match[1]).lower())
        lines.pop(0)
    return directives, "\n".join(lines).strip("\n")


def outside_code(function, text):
    """Apply `function` to the parts of Markdown `text` that are not code."""
    return "".join(part if i % 2 else function(part) for i, part in enumerate(CODE.split(text)))


def from_root(target):
    """A link of the index page, as it must read in the repository root."""
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|[#/]", target):
        return target
    path, hash_, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join("nbs", path))
    if path.endswith(".html"):  # a page of the site: the notebook's name without its number
        page = ROOT / path
        pages = [
            p
            for p in sorted(page.parent.glob("*.ipynb"))
            if re.sub(r"^\d+[a-zA-Z0-9]*_", "", p.stem.lower()) == page.stem
        ]
        path = pages[0].relative_to(ROOT).as_posix() if pages else path
    if not (ROOT / path).exists():
        sys.exit(f"nbs/index.ipynb links to {target}, but there is no {path}")
    return path + hash_ + anchor


def markdown_cell(source, number):
    """Markdown of cell `number` as a code host shows it."""
    if re.search(r"^:::", source, re.MULTILINE):
        sys.exit(
            f"nbs/index.ipynb cell {number}: a ::: block shows only on the site; use plain Markdown"
        )
    if source.startswith("# "):  # the title cell: its `- key: value` lines are for the site
        source = re.sub(r"^- [a-z_-]+:.*\n?", "", source, flags=re.MULTILINE).strip()
    source = outside_code(lambda text: re.sub(r"(\]\([^)\s]+\))\{[^}\n]*\}", r"\1", text), source)
    return outside_code(lambda text: LINK.sub(lambda m: m[1] + from_root(m[2]), text), source)


def output_markdown(output, number):
    """One stored output as Markdown: fenced text, never an image or HTML."""
    data = output.get("data", {})
    if output.output_type == "error":
        sys.exit(f"nbs/index.ipynb cell {number}: stored error {output.ename}")
    if any(mime.startswith("image/") for mime in data):
        sys.exit(
            f"nbs/index.ipynb cell {number}: image output; save the figure below nbs/images/ "
            "and show it with ![what it shows](images/name.png)"
        )
    if "text/markdown" in data:
        return markdown_cell(data["text/markdown"], number)
    text = strip_ansi(output.get("text") or data.get("text/plain", "")).strip("\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}" if text else ""


def readme():
    """The text of README.md."""
    nb = nbformat.read(INDEX, as_version=4)
    nb.metadata["language_info"] = {"name": "python"}
    cells = []
    for number, cell in enumerate(nb.cells, 1):
        if cell.cell_type == "markdown":
            cells.append(nbformat.v4.new_markdown_cell(markdown_cell(cell.source, number)))
        elif cell.cell_type == "code":
            directives, source = split_directives(cell.source)
            if directives & DROP or any(d.startswith("default_exp") for d in directives):
                continue
            if source and not directives & NO_INPUT:
                cells.append(nbformat.v4.new_code_cell(source))
            outputs = (
                [] if directives & NO_OUTPUT else [output_markdown(o, number) for o in cell.outputs]
            )
            cells += [nbformat.v4.new_markdown_cell(text) for text in outputs if text]
    nb.cells = cells
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = outside_code(lambda part: re.sub(r"\n{3,}", "\n\n", part), text)
    return HEADER + text.strip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if README.md is out of step"
    )
    check = parser.parse_args().check
    if not INDEX.exists():
        sys.exit("no nbs/index.ipynb to make README.md from")
    text = readme()
    if not check:
        README.write_text(text, encoding="utf-8")
    elif not README.exists() or README.read_text(encoding="utf-8") != text:
        sys.exit("README.md is out of step with nbs/index.ipynb: run `make readme`")


if __name__ == "__main__":
    main()
