"""How the site shows what the library exports: tables of parameters, fields, members and options.

nbdev takes `TableRenderer` from settings.ini. For development only: the package imports none of it.
"""

import ast
import inspect
import io
import re
import tokenize
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from textwrap import dedent

from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup, _lineno
from nbdev.process import Processor

EMPTY = inspect.Parameter.empty
WIDTH = 88  # of a signature
# A sentence that begins with "Raises `SomeError`", up to the next sentence or the end.
RAISES = re.compile(
    r"(?:^|(?<=[.!?])\s+)Raises (`\w+`(?:(?:, | or | and )`\w+`)*)(.*?)(?:\.(?=\s)|\.?\s*$)",
    re.DOTALL,
)
SPECIAL = ("__call__", "__getitem__", "__len__", "__iter__", "__contains__")


# reading the source


def index():
    """What nbdev knows of the package: {module: {full name: (page, file)}}."""
    return import_module(f"{get_config().lib_path.name}._modidx").d["syms"]


def parameters_of(symbol):
    """The names of a symbol's parameters, by which two of one name are told apart."""
    try:
        return list(inspect.signature(symbol).parameters)
    except (TypeError, ValueError):
        return None


def exported(symbol):
    """The symbol as the package exports it, for one that a page has just defined, or itself."""
    if getattr(symbol, "__module__", None) not in ("__main__", "builtins", None):
        return symbol
    name, found = symbol.__qualname__, []
    for module in (m for m, symbols in index().items() if f"{m}.{name}" in symbols):
        try:
            found.append(getattr(import_module(module), name))
        except (ImportError, AttributeError):
            continue
    same = [other for other in found if parameters_of(other) == parameters_of(symbol)]
    return (same or found or [symbol])[0]


def source_of(symbol):
    """The source of a function or class, or '' where Python does not know it."""
    for candidate in (symbol, exported(symbol)):
        try:
            text = dedent(inspect.getsource(candidate))
            ast.parse(text)
            return text
        except (OSError, TypeError, SyntaxError):
            continue
    return ""


def comments_of(source):
    """Comment of each line that has one, by its number."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def comment_at(node, following, comments):
    """The comment on the last line of `node`, unless the next one ends on that line too."""
    return (
        ""
        if following is not None and following.end_lineno == node.end_lineno
        else comments.get(node.end_lineno, "")
    )


def function_comments(symbol):
    """What the trailing comments say about the parameters of a function, and about 'return'."""
    source = source_of(symbol)
    node = next(
        (
            n
            for n in ast.parse(source).body
            if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
        ),
        None,
    )
    if node is None:
        return {}
    comments, a = comments_of(source), node.args
    args = [
        *a.posonlyargs,
        *a.args,
        *filter(None, [a.vararg]),
        *a.kwonlyargs,
        *filter(None, [a.kwarg]),
    ]
    defaults = [d for d in (*a.defaults, *a.kw_defaults) if d is not None]
    ends = {
        arg: max(
            [arg.end_lineno]
            + [
                d.end_lineno
                for d in defaults
                if arg.lineno <= d.lineno
                and not any(arg.lineno < b.lineno <= d.lineno for b in args)
            ]
        )
        for arg in args
    }
    found = {}
    for arg, following in zip(args, [*args[1:], None]):
        shared = following is not None and following.lineno == ends[arg]
        found[arg.arg] = "" if shared else comments.get(ends[arg], "")
    body = node.body[0].lineno
    last = max([0, *ends.values()])
    header = [
        n
        for n in comments
        if max(last, node.lineno - 1) < n < body or (n == node.lineno == last == 0)
    ]
    found["return"] = comments[header[-1]] if header else ""
    if (
        len({node.lineno, *ends.values()}) == 1 and node.lineno in comments
    ):  # all on one line: it is about the result
        found.update({name: "" for name in found}, **{"return": comments[node.lineno]})
    return found


def class_comments(symbol):
    """What the trailing comments in a class body say about its fields and methods."""
    source = source_of(symbol)
    node = next((n for n in ast.parse(source).body if isinstance(n, ast.ClassDef)), None)
    if node is None:
        return {}
    comments, found = comments_of(source), {}
    for item, following in zip(node.body, [*node.body[1:], None]):
        if isinstance(item, (ast.AnnAssign, ast.Assign)):
            for target in [item.target] if isinstance(item, ast.AnnAssign) else item.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = comment_at(item, following, comments)
        elif isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found[item.name] = comments.get(item.lineno, "")
    return found


def annotations(symbol):
    """The annotations of a symbol as objects; as they stand where a name is unknown."""
    try:
        return typing.get_type_hints(symbol, include_extras=True)
    except Exception:
        return dict(getattr(symbol, "__annotations__", {}))


# words


def type_words(kind):
    """A type in words: `int or None`, 'a' or 'b'."""
    if kind in (EMPTY, None, object):
        return ""
    if kind is type(None):
        return "None"
    if isinstance(kind, str):
        return " or ".join(kind.split(" | "))
    if kind is Ellipsis:
        return "..."
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return type_words(args[0])
    if origin is typing.Literal:
        return " or ".join(map(repr, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(type_words, args))
    if origin is not None:
        name = getattr(origin, "__name__", str(origin))
        inner = ", ".join(
            f"[{', '.join(map(type_words, a))}]" if isinstance(a, list) else type_words(a)
            for a in args
        )
        return f"{name}[{inner}]" if inner else name
    return getattr(kind, "__qualname__", None) or str(kind).replace("typing.", "")


def code_words(kind):
    """A type as code, each choice for itself."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return code_words(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(code_words, typing.get_args(kind)))
    if origin is typing.Literal:
        return " or ".join(code(repr(choice)) for choice in typing.get_args(kind))
    return code(type_words(kind))


