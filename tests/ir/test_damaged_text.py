"""Texts that are wrong, odd or large: an error with line and column, or the graph that was meant, in time that grows with the text."""
from time import thread_time
from types import NoneType
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.errors import GraphError
from graphc.ir.attribute_reader import attribute_types
from graphc.ir.builder import Builder
from graphc.ir.dims import Poly
from graphc.ir.graph import Graph
from graphc.ir.op import Literal
from graphc.ir.ops import OPS
from graphc.ir.ops.shape import Pad
from graphc.ir.parser import DEPTH, parse
from graphc.ir.printer import print_graph
from graphc.ir.types import DTYPES, DType, f32

HEAD = "graph g(x: f32[2, 3], n: i64[]) {\n  "
NAMES = st.one_of(st.text(max_size=8), st.sampled_from(
    ["return", "update", "state", "graph", "true", "none", "nan", "inf", "f32", "add", "%0", "%h", "0", "1e5", "0x1", "-1", "a b", 'a"b\\', "\n", "\ud800", "é", "#"]))


def one_node(text: str) -> Graph:
    return parse(f"{HEAD}%0 = {text}\n  return %0\n}}")


@pytest.mark.parametrize("text, message", [
    ("transpose(x) {perm=1} : f32[3, 2]", "expected '(', found '1'"),
    ("transpose(x) {perm=(true, 0)} : f32[3, 2]", "expected a whole number, found 'true'"),
    ("transpose(x) {perm=(1.0, 0)} : f32[3, 2]", "expected a whole number, found '1.0'"),
    ("transpose(x) {perm=(1, 0), perm=(0, 1)} : f32[3, 2]", "perm is given twice"),
    ("transpose(x) : f32[3, 2]", "wrong attributes for transpose: 'perm' is missing"),
    ("transpose(x, n) {perm=(1, 0)} : f32[3, 2]", "transpose takes 1 operand, got 2"),
    ("transpose() {perm=(1, 0)} : f32[3, 2]", "transpose takes 1 operand, got 0"),
    ("add(x) : f32[2, 3]", "add takes 2 operands, got 1"),
    ("add(x, x) {op=3} : f32[2, 3]", "wrong attributes for add: it has no 'op'"),
    ("scan(x) {body=3, carries=0, xs=1, length=2} : f32[2]", "expected '{', found '3'"),
    ("scan() {body={graph b() {return ()}}, carries=-1, xs=0, length=2} : ", "carries must not be negative, got -1"),
    ("einsum(x, x) {equation=ij} : f32[2, 3]", "expected a text in quotes, found 'ij'"),
    ("cast(x) {dtype=f8} : f32[2, 3]", "expected one of f32, f64, i32, i64, bool, i8, i16, u8, u16, u32, u64, f16, bf16, found 'f8'"),
    ("layer_norm(x) {eps=true} : f32[2, 3]", "expected a number, found 'true'"),
    ("layer_norm(x) {eps=1e999} : f32[2, 3]", "'1e999' is too large for a number of 64 bits; write inf"),
    ("layer_norm(x) {eps=1e-999} : f32[2, 3]", "'1e-999' is too small for a number of 64 bits"),
    (f"layer_norm(x) {{axes={'1' * 5000}}} : f32[2, 3]", f"'{'1' * 40}…' does not fit into 64 bits"),
    ("max_pool2d(x) {kernel=(2, 2, 2), stride=(1, 1)} : f32[2, 3]", "expected 2 values, found 3"),
    ("reshape(x) {shape=(-1, -6)} : f32[-1, -6]", "-1"),
    ("reshape(x) {shape=(K, 6)} : f32[K, 6]", "cannot reshape"),
    ("one_hot(n) {depth=K, dtype=f32} : f32[K]", "K is the size of nothing: no argument of g has it in its shape"),
    ("pad(x) {low=(0, 0), high=(0, 0), value=none} : f32[2, 3]", "expected a whole number or a number or true or false, found 'none'"),
    ("iota() {shape=(2, 3), axis=-1, dtype=f32} : f32[2, 3]", "iota: axis -1 must be counted from the front"),
    ("constant() {value=f32} : f32[]", "expected '['"),
    ("constant() {value=f32[n]<1.0>} : f32[]", "a constant has a fixed shape"),
    ("constant() {value=i32[]<1.5>} : i32[]", "expected a whole number, found '1.5'"),
    ("constant() {value=i32[]<true>} : i32[]", "expected a whole number, found 'true'"),
    ("constant() {value=bool[]<1>} : bool[]", "expected true or false, found '1'"),
    ("constant() {value=i32[]<2147483648>} : i32[]", "'2147483648' does not fit into i32"),
    ("constant() {value=f32[]<1e39>} : f32[]", "'1e39' is too large for f32; write inf"),
    ("constant() {value=f32[]<1e-50>} : f32[]", "'1e-50' is too small for f32"),
    ("constant() {value=f32[]<0x123>} : f32[]", "f32[] needs 4 bytes, the text has 1.5"),
    ("constant() {value=bool[2]<0x0102>} : bool[2]", "a bool is the byte 00 or 01"),
    ("constant() {value=f32[2]<1.0>} : f32[2]", "f32[2] needs 2 element(s), the text has 1"),
])
def test_an_attribute_is_what_the_operator_takes(text, message):
    with pytest.raises(GraphError) as info:
        one_node(text)
    assert message in info.value.text
    assert info.value.loc.line == 2 and info.value.loc.column > 2 and info.value.__cause__ is None


