"""What the tests of this folder want to know of the package's source: each file is parsed once, and walked once."""
from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent.parent / "graphc"
WORD = re.compile(r"[A-Za-z_]\w*")
FIELDS = ("name", "id", "attr", "arg")
DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Function:
    """`parameters`: those that a caller must keep in mind; `self`, and options that have a default, are not counted."""
    name: str
    lines: int
    parameters: int


@dataclass
class Source:
    """A file. `imports`: dotted names of what is imported, for `from m import n` m.n; `inside`: those in functions; `calls`: names that are called; `words`: names that are defined or used, and words of texts,
    docstrings left out; `functions`: by name, those of classes with the class, without those in functions."""
    imports: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    calls: set[str] = field(default_factory=set)
    classes: list[str] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    words: set[str] = field(default_factory=set)

    def read(self, node: ast.AST, in_function: bool = False) -> None:
        for child in ast.iter_child_nodes(node):
            names = list(_imported(child))
            self.imports += names
            self.inside += names if in_function else []
            self.words.update(value for name in FIELDS if isinstance(value := getattr(child, name, None), str))
            if isinstance(child, ast.Constant):
                if isinstance(child.value, str) and not isinstance(node, ast.Expr):
                    self.words.update(WORD.findall(child.value))
                continue
            if isinstance(child, ast.Call):
                self.calls.add(getattr(child.func, "attr", getattr(child.func, "id", "")))
            elif isinstance(child, ast.ClassDef):
                self.classes.append(child.name)
            self.read(child, in_function or isinstance(child, (*DEFINED, ast.Lambda)))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{a.name}" for a in node.names)


def _functions(node: ast.AST, prefix: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield Function(prefix + child.name, child.end_lineno - child.lineno + 1, _parameters(child))
        if isinstance(child, ast.stmt):
            yield from _functions(child, f"{child.name}." if isinstance(child, ast.ClassDef) else "")


def _parameters(f: ast.FunctionDef) -> int:
    plain = [a for a in (*f.args.posonlyargs, *f.args.args) if a.arg not in ("self", "cls")]
    return len(plain) - len(f.args.defaults) + sum(default is None for default in f.args.kw_defaults)


@cache
def sources() -> dict[str, Source]:
    """By path in the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        source = found[path.relative_to(PACKAGE).as_posix()] = Source()
        source.read(tree)
        source.functions = list(_functions(tree, ""))
        source.words |= {path.stem, path.parent.name}
    return found