def value_words(value):
    """A default as one would write it."""
    if value is EMPTY or value is MISSING:
        return ""
    if isinstance(value, Enum):
        return str(value)
    if is_dataclass(value) and not inspect.isclass(value):
        given = [f for f in fields(value) if f.init and getattr(value, f.name) != f.default]
        words = ", ".join(f"{f.name}={value_words(getattr(value, f.name))}" for f in given)
        return f"{type(value).__name__}({words})"
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def code(text):
    """`text` as code, or nothing."""
    return f"`{text}`" if text else ""


def cell(text):
    """`text` as a cell of a table: one line, no bar that would end it."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(columns, rows):
    """A Markdown table. The dashes are each column's share of the width."""
    shares = {2: (30, 70), 3: (24, 30, 46), 4: (18, 24, 14, 44)}[len(columns)]
    lines = [columns, ["-" * share for share in shares], *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def docstring(symbol):
    """The docstring in two parts: what is done, and (exceptions, when) per `Raises` sentence."""
    text = inspect.cleandoc(getattr(symbol, "__doc__", None) or "")
    if is_dataclass(symbol) and text.startswith(f"{symbol.__name__}("):  # made by dataclass
        text = ""
    raised = [(m[1].strip(), m[2].strip()) for m in RAISES.finditer(text)]
    return RAISES.sub("", text).strip(), raised


# functions


def signature(symbol, name):
    """A call of `symbol` with its defaults, in lines of at most WIDTH characters."""
    try:
        given = inspect.signature(symbol)
    except (TypeError, ValueError):
        return f"{name}(...)"
    words, keyword_only = [], False
    for p in given.parameters.values():
        if (
            p.kind is p.KEYWORD_ONLY
            and not keyword_only
            and not any(w.startswith("*") for w in words)
        ):
            words.append("*")
        keyword_only |= p.kind is p.KEYWORD_ONLY
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        words.append(star + p.name + ("" if p.default is EMPTY else "=" + value_words(p.default)))
    result = annotations(symbol).get("return")
    end = ")" + (
        f" -> {type_words(result)}"
        if not inspect.isclass(symbol) and result not in (None, type(None))
        else ""
    )
    lines = [f"{name}("]
    for i, word in enumerate(words):
        word += ", " if i + 1 < len(words) else ""
        if len(lines[-1] + word.rstrip()) > WIDTH and lines[-1].strip() != f"{name}(":
            lines.append("    ")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in [*lines[:-1], lines[-1] + end])


def parameter_rows(symbol, comments, skip=("self", "cls")):
    """A row for each parameter: name, type, default, meaning."""
    hints = annotations(symbol)
    try:
        parameters = inspect.signature(symbol).parameters.values()
    except (TypeError, ValueError):
        return []
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        (
            code(stars.get(p.kind, "") + p.name),
            code_words(hints.get(p.name, p.annotation)),
            code(value_words(p.default)) or ("" if p.kind in stars else "required"),
            comments.get(p.name, ""),
        )
        for p in parameters
        if p.name not in skip
    ]


def raised_words(raised):
    """What is raised, and when."""
    return [f"**Raises** {names}{' ' + when if when else ''}." for names, when in raised]


def function_parts(symbol, name):
    """A function: its call, what it does, its parameters, what it returns and raises."""
    does, raised = docstring(symbol)
    comments = function_comments(symbol)
    parts = [f"```python\n{signature(symbol, name)}\n```", does]
    if rows := parameter_rows(symbol, comments):
        parts.append(table(("Name", "Type", "Default", "Meaning"), rows))
    kind = annotations(symbol).get("return", EMPTY)
    kind, meaning = "" if kind is type(None) else code_words(kind), comments.get("return", "")
    if kind or meaning:
        parts.append(
            "**Returns** "
            + ": ".join(filter(None, [kind, meaning]))
            + ("" if meaning.endswith(".") else ".")
        )
    return parts + raised_words(raised)


