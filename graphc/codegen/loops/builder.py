"""The loop IR's builder: `Function` holds a body of statements and has a method for each kind of statement.

    f = Function("scale")
    x, y = f.view("x", f32, (n,)), f.view("y", f32, (n,))
    with f.parallel(n // 64, "blocks") as t:
        with f.loop(0, 64, step=8) as L:
            i = t * 64 + L.index
            f.store(y, [i], f.load(x, [i], lanes=8) * 2.0)

Nesting in the program is nesting here. Mistakes in the use of the builder are bugs of a lowering: InternalError.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import gcd, prod

from graphc.codegen.loops.arithmetic import Arithmetic
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.loops.index_builder import Indices
from graphc.codegen.loops.index_proofs import upper, uppers
from graphc.codegen.loops.matrices import Matrices
from graphc.codegen.loops.loop_ir import (
    Alignment, Body, Call, Commit, FailUnless, For, FunctionIR, If, Load, Parallel, Prefetch, ReturnIf, Root, Stamp,
    Store, Val, View, While, contiguous)
from graphc.errors import InternalError, Unsized
from graphc.ir.dims import Dim, Poly, static_dim
from graphc.ir.types import BY_NAME, DType, bool_
from graphc.schedule.view import span

__all__ = ["LoopFunction", "Ix", "Val", "View"]

INDEX_LIMIT = 1 << 40
SPACES = ("arena", "const", "input", "output", "state")
HINTS = (None, "nontemporal")


class ForLoop:
    """An open counted loop: `index`, the values `carried` into a trip, `next` for the following one; afterwards
    `results`."""

    def __init__(self, function: LoopFunction, statement: For | While) -> None:
        self._function, self._statement = function, statement
        self.index = Ix(0, ((statement.symbol, 1),))
        self.carried = statement.carried

    def next(self, *values: Val) -> None:
        """The carried values of the next trip, in order."""
        types = [(v.dtype, v.lanes) for v in values]
        if types != [(c.dtype, c.lanes) for c in self.carried]:
            raise InternalError(f"loop carries {[c.type_text for c in self.carried]}, next got "
                                f"{[v.type_text for v in values]}",
                                "loops")
        self._statement.nexts = values

    @property
    def results(self) -> tuple[Val, ...]:
        return self._statement.results


class WhileBlock(ForLoop):
    """An open bounded while loop: like `ForLoop`; `condition` first, then the rest of the trip."""

    def __init__(self, function: LoopFunction, statement: While) -> None:
        super().__init__(function, statement)
        self._while = statement

    def condition(self, holds: Val) -> None:
        """Leaves the loop unless the scalar bool holds; everything before it runs once more than what follows."""
        if holds.dtype is not bool_ or holds.lanes != 1 or self._while.condition is not None:
            raise InternalError(f"a while loop has one condition, a scalar bool; got {holds.type_text}", "loops")
        self._while.condition = holds
        self._function.block = self._while.body

    @property
    def count(self) -> Ix:
        """How many whole trips were made."""
        return Ix(0, ((self._while.count, 1),))


class LoopFunction(FunctionIR, Arithmetic, Indices, Matrices):
    """A loop function under construction, and the finished IR: parameters, `body`.

    `noalias=True` promises that no two view parameters overlap.
    """

    def __init__(self, name: str, noalias: bool = False) -> None:
        super().__init__(name, noalias)
        self.block = self.body                  # where statements go now
        self._values = 0
        self._names: dict[str, int] = {}
        self._symbols = 0
        self._parallel: Parallel | None = None

    # ---- parameters and memory
    def view(self, name: str, dtype: DType, shape: Sequence[Dim], strides: Sequence[Dim] | None = None) -> View:
        """A view parameter: the caller passes the address of element [0, …]. Default strides: contiguous, last axis
        fastest."""
        shape, strides = tuple(shape), tuple(contiguous(shape) if strides is None else strides)
        low, high = span(shape, strides)
        view = View(Root(name, "param", BY_NAME[dtype.name], low, high - low + 1), shape, strides)
        self.views.append(view)
        return view

    def param(self, name: str, lo: Dim = -INDEX_LIMIT, hi: Dim = INDEX_LIMIT, multiple: int = 1) -> Ix:
        """An i64 parameter; the caller passes a multiple of `multiple` in [lo, hi]."""
        symbol = self.symbol(name, [Ix(lo)], [Ix(hi)], multiple=multiple)
        self.params.append(symbol)
        return Ix(0, ((symbol, 1),))

    def scratch(self, name: str, dtype: DType, shape: Sequence[Dim]) -> View:
        """Uninitialised memory of this size, 64-byte aligned: of the thread that runs the tile, or (outside a parallel
        loop) of the thread that runs the function, and then visible to its tiles."""
        shape = tuple(shape)
        root = Root(self.unused(name), "scratch", BY_NAME[dtype.name], 0, prod(shape), owner=self._parallel)
        self.scratches.append(root)
        return View(root, shape, contiguous(shape))

    def buffer(self, space: str, slot: int, offset: Dim, dtype: DType, shape: Sequence[Dim],
               strides: Sequence[Dim] | None = None) -> View:
        """main's access to memory. Element [0, …] is `offset` bytes into the arena, the constants, or array number
        `slot` of input, output, state."""
        if space not in SPACES:
            raise InternalError(f"unknown space {space!r}; one of {', '.join(SPACES)}", "loops")
        shape = tuple(shape)
        strides = tuple(contiguous(shape) if strides is None else strides)
        low, high = span(shape, strides)
        name = f"{space}{slot}" if space in SPACES[2:] else f"{space}+{offset}"
        return View(Root(name, space, BY_NAME[dtype.name], low, high - low + 1, slot, offset), shape, strides)

    def reinterpret(self, view: View, shape: Sequence[Dim], strides: Sequence[Dim]) -> View:
        """The same start, another shape and strides."""
        return View(view.root, tuple(shape), tuple(strides), view.start, view.dtype)

    def load(self, view: View, index: Sequence[Ix | Dim], lanes: int = 1, mask: Val | None = None,
             hint: str | None = None) -> Val:
        """`lanes` elements along the last dimension, from `index` on; masked-off lanes are 0 and are not touched."""
        index = self._access(view, index, lanes, mask, hint)
        dst = Val(self, view.dtype, lanes, self._values)
        self._values += 1
        self.block.append(Load(dst, view, index, mask, hint))
        return dst

    def store(self, view: View, index: Sequence[Ix | Dim], value: Val, mask: Val | None = None,
              hint: str | None = None) -> None:
        """Writes the lanes of `value` along the last dimension, from `index` on; masked-off lanes are not touched."""
        index = self._access(view, index, value.lanes, mask, hint)
        if value.dtype is not view.dtype:
            raise InternalError(f"store of {value.type_text} into {view.name} of {view.dtype}", "loops")
        self.written.add(view.root)
        self.block.append(Store(value, view, index, mask, hint))

    def is_aligned(self, view: View, nbytes: int) -> Val:
        """Whether the address of the view's first element is a multiple of `nbytes`, a power of two."""
        return self._emit("is_aligned", bool_, 1, (), Alignment(view, nbytes))

    def prefetch(self, view: View, index: Sequence[Ix | Dim], level: int = 1) -> None:
        """Asks for the cache line of an element, into the cache of that level; any index is allowed."""
        self.block.append(Prefetch(view, tuple([as_ix(i) for i in index]), level))

    # ---- checks
    def fail_unless(self, condition: Val, node_id: Ix | int, value: Val) -> None:
        """The call fails, naming node and integer scalar `value`, unless the scalar bool holds."""
        self.block.append(FailUnless(condition, node_id, value))

    def return_if_failed(self) -> None:
        """main only: returns when a check has failed."""
        self.block.append(ReturnIf("failed"))

    def stamp(self, site: int, ends: bool) -> None:
        """main only: starts or stops the clock of a call site."""
        self.block.append(Stamp(site, ends))

    def return_if_cancelled(self) -> None:
        """main only: returns when the caller has asked for it."""
        self.block.append(ReturnIf("cancelled"))

    def commit(self) -> None:
        """main only: state is written from here on."""
        self.block.append(Commit())

    # ---- control
    @contextmanager
    def loop(self, lo: Ix | Dim, hi: Ix | Dim, step: int = 1, carry: Sequence[Val] = (),
             unroll: bool | int | None = None, name: str = "i") -> Iterator[ForLoop]:
        """lo, lo + step, … < hi. unroll=True: no loop remains (the trip count must be a number); unroll=k: k trips at a
        time."""
        lo, hi = as_ix(lo), as_ix(hi)
        last = hi - (step if (hi - lo).divisor() % step == 0 else 1)
        bounds = [last, *(_last_trips(lo.const, hi, step) if lo.is_const and step > 1 else [])]
        symbol = self.symbol(name, [lo], bounds, [lo, hi], multiple=gcd(lo.divisor(), step))
        statement = For(symbol, lo, hi, step, tuple(carry), self._fresh(carry), unroll)
        if unroll is True and (hi - lo).is_const:
            static_dim((hi - lo).const)
        if step <= 0 or unroll is True and statement.trips() is None:
            raise InternalError(f"loop over [{lo}, {hi}) by {step} cannot be built (unroll={unroll})", "loops")
        with self._nested(statement, statement.body):
            yield ForLoop(self, statement)
        self._close(statement)

    @contextmanager
    def while_(self, limit: Ix | Dim, carry: Sequence[Val] = (), name: str = "w") -> Iterator[WhileBlock]:
        """At most `limit` trips; see `WhileLoop`."""
        limit = as_ix(limit)
        symbol = self.symbol(name, [Ix()], [limit - 1], [limit])
        count = self.symbol(f"{name}_count", [Ix()], [limit], [limit])
        statement = While(symbol, count, limit, tuple(carry), self._fresh(carry))
        with self._nested(statement, statement.head):
            yield WhileBlock(self, statement)
        if statement.condition is None:
            raise InternalError("a while loop needs its condition", "loops")
        self._close(statement)

    @contextmanager
    def parallel(self, count: Ix | Dim, label: str = "tiles", serial: bool | Val = False) -> Iterator[Ix]:
        """`count` tiles in any order on any threads; they must write disjoint memory. serial: in order, on the
        caller; a scalar bool decides it where the count is known at run time only."""
        count = as_ix(count)
        if self._parallel is not None:
            raise InternalError(f"parallel {label!r} inside parallel {self._parallel.label!r}", "loops")
        symbol = self.symbol("t", [Ix()], [count - 1], [count])
        alone = serial if isinstance(serial, Val) else None
        statement = Parallel(symbol, count, label, serial is True or count == 1, alone)
        self._parallel = statement
        try:
            with self._nested(statement, statement.body):
                yield Ix(0, ((symbol, 1),))
        finally:
            self._parallel = None

    @contextmanager
    def first_in_tiles(self) -> Iterator[tuple[Ix, Dim]]:
        """Of a finished function: what each tile of its last parallel loop does first; tile and number of tiles. Once,
        at its end, where it has no such loop (or one of a number of tiles that depends on parameters).
        """
        statement = next((s for s in reversed(self.body) if type(s) is Parallel and not s.serial and s.count.is_const),
                         None)
        added: Body = []
        self.block, self._parallel = added, statement
        try:
            yield (Ix(), 1) if statement is None else (Ix(0, ((statement.symbol, 1),)), statement.count.const)
        finally:
            self.block, self._parallel = self.body, None
        if statement is None:
            self.body += added
        else:
            statement.body[:0] = added

    @contextmanager
    def if_(self, condition: Val) -> Iterator[None]:
        """The body runs when the scalar bool holds."""
        if condition.dtype is not bool_ or condition.lanes != 1:
            raise InternalError(f"if_ takes a scalar bool, got {condition.type_text}", "loops")
        statement = If(condition)
        with self._nested(statement, statement.then):
            yield

    @contextmanager
    def else_(self) -> Iterator[None]:
        """Directly after an `if_`: the body runs when it did not."""
        statement = self.block[-1] if self.block else None
        if not isinstance(statement, If) or statement.otherwise:
            raise InternalError("else_ stands directly after if_", "loops")
        outer, self.block = self.block, statement.otherwise
        yield
        self.block = outer

    def call(self, callee: FunctionIR, arguments: Sequence[View | Ix | Dim]) -> None:
        """Runs another function: views for its view parameters, indices for its integer parameters, each kind in
        order."""
        views = tuple(a for a in arguments if isinstance(a, View))
        ints = tuple(as_ix(a) for a in arguments if not isinstance(a, View))
        if len(views) != len(callee.views) or len(ints) != len(callee.params):
            raise InternalError(f"{callee.name} takes {len(callee.views)} views and {len(callee.params)} integers, "
                                f"the call gives {len(views)} and {len(ints)}", "loops")
        for given, wanted in zip(views, callee.views):
            if (given.dtype is not wanted.dtype or len(given.shape) != len(wanted.shape)
                or not _strides_fit(given, wanted)):
                raise _misfit(callee, given, wanted)
        self.written.update(g.root for g, w in zip(views, callee.views) if w.root in callee.written)
        self.block.append(Call(callee, views, ints))

    # ---- helpers
    @contextmanager
    def _nested(self, statement: For | While | Parallel | If, body: Body) -> Iterator[None]:
        outer = self.block
        outer.append(statement)
        self.block = body
        try:
            yield
        finally:
            self.block = outer

    def _close(self, statement: For | While) -> None:
        if len(statement.nexts) != len(statement.inits):
            raise InternalError(f"a loop with {len(statement.inits)} carried values needs next() with as many", "loops")
        statement.results = self._fresh(statement.inits)

    def _fresh(self, like: Iterable[Val]) -> tuple[Val, ...]:
        fresh = []
        for value in like:
            fresh.append(Val(self, value.dtype, value.lanes, self._values))
            self._values += 1
        return tuple(fresh)

    def _access(self, view: View, index: Sequence[Ix | Dim], lanes: int, mask: Val | None,
                hint: str | None) -> tuple[Ix, ...]:
        if len(index) != len(view.shape):
            raise InternalError(f"{len(index)} indices for {view.name} of {len(view.shape)} dimensions", "loops")
        if lanes > 1 and not index or hint not in HINTS:
            raise InternalError(f"access to {view.name}: lanes {lanes}, hint {hint!r}", "loops")
        if mask is not None and (mask.dtype is not bool_ or mask.lanes != lanes):
            raise InternalError(f"mask {mask.type_text} for {lanes} lanes of {view.name}", "loops")
        return tuple([i if isinstance(i, Ix) else as_ix(i) for i in index])


def _last_trips(lo: Dim, hi: Ix, step: int) -> list[Ix]:
    """Constants that the last index of a loop from `lo` on does not exceed."""
    limits: list[Dim] = [upper(hi)]
    if hi.is_sized:
        limits += [limit for limit in uppers(hi) if isinstance(limit, Poly)]
    return [Ix(lo + (limit - 1 - lo) // step * step) for limit in limits]


def _misfit(callee: FunctionIR, given: View, wanted: View) -> InternalError | Unsized:
    """Of sizes that are not numbers it may be that they are equal, though not seen to be."""
    text = (f"call of {callee.name}: {given.name} {given.dtype}{given.shape}/{given.strides} given for {wanted.name} "
            f"{wanted.dtype}{wanted.shape}/{wanted.strides}")
    sized = any(isinstance(n, Poly) for view in (given, wanted) for n in (*view.shape, *view.strides))
    return Unsized(text) if sized else InternalError(text, "loops")


def _strides_fit(given: View, wanted: View) -> bool:
    return all(g == w or n == 1 or n == 0 for g, w, n in zip(given.strides, wanted.strides, wanted.shape))
