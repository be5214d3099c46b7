"""Count what a reader has to keep in mind: names, lines, parameters, wide lines.

python scripts/inventory.py [ROOT]    of this checkout, or of the one at ROOT
"""

import argparse
import ast
import json
import re
from pathlib import Path

COLUMNS, PARAMETERS = 100, 8  # of a line, of a function


def sources(root, folders=("scripts", "tests", "benchmarks")):
    """The code of a checkout: {path: [texts]}, a text per notebook cell or file."""
    found = {}
    for path in sorted((root / "nbs").rglob("*.ipynb")):
        if not any(part[0] in "._" for part in path.relative_to(root).parts):
            cells = json.loads(path.read_bytes())["cells"]
            found[path] = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            found[path] = [path.read_text(encoding="utf-8")]
    return found


def wide(texts):
    """How many lines are longer than COLUMNS."""
    return sum(len(line) > COLUMNS for text in texts for line in text.splitlines())


def signatures(tree):
    """(number of parameters, name) of every function, without self and cls."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            a = node.args
            names = [p.arg for p in [*a.posonlyargs, *a.args, *a.kwonlyargs]]
            count = sum(name not in ("self", "cls") for name in names)
            yield count + (a.vararg is not None) + (a.kwarg is not None), node.name


def exports(tree):
    """The names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


def library(root, name):
    """The folder of the package."""
    ini = (root / "settings.ini").read_text(encoding="utf-8")
    match = re.search(r"^lib_path\s*=\s*(\S+)", ini, re.MULTILINE)
    return root / (match[1] if match else name)


def shown(path):
    """What a page does with its names: code that is not exported, and the text of outputs."""
    cells = [c for c in json.loads(path.read_bytes())["cells"] if c["cell_type"] == "code"]
    texts = ["".join(c["source"]) for c in cells]
    texts = [t for t in texts if not re.search(r"^#\|\s*export", t, re.MULTILINE)]
    for output in (output for c in cells for output in c.get("outputs", [])):
        for text in (output.get("text", ""), output.get("data", {}).get("text/plain", "")):
            texts.append(text if isinstance(text, str) else "".join(text))
    return "\n".join(texts)


def modules(root, code):
    """A row per module: name, lines, exports, longest signature, names its page never shows."""
    pages = {}
    for path, texts in code.items():
        for text in texts:
            if match := re.search(r"^#\|\s*default_exp\s+(\S+)", text, re.MULTILINE):
                pages[match[1]] = path
    rows = []
    for path in sorted(library(root, "selectq").glob("*.py")):
        if path.stem.startswith("_"):
            continue
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        names = exports(tree)
        used = shown(pages[path.stem]) if path.stem in pages else ""
        hidden = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", used)]
        rows.append(
            dict(
                module=path.stem,
                lines=len(text.splitlines()),
                exports=len(names),
                longest=max(signatures(tree), default=(0, "-")),
                hidden=hidden,
            )
        )
    return rows


def report(root):
    """The counts as text."""
    code = sources(root)
    rows = modules(root, code)
    lines = [f"{'module':<14}{'lines':>6}{'exports':>9}{'parameters':>12}  longest signature"]
    for row in rows:
        count, name = row["longest"]
        lines.append(f"{row['module']:<14}{row['lines']:>6}{row['exports']:>9}{count:>12}  {name}")
    count, name, module = max((*row["longest"], row["module"]) for row in rows)
    over = sum(
        n > PARAMETERS
        for path in library(root, "selectq").glob("*.py")
        for n, _ in signatures(ast.parse(path.read_text(encoding="utf-8")))
    )
    hidden = [f"{row['module']}.{name}" for row in rows for name in row["hidden"]]
    kinds = {"pages": [], "test notebooks": [], "scripts": [], "tests": [], "benchmarks": []}
    for path, texts in code.items():
        top, *below = path.relative_to(root).parts
        kinds[
            top if top != "nbs" else "test notebooks" if below[0] == "tests" else "pages"
        ] += texts
    total = sum(len(text.splitlines()) for text in kinds["pages"])
    lines += [
        "",
        f"modules: {len(rows)}, {sum(row['lines'] for row in rows)} lines; "
        f"longest {max((row['lines'], row['module']) for row in rows)}",
        f"exported names: {sum(row['exports'] for row in rows)}",
        f"longest signature: {count} parameters, {module}.{name}; "
        f"functions with more than {PARAMETERS}: {over}",
        f"lines over {COLUMNS} columns: {sum(map(wide, code.values()))}: "
        + ", ".join(f"{kind} {wide(texts)}" for kind, texts in kinds.items())
        + f" (pages hold {total} lines of code)",
        f"exported names that their page never shows: {len(hidden)}",
        *(f"  {name}" for name in hidden),
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("root", nargs="?", type=Path, default=here, help="a checkout; this one")
    print(report(parser.parse_args().root.resolve()))


if __name__ == "__main__":
    main()