# classes


def field_rows(symbol, comments):
    """A row for each field of a dataclass or a named tuple."""
    hints = annotations(symbol)
    if is_dataclass(symbol):
        default = lambda f: (
            f.default if f.default is not MISSING else f.default_factory
        )  # noqa: E731
        given = {f.name: default(f) for f in fields(symbol) if not f.name.startswith("_")}
    else:
        given = {
            name: getattr(symbol, "_field_defaults", {}).get(name, MISSING)
            for name in symbol._fields
        }
    return [
        (
            code(name),
            code_words(hints.get(name, EMPTY)),
            (
                "required"
                if value is MISSING
                else code(value_words(value) + "()" * inspect.isclass(value))
            ),
            comments.get(name, ""),
        )
        for name, value in given.items()
    ]


def function_of(member):
    """The function behind a method, a class method, a property or a cached property."""
    plain = getattr(member, "__func__", member)
    return getattr(plain, "fget", None) or getattr(plain, "func", None) or plain


def member_meaning(symbol, name, member):
    """What a member does: its docstring, or the comment on the line of its name."""
    does, raised = docstring(function_of(member))
    does = does or class_comments(symbol).get(name, "")
    return " ".join([does, *raised_words(raised)]).strip()


def member_rows(symbol, shown=()):
    """A row for each public member that the class defines, or changes and says how."""
    rows = []
    for name, member in vars(symbol).items():
        plain = function_of(member)
        if name in shown or name.startswith("_") and name not in SPECIAL:
            continue
        if not inspect.isfunction(plain):
            continue
        meaning = member_meaning(symbol, name, member)
        inherited = any(name in vars(base) for base in symbol.__mro__[1:])
        if not meaning and (inherited or name in SPECIAL):
            continue
        called = not isinstance(member, property) and not hasattr(member, "func")
        call = own_call(plain, name) if called else name
        rows.append((code(call), code_words(annotations(plain).get("return", EMPTY)), meaning))
    return rows


def own_call(method, name):
    """A method's call without `self`."""
    words = signature(method, name).split("(", 1)[1]
    words = re.sub(r"\s+", " ", re.sub(r"^\s*(self|cls)(,\s*)?", "", words))
    return f"{name}({words}".split(" -> ")[0]


def class_parts(symbol, name):
    """A class: what it is, its fields or the parameters that make it, and its members."""
    does, raised = docstring(symbol)
    comments, made = class_comments(symbol), symbol.__dict__.get("__init__")
    parts, shown = [does], ()
    if issubclass(symbol, Enum):
        rows = [
            (code(f"{name}.{m.name}"), comments.get(m.name) or code(repr(m.value))) for m in symbol
        ]
        return [does, table(("Name", "Meaning"), rows), *raised_words(raised)]
    if is_dataclass(symbol) or hasattr(symbol, "_fields"):
        if rows := field_rows(symbol, comments):
            parts.append(table(("Field", "Type", "Default", "Meaning"), rows))
        shown = set(getattr(symbol, "_fields", ()))
    elif inspect.isfunction(made):
        parts.insert(0, f"```python\n{own_call(made, name)}\n```")
        if rows := parameter_rows(made, function_comments(made)):
            parts.append(table(("Name", "Type", "Default", "Meaning"), rows))
    parts += raised_words(raised)
    if rows := member_rows(symbol, shown):
        parts.append(table(("Member", "Returns", "Meaning"), rows))
    return parts


# commands


def is_command(symbol):
    """Whether a function is a command of typer: some parameter is an option or argument."""
    marks = [
        type(mark).__name__
        for hint in annotations(symbol).values()
        for mark in getattr(hint, "__metadata__", ())
    ]
    return inspect.isfunction(symbol) and bool({"OptionInfo", "ArgumentInfo"} & set(marks))


