"""How weights are kept in fewer bits than they compute in: what `store=` of gc.compile and gc.generate takes."""
from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from graphc.dsl.arguments import converted
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.records import dataclass
from graphc.ir.types import DTYPES, DType, i8

ROW_INTEGERS = {"int8": (i8, 127)}              # integers with a scale for each row: their types and the largest in use
STORES = (*(d.name for d in DTYPES if d.is_storage), *ROW_INTEGERS, "int4")
BITS = {"int8": 8, "int4": 4}


@converted
@dataclass(frozen=True)
class IntegerBlocks:
    """`store=` for weights as integers with a scale for each block of `size` neighbours in a row, and with `minimum`
    its least number too: kind "int4" (0.63 bytes a weight with blocks of 32; 0.75 with minima) or "int8". store="int4"
    is `IntegerBlocks("int4", 32)`. A weight with rows that are no multiple of the block stays f32, unless `store` names
    it.

    Raises GraphError for another kind, or a size that is no power of two from 16 to 256.
    """
    kind: str
    size: int = 32
    minimum: bool = False

    def __post_init__(self) -> None:
        if self.kind not in BITS:
            raise GraphError(f'IntegerBlocks are of "int4" or "int8", got {shown(self.kind)}', user_loc())
        if self.size not in SIZES or isinstance(self.size, bool):
            raise GraphError(f"IntegerBlocks have {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]} weights, got "
                             f"{shown(self.size)}", user_loc())

    @property
    def text(self) -> str:
        """In a report."""
        return f"{self.kind} in {self.size}s" + " with minima" * self.minimum

    @property
    def bits(self) -> int:
        return BITS[self.kind]


SIZES = (16, 32, 64, 128, 256)
Kind = str | IntegerBlocks


@dataclass(frozen=True)
class StoreByName:
    """Weights whose names, or whose layers' names, match a pattern (as of fnmatch) are kept as `choices` says of the
    first that does; all others in f32."""
    choices: tuple[tuple[str, Kind | None], ...]

    def of(self, weight: str) -> Kind | None:
        return next((store for pattern, store in self.choices if matches(weight, pattern)), None)


Store = Kind | StoreByName
StoreOption = Store | DType | Mapping[str, Kind | DType | None] | None      # what users give


def matches(weight: str, pattern: str) -> bool:
    return fnmatchcase(weight, pattern) or fnmatchcase(weight, f"{pattern}.*")


def store_choice(store: object) -> Store | None:
    """`store=` as a name, or names by patterns. GraphError unless weights can be kept so."""
    if isinstance(store, StoreByName):
        return store
    if not isinstance(store, Mapping):
        return _kind(store)
    if wrong := [key for key in store if not isinstance(key, str)]:
        raise GraphError(f'store= by name takes patterns, {{"head": "bf16", "layers.*": "int8"}}; got '
                         f"{shown(wrong[0])}", user_loc())
    return StoreByName(tuple((pattern, _kind(value, pattern)) for pattern, value in store.items()))


def _kind(store: object, pattern: str = "") -> Kind | None:
    name = store.name if isinstance(store, DType) else store
    if name is None or isinstance(name, IntegerBlocks):
        return name
    if isinstance(name, str) and name in STORES:
        return IntegerBlocks(name) if name == "int4" else name
    place = f"[{pattern!r}]" * bool(pattern)
    raise GraphError(f"store={place} keeps weights as {', '.join(STORES[:-1])} or {STORES[-1]}, or gc.IntegerBlocks, "
                     f"got {shown(store)}", user_loc())
