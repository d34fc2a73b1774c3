"""graphc's `dataclass` beside the standard library's: the same classes, whose methods are compiled at the first look."""
from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import KW_ONLY, FrozenInstanceError, field
from typing import ClassVar

import pytest

from graphc import records

BOTH = (dataclasses.dataclass, records._dataclass)


def classes(dataclass):
    @dataclass
    class Plain:
        """A point."""
        x: int
        y: float = 2.0
        tags: list = field(default_factory=list)
        kind: ClassVar[str] = "plain"

    @dataclass(frozen=True)
    class Frozen:
        """A frozen one."""
        a: int
        b: str = "b"
        shown: int = field(default=0, repr=False)
        compared: int = field(default=0, compare=False)
        hashed: int = field(default=0, hash=False)
        made: dict = field(default_factory=dict, init=False, compare=False)
        same: int = field(default=7, init=False)

    @dataclass(frozen=True)
    class Derived(Frozen):
        """With more fields, some by name alone, and a step of its own behind the constructor."""
        c: tuple = ()
        _: KW_ONLY
        d: int
        e: int = 5

        def __post_init__(self):
            object.__setattr__(self, "made", {"sum": self.a + self.d})

    @dataclass(frozen=True, eq=False)
    class Identity:
        """Itself alone."""
        a: int = 1

    @dataclass(frozen=True, repr=False)
    class Own:
        """Some methods are its own."""
        a: int

        def __init__(self, a):
            object.__setattr__(self, "a", 2 * a)

        def __eq__(self, other):
            return isinstance(other, Own) and abs(self.a) == abs(other.a)

        def __hash__(self):
            return abs(self.a)

        def __repr__(self):
            return "own"

    @dataclass(frozen=True)
    class OwnEquality:
        """The hash is that of the fields."""
        a: int

        def __eq__(self, other):
            return True

    @dataclass
    class Empty:
        """Nothing."""

    return Plain, Frozen, Derived, Identity, Own, OwnEquality, Empty


THEIRS, OURS = map(classes, BOTH)
CALLS = [("x", ()), ("x", (1,)), ("x", (1, 2)), ("x", (1, 2, [3])), ("x", (1, 2, [3], 4)), ("x", (1, 2, 3, 4, 5, (6,))),
         ("d", (1, 2, 3, 4, 5, (6,))), ("e", (1,)), ("made", (1,)), *(("none", tuple(range(count))) for count in range(5))]


def outcome(cls, name, values):
    """What a call gives: the object's attributes and text, or the error's text."""
    try:
        made = cls(*values, **({} if name == "none" else {name: 9}))
    except TypeError as error:
        return str(error)
    return vars(made), repr(made)


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("number", range(len(OURS)))
def test_constructors_take_and_refuse_the_same(number, few, monkeypatch):
    """Those of the first objects, and the compiled ones."""
    monkeypatch.setattr(records, "FEW", few)
    theirs, ours = THEIRS[number], classes(records._dataclass)[number]
    for call in CALLS:
        assert outcome(ours, *call) == outcome(theirs, *call)
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs)) and ours.__doc__ == theirs.__doc__
    assert ours.__match_args__ == theirs.__match_args__ and [f.name for f in dataclasses.fields(ours)] == [
        f.name for f in dataclasses.fields(theirs)]
    for call in CALLS:
        assert outcome(ours, *call) == outcome(theirs, *call)


def test_factories_make_a_value_for_each_object():
    a, b = OURS[0](1), OURS[0](1)
    a.tags.append(1)
    a.x = 5
    assert (a.x, a.tags, b.tags, a == b) == (5, [1], [], False) and OURS[0].__hash__ is None


@pytest.mark.parametrize("family", [THEIRS, OURS])
def test_equality_and_hash(family):
    plain, frozen, derived, identity, own, own_equality, empty = family
    assert frozen(1) == frozen(1, compared=3) and frozen(1) != frozen(1, hashed=3) and frozen(1) != frozen(2)
    assert hash(frozen(1)) == hash(frozen(1, hashed=3)) == hash((1, "b", 0, 7))
    assert frozen(1) != derived(1, d=1) and frozen(1).__eq__(1) is NotImplemented
    assert identity() != identity() and len({identity(), identity()}) == 2
    assert own(1) == own(-1) and hash(own(-1)) == 2 and repr(own(1)) == "own"
    assert own_equality(1) == 3 and hash(own_equality(1)) == hash((1,))
    assert empty() == empty() and plain(1) == plain(1, 2.0, [])
    nan = float("nan")          # the same object is equal to itself, as in tuples; the standard library's from 3.13 on is not
    assert family is THEIRS or frozen(nan) == frozen(nan) != frozen(float("nan"))


@pytest.mark.parametrize("family", [THEIRS, OURS])
def test_frozen_ones_do_not_change(family):
    made = family[2](1, d=2)
    for name in ("a", "d", "made", "other"):
        with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(made, name, 3)
        with pytest.raises(FrozenInstanceError, match=f"cannot delete field '{name}'"):
            delattr(made, name)

    class Free(family[1]):
        pass
    free = Free(1)
    free.other = 2
    del free.other
    with pytest.raises(FrozenInstanceError):
        free.a = 2


def test_replace_copy_and_pickle():
    made = Named(1, by_name=3)
    assert dataclasses.replace(made, a=4) == Named(4, by_name=3) and dataclasses.asdict(made) == {"a": 1, "by_name": 3}
    for again in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert again == made and hash(again) == hash(made) and repr(again) == "Named(a=1, by_name=3)"


@records.dataclass(frozen=True)
class Named:
    """Where pickle finds it."""
    a: int
    by_name: int = field(kw_only=True)


def test_a_method_is_compiled_at_the_first_look():
    made = classes(records._dataclass)[1]
    later = [name for name, method in vars(made).items() if isinstance(method, records._CompiledLater)]
    assert sorted(later) == ["__eq__", "__hash__", "__init__"]
    assert inspect.isfunction(made.__eq__) and inspect.isfunction(vars(made)["__eq__"])
    one, *_ = [made(n) for n in range(1, records.FEW + 2)]
    assert inspect.isfunction(vars(made)["__init__"]) and made.__init__.__module__ == __name__
    assert isinstance(vars(made)["__hash__"], records._CompiledLater) and {one: 2}[made(1)] == 2
    assert inspect.isfunction(vars(made)["__hash__"])


def test_an_object_that_holds_itself_prints():
    one = OURS[0](1)
    one.tags.append(one)
    assert repr(one).endswith("Plain(x=1, y=2.0, tags=[...])")


def test_others_derive_from_ours_by_the_standard_decorator():
    """As operators of users do, which derive from graphc's."""
    @records._dataclass(frozen=True)
    class Base:
        a: int

    @dataclasses.dataclass(frozen=True)
    class Theirs(Base):
        b: int = 2

    @records._dataclass(frozen=True)
    class Again(Theirs):
        c: int = 3
    made = Again(1)
    assert (made.a, made.b, made.c) == (1, 2, 3) and made == Again(1) and hash(Theirs(1)) == hash(Theirs(1, 2))
    for name in "abc":
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, 0)


@pytest.mark.parametrize("decorator", BOTH)
@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_and_other_dataclasses_do_not_mix(decorator, frozen):
    @records._dataclass(frozen=frozen)
    class Base:
        a: int
    assert Base.__dataclass_params__.frozen is frozen and Base.__dataclass_params__.eq
    with pytest.raises(TypeError, match="frozen"):
        @decorator(frozen=not frozen)
        class Derived(Base):
            b: int