def command_parts(symbol, name):
    """A command: how it is called, what it does, its arguments and options as `--help` has them."""
    import typer

    app = typer.Typer(add_completion=False)
    app.command()(symbol)
    command = typer.main.get_command(app)
    options = [p for p in command.params if p.param_type_name == "option"]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    places = " ".join(p.metavar or p.name.upper() for p in arguments)
    program = get_config().console_scripts.split("=")[0].strip()
    needed = " ".join(f"{p.opts[0]} {p.metavar or p.name.upper()}" for p in options if p.required)
    call = f"{program} {name.replace('_', '-')} {places} {needed}".strip()
    does, raised = docstring(symbol)
    parts = [f"```sh\n{' '.join(call.split())}{' [OPTIONS]' if options else ''}\n```", does]
    hints, names = annotations(symbol), {}
    names.update({p: code(p.metavar or p.name.upper()) for p in arguments})
    names.update({p: ", ".join(map(code, [*p.opts, *p.secondary_opts])) for p in options})
    rows = [
        (shown, kind_words(p, hints.get(p.name, str)), default_words(p), p.help or "")
        for p, shown in names.items()
    ]
    if rows:
        parts.append(table(("Argument, option", "Type", "Default", "Meaning"), rows))
    return parts + raised_words(raised)


def kind_words(parameter, hint):
    """The type of a command-line parameter; a flag has none."""
    if getattr(parameter, "is_flag", False):
        return "flag"
    kind, *marks = typing.get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
    several = False
    while typing.get_origin(kind) in (list, tuple, typing.Union, types.UnionType):
        several |= typing.get_origin(kind) in (list, tuple)
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    least = next((m.min for m in marks if getattr(m, "min", None) is not None), None)
    most = next((m.max for m in marks if getattr(m, "max", None) is not None), None)
    words = [
        code_words(kind),
        f"{least} or more" * (least is not None),
        f"at most {most}" * (most is not None),
        "one or more" * several,
    ]
    return ", ".join(filter(None, words))


def default_words(parameter):
    """The default of a command-line parameter."""
    if parameter.required:
        return "required"
    value = parameter.default() if callable(parameter.default) else parameter.default
    if value is None or value is False:
        return "" if value is None else "off"
    if value is True:
        return "on"
    return code(" ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))


# what nbdev calls


class TableRenderer:
    """Renders one symbol as Markdown, for `show_doc`."""

    def __init__(self, sym, name=None, title_level=3):
        sym = sym if hasattr(sym, "__signature__") else getattr(sym, "__wrapped__", sym)
        self.symbol = getattr(sym, "fget", None) or getattr(sym, "func", None) or sym
        self.name = name or getattr(self.symbol, "__qualname__", type(self.symbol).__name__)
        self.title_level = title_level

    def parts(self):
        """The Markdown paragraphs below the heading."""
        if is_command(self.symbol):
            return command_parts(self.symbol, self.name)
        if inspect.isclass(self.symbol):
            return class_parts(self.symbol, self.name)
        return function_parts(self.symbol, self.name)

    def source_link(self):
        """A link to the source, if nbdev knows where that is."""
        module = getattr(exported(self.symbol), "__module__", None)
        found = next(
            filter(None, (NbdevLookup()[n] for n in (f"{module}.{self.name}", self.name))), None
        )
        if not isinstance(found, tuple):
            return None
        _, path, url = found
        line = _lineno(self.name, path)
        url += f"#L{line}" if line else ""
        return f'[source]({url}){{target="_blank" style="float:right; font-size:smaller"}}'

    def _repr_markdown_(self):
        heading = f"{'#' * self.title_level} {self.name}"
        return "\n\n".join(filter(None, ["---", self.source_link(), heading, *self.parts()])) + "\n"

    def __repr__(self):
        return "\n\n".join(filter(None, self.parts()))


class LibraryLinks(Processor):
    """Links a name that a command and the library share to the library, but on the commands' page.

    nbdev takes it from settings.ini. By itself nbdev links a name to the first module that has it.
    """

    def begin(self):
        """Find the shared names: {link to the commands' page: link to the library's}."""
        pages = {}
        for symbols in index().values():
            for name, (page, _) in symbols.items():
                pages.setdefault(name.split(".", 2)[-1], []).append(page)
        commands = get_config().console_scripts.split("=")[1].split(":")[0].split(".")[-1]
        self.links = {}
        for found in pages.values():
            other = [page for page in found if not page.startswith(f"{commands}.html")]
            if other and len(other) < len(found):
                self.links.update({p: other[0] for p in found if p not in other})
        stem = Path(getattr(self.nb, "path_", "")).stem
        self.here = re.sub(r"^\d+_", "", stem) == commands

    def relinked(self, text):
        """`text` with the links changed."""
        for old, new in self.links.items():
            text = text.replace(f"/{old})", f"/{new})")
        return text

    def cell(self, cell):
        """Change the links of a cell of text, and of stored Markdown."""
        if self.here:
            return
        if cell.cell_type == "markdown" and cell.get("source"):
            cell.source = self.relinked(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:
                lines = data["text/markdown"]
                lines = [lines] if isinstance(lines, str) else lines
                data["text/markdown"] = [self.relinked(line) for line in lines]
