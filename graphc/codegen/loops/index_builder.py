"""The part of the loop builder that makes indices which are not affine in older ones: minima, quotients, products,
checked values."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd

from graphc.codegen.loops.index import UNBOUNDED, Bound, Ix, Sym, as_ix, lower, upper
from graphc.codegen.loops.loop_ir import Body, CheckIndex, Define, Val
from graphc.errors import InternalError


class Indices:
    """Each method defines a new symbol and records the bounds that are known of it."""

    block: Body
    _symbols: int
    _names: dict[str, int]

    def min_(self, *values: Ix | int) -> Ix:
        """The least of the indices."""
        items = _without_constants(values, min, lambda ix, limit: upper(ix) <= limit)
        if len(items) == 1:
            return items[0]
        return self._define("min", items,
                            self.symbol("min", [Ix(min(map(lower, items)))], items, items, _common(items)))

    def max_(self, *values: Ix | int) -> Ix:
        """The greatest of the indices."""
        items = _without_constants(values, max, lambda ix, limit: lower(ix) >= limit)
        if len(items) == 1:
            return items[0]
        return self._define("max", items,
                            self.symbol("max", items, [Ix(max(map(upper, items)))], items, _common(items)))

    def divmod(self, ix: Ix | int, divisor: int) -> tuple[Ix, Ix]:
        """Quotient (rounded down) and remainder in [0, divisor); divisor > 0."""
        ix = as_ix(ix)
        if ix.const % divisor == 0 and all(c % divisor == 0 for _, c in ix.terms):
            return Ix(ix.const // divisor, tuple((s, c // divisor) for s, c in ix.terms)), Ix()
        if ix.is_const:
            return Ix(ix.const // divisor), Ix(ix.const % divisor)
        quotient = self._quotient(ix, divisor)
        if ix.divisor() % divisor == 0:
            return quotient, Ix()
        exact = ix - quotient * divisor
        common = gcd(ix.divisor(), divisor)
        symbol = self.symbol("r", [Ix(), exact], [Ix(divisor - common), exact], [ix], common)
        return quotient, self._define("remainder", [ix, Ix(divisor)], symbol)

    def product(self, a: Ix | int, b: Ix | int) -> Ix:
        """a * b, also when neither is constant."""
        a, b = as_ix(a), as_ix(b)
        if a.is_const or b.is_const:
            return a * b
        corners = [x * y for x in (lower(a), upper(a)) for y in (lower(b), upper(b))]
        symbol = self.symbol("p", [Ix(min(corners))], [Ix(max(corners))], [a, b], a.divisor() * b.divisor())
        return self._define("product", [a, b], symbol)

    def check_index(self, value: Val, size: Ix | int, node_id: Ix | int) -> Ix:
        """The integer scalar as an index in [0, size); otherwise 0 is used and the call fails, naming node and value.
        size > 0."""
        size = as_ix(size)
        if value.lanes != 1 or not value.dtype.is_int:
            raise InternalError(f"check_index takes an integer scalar, got {value.type_text}", "loops")
        symbol = self.symbol("checked", [Ix()], [size - 1], [size])
        self.block.append(CheckIndex(symbol, value, size, node_id))
        return Ix(0, ((symbol, 1),))

    # ---- helpers
    def symbol(self, name: str, lowers: Sequence[Ix], uppers: Sequence[Ix], parents: Sequence[Ix] = (),
               multiple: int = 1) -> Sym:
        """A new symbol with the known bounds, made from the symbols of `parents`."""
        self._symbols += 1
        return Sym(self.unused(name), self._symbols, [(b, 1) for b in lowers], [(b, 1) for b in uppers], multiple,
                   [s for ix in parents for s, _ in ix.terms])

    def unused(self, name: str) -> str:
        """The name, numbered from its second use on."""
        used = self._names[name] = self._names.get(name, 0) + 1
        return name if used == 1 else f"{name}{used}"

    def _define(self, kind: str, args: Sequence[Ix], symbol: Sym) -> Ix:
        self.block.append(Define(symbol, kind, tuple(args)))
        return Ix(0, ((symbol, 1),))

    def _quotient(self, ix: Ix, divisor: int) -> Ix:
        symbol = self.symbol("q", [], [], [ix])
        symbol.uppers = _quotient_bounds(ix, upper(ix), divisor)
        symbol.lowers = _quotient_bounds(ix - (divisor - 1), lower(ix), divisor)
        return self._define("quotient", [ix, Ix(divisor)], symbol)


def _quotient_bounds(ix: Ix, limit: int, divisor: int) -> tuple[Bound, ...]:
    known = abs(limit) < UNBOUNDED
    return ((ix, divisor), (Ix(limit // divisor), 1)) if known else ((ix, divisor),)


def _common(items: Sequence[Ix]) -> int:
    return gcd(*[ix.divisor() for ix in items])


def _without_constants(values: Sequence[Ix | int], pick: Callable[[list[int]], int],
                       never_matters: Callable[[Ix, int], bool]) -> list[Ix]:
    """The distinct indices with at most one constant, the picked one, and that only if it can matter."""
    items = list(dict.fromkeys(as_ix(v) for v in values))
    constants = [ix.const for ix in items if ix.is_const]
    items = [ix for ix in items if not ix.is_const]
    if constants and not any(never_matters(ix, pick(constants)) for ix in items):
        items.append(Ix(pick(constants)))
    return items
