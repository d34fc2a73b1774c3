"""What files compute of a named size: as numbers, and as the size of an array, where it is none that floats round."""
import math

import numpy as np
import pytest
from small_onnx import model, node

import graphc as gc

SIZES = (1, 2, 5, 6, 7, 12)
CONSTANTS = {"two": np.float32(2), "half": np.float32(0.5), "seven": np.float32(7), "tenth": np.float32(0.1), "i1": np.array(1), "i2": np.array(2),
             "i3": np.array(3), "less": np.array(-2), "i100": np.array(100), "zero": np.array(0), "no": np.float32(0), "one": np.float32(1)}
# nodes as (operator, operands[, attributes]), of n and its float f; ".": what the node before gives. What that is.
FLOATS = {
    "half": ([("Div", "f two")], lambda n: n / 2), "half by product": ([("Mul", "half f")], lambda n: n / 2),
    "three halves less one": ([("Mul", "f half"), ("Sub", ". one"), ("Sub", "f .")], lambda n: n - (n / 2 - 1)),
    "rounded on the way": ([("Div", "f seven"), ("Mul", ". seven"), ("Div", ". seven")], lambda n: n / 7),
    "a tenth": ([("Mul", "f tenth")], lambda n: n / 10), "rest": ([("Mod", "f two", {"fmod": 1})], lambda n: n % 2),
    "below": ([("Div", "one f")], lambda n: 1 / n), "to even": ([("Div", "f two"), ("Round", ".")], lambda n: round(n / 2)),
    "larger than a half": ([("Div", "f two"), ("Greater", ". two"), ("Cast", ".", {"to": 1})], lambda n: float(n > 4)),
    "a half or two": ([("Div", "f two"), ("Max", ". two")], lambda n: max(n / 2, 2)),
    "is there": ([("Cast", "n", {"to": 9}), ("Cast", ".", {"to": 1})], lambda n: 1)}