@pytest.mark.parametrize("text, message", [
    ("graph g() {", "expected a value such as %0, 'update' or 'return', found 'end of text'"),
    ("graph g(x: f32[-2]) { return x }", "a dimension"),
    ("graph g(x: f32[]) { return }}", "expected the end of the text"),
    ("graph g(x: f32[B T]) { return x }", "is not a dimension"),
    ("graph g(x: f32[٣]) { return x }", "unexpected character '٣'"),
    (f"graph g(x: f32[{'1' * 5000}]) {{ return x }}", "is too large for a dimension"),
    ("graph g(x: f32[" + " + ".join(f"d{i}" for i in range(100_000)) + "]) { return x }", "a dimension of 199999 words is too long"),
    ("graph g(x: f32[" + "*".join("B" * 100_000) + "]) { return x }", "a dimension of 199999 words is too long"),
    ("graph g(x: f32[2], x: f32[3]) { return x }", "x is defined twice"),
    ("graph g(x: f32[2]) { update x = x return x }", "x is not state"),
    ("graph g() state(s: f32[2], t: f32[2]) { update s = t update s = s return }", "s is updated twice"),
    ("graph g(x: f32[2]) { return {a: x, a: x} }", "output a is named twice"),
    ('graph g("a\\q": f32[2]) { return x }', "has an escape that is none of"),
    ('graph g("a', "unexpected character '\"'"),
])
def test_the_rest_of_the_text_too(text, message):
    start = thread_time()
    with pytest.raises(GraphError) as info:
        parse(text)
    assert message in info.value.text
    assert info.value.loc.line == 1 and info.value.loc.column and len(str(info.value)) < 2000
    assert thread_time() - start < 5


def test_every_operator_counts_its_operands():
    for name, make in OPS.items():
        for count in (0, 12):
            try:
                op = make(**{n: 0 for n in getattr(make, "FIELDS", ()) if n not in make.DEFAULTS})
                Builder().apply(op, [Builder().input("x", f32[()])] * count)
            except GraphError:
                continue
            except (TypeError, AttributeError) as error:            # of the attributes, which are zeros
                assert "infer()" not in str(error), f"{name} of {count} operands: {error}"


def test_every_attribute_is_of_a_kind_that_a_text_can_say():
    def leaves(kind) -> set:
        return set().union(*map(leaves, get_args(kind))) if get_args(kind) else {kind}
    readable = {bool, int, float, str, NoneType, Ellipsis, Poly, DType, Literal, Graph}
    for name, make in OPS.items():
        for attribute, kind in (attribute_types(make) if isinstance(make, type) else {}).items():
            assert leaves(kind) <= readable, f"{name}.{attribute}: {kind}"


@pytest.mark.parametrize("text", [b"graph g() { return }", None, 3, ["graph"]])
def test_a_text_is_a_str(text):
    with pytest.raises(GraphError, match="parse takes the text of a graph"):
        parse(text)


def nested(levels: int) -> Graph:
    """A scan in a scan in a scan, …"""
    b = Builder("body")
    c = b.input("c", f32[()])
    graph = b.finish([b.add(c, 1.0)], ("",))
    for _ in range(levels):
        b = Builder("body")
        graph = b.finish(b.apply(OPS["scan"](graph, 1, 0, 2), [b.input("c", f32[()])]), ("",))
    return graph


def test_a_hundred_bodies_in_each_other():
    graph = nested(100)
    assert parse(print_graph(graph)) == graph


def test_too_many_bodies_in_each_other_are_an_error():
    for text in (print_graph(nested(DEPTH)), "graph g() { %0 = cond() {then_body={" * 3000):
        with pytest.raises(GraphError, match="nested in each other more than"):
            parse(text)


