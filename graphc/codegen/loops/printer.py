"""Loop functions as indented text, one statement a line.

    scale(x: f32[1024], y: f32[1024]):
      parallel t < 16 "blocks":
        for i in 0..64 by 8:
          v0: f32x8 = load x[t*64 + i]
          v1: f32x8 = mul v0, 2.0
          store y[t*64 + i] = v1
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from graphc.codegen.loops.index import Ix, Sym
from graphc.codegen.loops.loop_ir import (
    Body, Call, CheckIndex, Commit, Compute, Define, FailUnless, For, FunctionIR, If, Load, MatrixDot, MatrixMove,
    MatrixShapes, MatrixZero, Parallel, Prefetch, ReturnIf, Root, Stamp, Store, Val, View, While, contiguous,
    statements)
from graphc.errors import InternalError

INDENT = "  "


def print_function(f: FunctionIR) -> str:
    """The text of a loop function."""
    return "\n".join([f"{f.name}{_signature(f)}:", *_scratches(f), *_body(f.body, INDENT), ""])


def _scratches(f: FunctionIR) -> Iterator[str]:
    for root in f.scratches:
        owner = f' of each "{root.owner.label}"' if root.owner else ""
        yield f"{INDENT}scratch {root.name}: {root.size} {root.dtype}{owner}"


def print_module(functions: Iterable[FunctionIR], main: FunctionIR | None = None) -> str:
    """The text of all the functions, main last."""
    return "\n".join(print_function(f) for f in [*functions, *([main] if main is not None else [])])


def function_key(f: FunctionIR) -> str:
    """Equal for functions that differ in their name only. The text does not show strides of reshaped views, so
    addresses are added."""
    addresses = [f"{s.view.name} {s.view.at(s.index)}" for s in statements(f.body)
                 if isinstance(s, (Load, Store, Prefetch, MatrixMove))]
    return "\n".join([_signature(f), str(f.noalias), *_scratches(f), *_body(f.body, ""), *addresses])


def _signature(f: FunctionIR) -> str:
    parts = [f"{v.name}: {_view_type(v)}" for v in f.views]
    parts += [f"{p.name}: {_range(p)}" for p in f.params]
    return f"({', '.join(parts)})"


def _view_type(v: View) -> str:
    text = f"{v.dtype}[{', '.join(map(str, v.shape))}]"
    return text if v.strides == contiguous(v.shape) else f"{text} by ({', '.join(map(str, v.strides))})"


def _range(p: Sym) -> str:
    times = f" times {p.multiple}" if p.multiple != 1 else ""
    return f"{p.lowers[0][0]}..{p.uppers[0][0]}{times}"


def _body(body: Body, indent: str) -> Iterator[str]:
    for s in body:
        rule = STATEMENTS.get(type(s))
        if rule is None:
            raise InternalError(f"no text for statement {type(s).__name__}", "loop printer")
        yield from rule(s, indent)


# ---- operands
def _defined(*values: Val) -> str:
    return ", ".join(f"{v}: {v.type_text}" for v in values)


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _element(view: View, index: Iterable[Ix]) -> str:
    """x[i, j], or (x + start)[i, j] for a view that starts elsewhere; roots that are not parameters tell where they
    are."""
    name = view.name if view.start == 0 else f"({view.name} + {view.start})"
    return f"{name}[{_list(index)}]"


def _place(root: Root) -> str:
    return f"{root.kind} {root.slot} + {root.offset}" if root.kind not in ("param", "scratch") else root.name


def _argument(view: View) -> str:
    name = _place(view.root)
    return f"{name}: {_view_type(view)}" if view.start == 0 else f"{name} + {view.start}: {_view_type(view)}"


def _access(mask: Val | None, hint: str | None) -> str:
    return (f" mask {mask}" if mask is not None else "") + (f" {hint}" if hint else "")


# ---- statements
def _compute(s: Compute, indent: str) -> Iterator[str]:
    operands = _list([*s.args, *([] if s.attr is None else [s.attr])])
    yield f"{indent}{_defined(s.dst)} = {s.op} {operands}".rstrip()


def _define(s: Define, indent: str) -> Iterator[str]:
    yield f"{indent}{s.symbol} = {s.kind}({_list(s.args)})"


def _load(s: Load, indent: str) -> Iterator[str]:
    where = f"{_element(s.view, s.index)}{_strided(s.view, s.dst)}"
    yield f"{indent}{_defined(s.dst)} = load {where}{_access(s.mask, s.hint)}"


def _store(s: Store, indent: str) -> Iterator[str]:
    yield f"{indent}store {_element(s.view, s.index)}{_strided(s.view, s.value)} = {s.value}{_access(s.mask, s.hint)}"


def _strided(view: View, value: Val) -> str:
    return f" by {view.strides[-1]}" if value.lanes > 1 and view.strides[-1] != 1 else ""


def _prefetch(s: Prefetch, indent: str) -> Iterator[str]:
    yield f"{indent}prefetch {_element(s.view, s.index)}{f' to L{s.level}' if s.level > 1 else ''}"


def _for(s: For, indent: str) -> Iterator[str]:
    step = f" by {s.step}" if s.step != 1 else ""
    unroll = "" if s.unroll is None else " unrolled" if s.unroll is True else f" unrolled by {s.unroll}"
    yield f"{indent}for {s.symbol} in {s.lo}..{s.hi}{step}{unroll}{_carries(s)}:"
    yield from _body(s.body, indent + INDENT)
    yield from _after(s, indent)


def _carries(s: For | While) -> str:
    return " carry " + ", ".join(f"{c}: {c.type_text} = {i}" for c, i in zip(s.carried, s.inits)) if s.inits else ""


def _after(s: For | While, indent: str) -> Iterator[str]:
    if s.inits:
        yield f"{indent}{INDENT}next {_list(s.nexts)}"
        yield f"{indent}results {_defined(*s.results)}"


def _parallel(s: Parallel, indent: str) -> Iterator[str]:
    alone = "" if s.alone is None else f", serial if {s.alone}"
    yield f"{indent}{'serial' if s.serial else 'parallel'} {s.symbol} < {s.count} \"{s.label}\"{alone}:"
    yield from _body(s.body, indent + INDENT)


def _if(s: If, indent: str) -> Iterator[str]:
    yield f"{indent}if {s.condition}:"
    yield from _body(s.then, indent + INDENT)
    if s.otherwise:
        yield f"{indent}else:"
        yield from _body(s.otherwise, indent + INDENT)


def _while(s: While, indent: str) -> Iterator[str]:
    yield f"{indent}while {s.symbol} < {s.limit}{_carries(s)}:"
    yield from _body(s.head, indent + INDENT)
    yield f"{indent}{INDENT}leave unless {s.condition}"
    yield from _body(s.body, indent + INDENT)
    yield from _after(s, indent)


def _call(s: Call, indent: str) -> Iterator[str]:
    yield f"{indent}call {s.callee.name}({_list([*map(_argument, s.views), *s.ints])})"


def _check_index(s: CheckIndex, indent: str) -> Iterator[str]:
    yield f"{indent}{s.symbol} = check {s.value} in 0..{s.size} for node {s.node_id}"


def _fail_unless(s: FailUnless, indent: str) -> Iterator[str]:
    yield f"{indent}fail unless {s.condition} for node {s.node_id} with {s.value}"


def _return_if(s: ReturnIf, indent: str) -> Iterator[str]:
    yield f"{indent}return if {s.reason}"


def _commit(s: Commit, indent: str) -> Iterator[str]:
    yield f"{indent}commit"


def _stamp(s: Stamp, indent: str) -> Iterator[str]:
    yield f"{indent}{'stop' if s.ends else 'start'} clock {s.site}"


def _matrix_shapes(s: MatrixShapes, indent: str) -> Iterator[str]:
    shapes = _list([f"{rows}×{columns}" for rows, columns in zip(s.rows, s.columns)])
    yield f"{indent}matrix registers {shapes or 'given back'}"


def _matrix_move(s: MatrixMove, indent: str) -> Iterator[str]:
    place = f"{s.rows}×{s.columns} of {_element(s.view, s.index)} by {s.step}"
    yield f"{indent}{f'store {place} = m{s.number}' if s.stores else f'm{s.number} = load {place}'}"


def _matrix_zero(s: MatrixZero, indent: str) -> Iterator[str]:
    yield f"{indent}m{s.number} = 0"


def _matrix_dot(s: MatrixDot, indent: str) -> Iterator[str]:
    yield f"{indent}m{s.c} += m{s.a}: {s.types[0]} m{s.b}: {s.types[1]}"


STATEMENTS: dict[type, Callable[[Any, str], Iterator[str]]] = {      # each is called with a statement of its class
    Compute: _compute, Define: _define, Load: _load, Store: _store, Prefetch: _prefetch, For: _for, Parallel: _parallel,
    If: _if, While: _while, Call: _call, CheckIndex: _check_index, FailUnless: _fail_unless, ReturnIf: _return_if,
    Commit: _commit, Stamp: _stamp, MatrixShapes: _matrix_shapes, MatrixMove: _matrix_move, MatrixZero: _matrix_zero,
    MatrixDot: _matrix_dot}