WHOLE = {
    "half up": ([("Div", "f two"), ("Ceil", ".")], lambda n: math.ceil(n / 2)), "half down": ([("Mul", "f half"), ("Floor", ".")], lambda n: n // 2),
    "half of an integer": ([("Div", "n i2")], lambda n: n // 2), "nearest seventh": ([("Div", "f seven"), ("Round", ".")], lambda n: round(n / 7)),
    "cut": ([("Div", "f seven")], lambda n: n // 7), "three halves": ([("Div", "f two"), ("Add", ". f"), ("Floor", ".")], lambda n: n + n // 2),
    "rest of an integer": ([("Mod", "n i3")], lambda n: n % 3),
    "up to threes": ([("Mod", "n i3"), ("Sub", "i3 ."), ("Mod", ". i3"), ("Add", ". n")], lambda n: -(-n // 3) * 3)}
BELOW = {
    "below 0": ([("Neg", "n")], lambda n: -n), "half of it": ([("Neg", "n"), ("Div", ". i2")], lambda n: -(n // 2)),
    "rest of it": ([("Neg", "n"), ("Mod", ". i3")], lambda n: -n % 3), "its own rest": ([("Neg", "n"), ("Mod", ". i3", {"fmod": 1})], lambda n: -(n % 3)),
    "half by less": ([("Div", "n less")], lambda n: -(n // 2)), "greatest": ([("Neg", "n"), ("Max", ". less")], lambda n: max(-n, -2)),
    "least": ([("Sub", "i3 n"), ("Min", ". zero")], lambda n: min(3 - n, 0)), "apart": ([("Sub", "i3 n"), ("Abs", ".")], lambda n: abs(3 - n)),
    "bytes": ([("Mul", "n i100"), ("Cast", ".", {"to": 3}), ("Cast", ".", {"to": 7})], lambda n: (100 * n + 128) % 256 - 128)}


def chains(cases, ending=()):
    """A model with an output for each of the cases."""
    nodes, outputs = [node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Cast", "n", "f", to=1)], []
    for number, (steps, _) in enumerate(cases):
        last = ""
        for i, (op, operands, *how) in enumerate([*steps, *ending]):
            given = " ".join(last if word == "." else word for word in operands.split())
            last = f"v{number}_{i}"
            nodes.append(node(op, given, last, **(how[0] if how else {})))
        outputs.append((last, None))
    return model(nodes, [("x", ["N"])], outputs, {**CONSTANTS, "axis": np.array([0])})


def test_as_numbers():
    cases = [*FLOATS.values(), *WHOLE.values(), *BELOW.values()]
    run = gc.compile(gc.from_onnx(chains(cases, [("Cast", ".", {"to": 1})])))
    names = [*FLOATS, *WHOLE, *BELOW]
    for n in SIZES:
        found = dict(zip(names, run(np.zeros(n, "f")).values(), strict=True))
        expect = {name: function(n) for name, (_, function) in zip(names, cases)} | {"cut": n / 7}
        assert found == pytest.approx(expect, rel=1e-6)


def test_as_sizes():
    run = gc.compile(gc.from_onnx(chains(WHOLE.values(), [("Cast", ".", {"to": 7}), ("Unsqueeze", ". axis"), ("Expand", "one .")])))
    for n in SIZES:
        found = [a.size for a in run(np.zeros(n, "f")).values()]
        assert found == [function(n) for _, function in WHOLE.values()]


@pytest.mark.parametrize("step", [2.0, 0.5, -1.0])
def test_ranges_of_floats(step):
    start = np.float32(4 if step < 0 else 0.5)
    made = model([node("Shape", "x", "s"), node("Squeeze", "s", "n"), node("Cast", "n", "f", to=1), node("Div", "f two", "h"),
                  node("Range", "start h step", "y")], [("x", ["N"])], [("y", [None])], {"two": np.float32(2), "start": start, "step": np.float32(step)})
    run = gc.compile(gc.from_onnx(made))
    for n in (3, 4, 5):
        np.testing.assert_array_equal(run(np.zeros(n, "f")), np.arange(start, n / 2, step, np.float32))


def test_what_is_divided_is_not_below_0():
    """Integers are divided to zero, sizes of arrays downwards: a call in which that is not the same is refused."""
    made = model([node("Shape", "x", "s"), node("Sub", "s six", "d"), node("Div", "d two", "y")], [("x", ["N"])], [("y", [1], "i64")],
                 {"six": np.array([6]), "two": np.array([2])})
    run = gc.compile(gc.from_onnx(made))
    assert run(np.zeros(9, "f")) == 1
    with pytest.raises(gc.GraphError, match="none below 0 is: N - 6"):
        run(np.zeros(5, "f"))
    assert gc.compile(gc.from_onnx(made, sizes={"N": 3}))(np.zeros(3, "f")) == -1


def test_a_number_is_less_than_what_it_is_divided_by():
    """As torch.export writes places behind a roll: 2 % n and -2 % n."""
    made = model([node("Shape", "x", "s"), node("Mod", "two s", "a"), node("Mod", "less s", "b"), node("Concat", "a b", "y", axis=0)],
                 [("x", ["N"])], [("y", [2], "i64")], {"two": np.array([2]), "less": np.array([-2])})
    run = gc.compile(gc.from_onnx(made))
    assert run(np.zeros(3, "f")).tolist() == [2, 1] and run(np.zeros(9, "f")).tolist() == [2, 7]
    with pytest.raises(gc.GraphError, match="none below 0 is: N - 3"):
        run(np.zeros(2, "f"))


READ = {
    "bounds": ([node("Mul", "x f", "t"), node("Clip", "t least f", "y")], lambda x, n: np.clip(x * n, -2, n)),
    "a diagonal": ([node("Sub", "n i3", "k"), node("Trilu", "w k", "y")], lambda x, n: np.triu(np.arange(12).reshape(3, 4), n - 3)),
    "another diagonal": ([node("Sub", "n i3", "k"), node("Trilu", "w k", "y", upper=0)], lambda x, n: np.tril(np.arange(12).reshape(3, 4), n - 3)),
    "classes": ([node("Cast", "x", "at", to=7), node("OneHot", "at n truths", "y")], lambda x, n: np.eye(n)[x.astype(int)])}


@pytest.mark.parametrize("name", READ)
def test_operands_of_operators(name):
    nodes, expect = READ[name]
    made = model([node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Cast", "n", "f", to=1), *nodes], [("x", ["N"])], [("y", None)],
                 {**CONSTANTS, "w": np.arange(12, dtype=np.float32).reshape(3, 4), "least": np.float32(-2), "truths": np.float32([0, 1])})
    run = gc.compile(gc.from_onnx(made))
    for n in (2, 3, 5):                 # also of weights alone, which are the same in all calls
        x = np.arange(n, dtype=np.float32) - 1
        np.testing.assert_array_equal(run(x), expect(x, n))
