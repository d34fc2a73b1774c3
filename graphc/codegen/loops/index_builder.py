"""The part of the loop builder that makes indices which are not affine in older ones: minima, quotients, products,
checked values."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd

from graphc.codegen.loops.index import Ix, Sym, as_ix
from graphc.codegen.loops.index_proofs import UNBOUNDED, at_least, at_most, lower, quotient_above, upper, uppers
from graphc.codegen.loops.loop_ir import Body, CheckIndex, Define, Val
from graphc.errors import InternalError, Unsized
from graphc.ir.dims import Dim, Poly, content, exact_quotient, largest
from graphc.ir.size_proofs import is_nonnegative


class Indices:
    """Each method defines a new symbol and records the bounds that are known of it."""

    block: Body
    _symbols: int
    _names: dict[str, int]

    def min_(self, *values: Ix | Dim) -> Ix:
        """The least of the indices."""
        items = _without_constants(values, at_most)
        if len(items) == 1:
            return items[0]
        symbol = self.symbol("min", [Ix(min(map(lower, items)))], items, items, _common(items))
        return self._define("min", items, _chosen(symbol, items, is_least=True))

    def max_(self, *values: Ix | Dim) -> Ix:
        """The greatest of the indices."""
        items = _without_constants(values, at_least)
        if len(items) == 1:
            return items[0]
        symbol = self.symbol("max", items, _above_all(items), items, _common(items))
        return self._define("max", items, _chosen(symbol, items, is_least=False))

    def divmod(self, ix: Ix | Dim, divisor: Dim) -> tuple[Ix, Ix]:
        """Quotient (rounded down) and remainder in [0, divisor); divisor > 0. Unsized where that is not known."""
        ix = as_ix(ix)
        if isinstance(divisor, Poly) and not is_nonnegative(divisor - 1):
            raise Unsized(f"{divisor}, by which an index is divided, may be 0")
        exact = _divided(ix, divisor)
        if exact is not None:
            return exact, Ix()
        if ix.is_const and isinstance(divisor, int):
            if isinstance(ix.const, Poly) and is_nonnegative(divisor - 1 - ix.const) and is_nonnegative(ix.const):
                return Ix(), ix
            return Ix(ix.const // divisor), Ix(ix.const % divisor)
        quotient = self._quotient(ix, divisor)
        if isinstance(divisor, int) and ix.divisor() % divisor == 0:
            return quotient, Ix()
        rest = ix - quotient * divisor
        common = gcd(ix.divisor(), content(divisor))
        symbol = self.symbol("r", [Ix(), rest], [Ix(divisor - common), rest], [ix], common)
        symbol.rest = rest
        return quotient, self._define("remainder", [ix, Ix(divisor)], symbol)

    def product(self, a: Ix | Dim, b: Ix | Dim) -> Ix:
        """a * b, also when neither is constant."""
        a, b = as_ix(a), as_ix(b)
        if a.is_const or b.is_const:
            return a * b
        corners = [x * y for x in (lower(a), upper(a)) for y in (lower(b), upper(b))]
        above: list[Ix] = [Ix(max(corners))]
        if min(corners) >= 0:
            above += [Ix(x * y) for x in uppers(a) for y in uppers(b) if isinstance(x * y, Poly)]
        symbol = self.symbol("p", [Ix(min(corners))], above, [a, b], a.divisor() * b.divisor())
        return self._define("product", [a, b], symbol)

    def check_index(self, value: Val, size: Ix | Dim, node_id: Ix | int) -> Ix:
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

    def _quotient(self, ix: Ix, divisor: Dim) -> Ix:
        symbol = self.symbol("q", [], [], [ix])
        symbol.sized = symbol.sized or ix.is_sized or isinstance(divisor, Poly)
        below, least = ix - (divisor - gcd(ix.divisor(), content(divisor))), lower(ix)
        least = 0 if least < 0 and at_least(ix, 0) else least
        symbol.uppers = ((ix, divisor), *[(Ix(q), 1) for q in _quotients_above(ix, divisor)])
        symbol.lowers = ((below, divisor), *[(Ix(q), 1) for q in _quotients_below(least, divisor)])
        return self._define("quotient", [ix, Ix(divisor)], symbol)


def _quotients_above(ix: Ix, divisor: Dim) -> list[Dim]:
    """Sizes that the quotient does not exceed."""
    most = upper(ix)
    limits: list[Dim] = [most] * (abs(most) < UNBOUNDED)
    if ix.is_sized:
        limits += [limit for limit in uppers(ix) if isinstance(limit, Poly)]
    quotients = [quotient_above(limit, divisor) for limit in limits]
    return [q for q in quotients if q is not None]


def _quotients_below(least: int, divisor: Dim) -> list[Dim]:
    """Sizes that the quotient does not fall below, where the dividend is at least `least`."""
    if abs(least) >= UNBOUNDED:
        return []
    return [least // divisor if isinstance(divisor, int) else min(least, 0)]


def _divided(ix: Ix, divisor: Dim) -> Ix | None:
    """The quotient, if each part of the index is a multiple."""
    const = exact_quotient(ix.const, divisor)
    parts = [(symbol, exact_quotient(c, divisor)) for symbol, c in ix.terms]
    if const is None or any(c is None for _, c in parts):
        return None
    return Ix(const, tuple([(symbol, c) for symbol, c in parts if c is not None]))


def _chosen(symbol: Sym, items: Sequence[Ix], is_least: bool) -> Sym:
    """The symbol, which knows its items: all bounds together may say more than the bounds that it has of its own."""
    symbol.choices, symbol.is_least = tuple(items), is_least
    return symbol


def _common(items: Sequence[Ix]) -> int:
    return gcd(*[ix.divisor() for ix in items])


def _above_all(items: Sequence[Ix]) -> list[Ix]:
    """Constants that no item exceeds."""
    number = max(map(upper, items))
    limits = [next((limit for limit in uppers(ix) if isinstance(limit, Poly)), upper(ix)) for ix in items]
    size = largest(*limits) if UNBOUNDED not in limits else number
    return [Ix(number)] + [Ix(size)] * isinstance(size, Poly)


def _without_constants(values: Sequence[Ix | Dim], decided: Callable[[Ix, Dim], bool]) -> list[Ix]:
    """The distinct indices, then those constants that can matter: `decided(ix, limit)` says that the index alone
    does, whatever else is known."""
    items = list(dict.fromkeys(as_ix(v) for v in values))
    constants = [ix for ix in items if ix.is_const]
    items = [ix for ix in items if not ix.is_const]
    for k, constant in enumerate(constants):
        others = items + constants[k + 1:]
        if not any(decided(ix, constant.const) for ix in others):
            items.append(constant)
    return items