def long_graph(nodes: int) -> Graph:
    b = Builder("long")
    x = b.input("x", f32["B", 4])
    for i in range(nodes):
        x = b.add(x, x) if i % 2 else b.elu(x, alpha=0.5)
        x.name = f"h{i}" if i % 3 else ""
    return b.finish([x])


def test_time_grows_with_the_text():
    """Ten thousand nodes, also on one line: a place in the text costs no more for it."""
    graph = long_graph(10_000)
    start = thread_time()
    text = print_graph(graph)
    assert parse(text) == graph
    assert parse(text.replace("\n", " ")) == graph
    assert thread_time() - start < 10


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=3, max_size=6, unique=True), NAMES, st.lists(NAMES, max_size=3), st.data())
def test_odd_names_and_constants_parse_back(arguments, name, values, data):
    b = Builder(name)
    half = len(arguments) // 2
    made = [b.input(n, f32[2, data.draw(st.sampled_from(["B", "nan", "true", "f32", "β", "B*T - 3"]))]) for n in arguments[:half]]
    state = [b.state_input(n, data.draw(st.sampled_from(DTYPES))[()]) for n in arguments[half:]]
    b.update(state[0], state[0])
    for n in values:
        dtype = data.draw(st.sampled_from(DTYPES))
        shape = data.draw(st.sampled_from([(), (0,), (3,), (2, 0, 4), (3, 7)]))
        raw = data.draw(st.binary(min_size=int(np.prod(shape)) * dtype.itemsize, max_size=int(np.prod(shape)) * dtype.itemsize))
        array = np.frombuffer(raw, np.uint8) % 2 if dtype.kind == "bool" else np.frombuffer(raw, dtype.np)
        made.append(b.constant(array.astype(dtype.np).reshape(shape)))
        made[-1].name = n
    wide = data.draw(st.sampled_from(["tuple", "dict", "none"]))
    outputs = {"tuple": (made, ("",) * len(made)), "none": (made[:1], None), "dict": (made[:half], tuple(arguments[:half]))}[wide]
    if wide == "dict" and not any(outputs[1]):
        outputs = made, ("",) * len(made)
    graph = b.finish(*outputs)
    again = parse(print_graph(graph))
    assert again == graph and print_graph(again) == print_graph(graph)


def test_a_node_without_results_parses_back():
    b = Builder("nothing")
    empty = Builder("body").finish((), ())
    b.apply(OPS["cond"](empty, empty), [b.input("p", gc.bool_[()])])
    graph = b.finish((), ())
    assert parse(print_graph(graph)) == graph


@pytest.mark.parametrize("value", [0, 0.0, -0.0, False, np.nan, -np.nan, np.inf, 1e-320, 0.1, np.float32(0.1), np.float64(3), np.int64(2),
                                   np.frombuffer(bytes.fromhex("010000000000f47f"))[0].item()])
def test_numbers_keep_their_bits(value):
    op = Pad((1,), (1,), value)
    b = Builder("numbers")
    text = print_graph(b.finish(b.apply(op, [b.input("x", f32[3])])))
    again = parse(text)
    found = again.nodes[0].op.value
    assert np.float64(found).tobytes() == np.float64(value).tobytes()
    assert print_graph(again) == text
    for other in (0, 0.0, -0.0, False, np.nan, -np.nan):
        if np.float64(other).tobytes() != np.float64(value).tobytes():
            c = Builder("numbers")
            assert print_graph(c.finish(c.apply(Pad((1,), (1,), other), [c.input("x", f32[3])]))) != text
    assert (Pad((1,), (1,), -0.0) == Pad((1,), (1,), 0.0)) is False and Pad((1,), (1,), float("nan")) == Pad((1,), (1,), float("nan"))


def test_what_no_machine_can_run_is_the_users_mistake():
    for text, message in (
            ("graph g(x: f32[1099511627776, 1099511627776]) { return x }", "larger than any memory"),
            ("graph g(x: f32[4611686018427387905, 0, 5]) { %0 = neg(x) : f32[4611686018427387905, 0, 5] return %0 }", "larger than any memory"),
            ("graph g(x: f32[3]) { %0 = fused(x) {body={graph b(x: f32[3]) { return (x,) }}} : f32[3] return %0 }", "fused is made when compiling")):
        with pytest.raises(GraphError, match=message):
            gc.compile(parse(text))
    with pytest.raises(GraphError, match="dimension"):
        gc.compile(parse("graph g(x: f32[B - 5]) { return x }"), B=3)
