"""Whether every figure in an answer is computed on its page.

Applies to paragraphs that begin with **Answer.** or **Reading.**, or stand below such a heading.
The next code cell computes their figures from the results and asserts them:

    #| code-fold: true
    #| code-summary: The figures above, from the CSV
    stated = {'56.0 ± 4.0': f'{top1.mean():.1f} ± {top1.std():.1f}'}
    for text, computed in stated.items(): assert text == computed, (text, computed)
"""

import ast
import re

FOLD = ("#| code-fold: true", "#| code-summary: The figures above, from the CSV")
HEADING = re.compile(r"^(#+)\s+(.*)")
SECTION = re.compile(r"(?:Reading|Answer)\b")
BOLD = re.compile(r"\*\*(?:Reading|Answer)[.:]?\*\*")
LIST = r"\d+(?:(?:, | and | or | to |, and |-)\d+)*"  # 8, 6 and 5
NO_FIGURES = [
    re.compile(pattern)
    for pattern in (
        r"`[^`]*`",  # code
        r"\$[^$]*\$",  # formulas
        r"!?\[[^\]]*\]\([^)]*\)",  # links
        r"\b\d+ ?[x×] ?\d+\b",  # sizes of images, and of MENet
        rf"\b(?:Eq|Fig|Table|Section|Page|Eqs|Figs|Tables|Sections)\b\.?\s*{LIST}",
        rf"\b{LIST}[ -]bits?\b",  # bit widths
        r"\bg=\d+\b",  # groups of MENet
        r"\b[A-Za-z_]+-?\d[\w.]*(?:-\w+)*",  # names: ResNet-20, CIFAR-10, MENet-128, W4A4, top-1
    )
]
NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def source(cell):
    """The text of a cell."""
    return "".join(cell["source"])


def answers(cells):
    """The paragraphs with answers, as (number of their cell from 0, text in one line)."""
    level, found = 0, []  # level of the heading `Reading` that we are below, 0 for none
    for number, cell in enumerate(cells):
        if cell["cell_type"] != "markdown":
            continue
        for paragraph in re.split(
            r"\n\s*\n", re.sub(r"^```.*?^```", "", source(cell), flags=re.S | re.M)
        ):
            lines = paragraph.strip().split("\n")
            while lines and (heading := HEADING.match(lines[0])):
                depth = len(heading[1])
                if SECTION.match(heading[2]):
                    level = depth
                elif level and depth <= level:
                    level = 0
                lines.pop(0)
            text = " ".join(" ".join(lines).split())
            if text and (level or BOLD.match(text)):
                found.append((number, text))
    return found


def figures(text):
    """Where the figures of a paragraph are: (start, end)."""
    for pattern in NO_FIGURES:
        text = pattern.sub(lambda match: " " * len(match[0]), text)
    return [match.span() for match in NUMBER.finditer(text)]


def places(key, text):
    """Where `key` occurs in `text` as a whole: '4' is not in '54' nor in '4.5'."""
    key = " ".join(key.split())
    before, after = r"(?<![\w.])" if key[:1].isalnum() else "", (
        r"(?!\w|[.,]\d)" if key[-1:].isalnum() else ""
    )
    return [match.span() for match in re.finditer(before + re.escape(key) + after, text)]


def names_in(node):
    """The variables that an expression reads."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def asserts(tree):
    """Whether a cell asserts what `stated` holds: each text equals what was computed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and "stated" in names_in(node.iter):
            both = names_in(node.target)
            inner = [
                n
                for statement in node.body
                for n in ast.walk(statement)
                if isinstance(n, ast.Assert)
            ]
            if len(both) > 1 and any(both <= names_in(n.test) for n in inner):
                return True
        if isinstance(node, ast.Assert) and "stated" in names_in(node.test):
            return True
    return False


def stated(code):
    """The keys of `stated` in a cell of code, and what is wrong with the cell."""
    problems = []
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return [], ["the cell with `stated` cannot be parsed"]
    dicts = [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Assign)
        and isinstance(n.value, ast.Dict)
        and any(isinstance(t, ast.Name) and t.id == "stated" for t in n.targets)
    ]
    if not dicts:
        return [], ["the next code cell has no dict `stated`"]
    keys = []
    for key, value in ((k, v) for d in dicts for k, v in zip(d.keys, d.values)):
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
            problems.append("a key of `stated` is not a literal string")
            continue
        keys.append(key.value)
        if not names_in(value):
            problems.append(f"the value of {key.value!r} is a constant: compute it from the CSV")
    if not asserts(tree):
        problems.append(
            "nothing asserts it: for text, computed in stated.items(): assert text == computed"
        )
    if tuple(code.split("\n")[:2]) != FOLD:
        problems.append(f"the cell with `stated` begins with {' and '.join(map(repr, FOLD))}")
    if re.search(r"^#\|\s*eval:\s*false", code, re.MULTILINE):
        problems.append("the cell with `stated` is not run (eval: false)")
    return keys, problems


def problems(cells):
    """What is wrong with the figures of a page, as texts that name the cell."""
    found, groups = [], {}  # the paragraphs, by the code cell that follows them
    for number, text in answers(cells):
        code = (n for n, c in enumerate(cells) if n > number and c["cell_type"] == "code")
        groups.setdefault(next(code, None), []).append((number, text))
    for at, paragraphs in groups.items():
        following = "" if at is None else source(cells[at])
        texts, first = [text for _, text in paragraphs], paragraphs[0][0]
        if not any(map(figures, texts)) and "stated" not in following:
            continue
        keys, wrong = stated(following)
        for key in keys:
            if not any(places(key, text) for text in texts):
                wrong.append(f"{key!r} of `stated` is not in the text")
        found += [f"cell {first + 1} (id {cells[first].get('id')}): {problem}" for problem in wrong]
        for number, text in paragraphs:
            covered = [span for key in keys for span in places(key, text)]
            bare = [text[a:b] for a, b in figures(text) if not within(a, b, covered, text)]
            if bare:
                place = f"cell {number + 1} (id {cells[number].get('id')})"
                found.append(f"{place}: not in `stated`: {', '.join(bare)} ({text[:50]}...)")
    return found


def within(start, end, spans, text):
    """Whether a figure lies in one of the spans; its sign need not."""
    start += text[start] in "+-−"
    return any(a <= start and end <= b for a, b in spans)
