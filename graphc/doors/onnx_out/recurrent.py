"""Scans whose body is the cell of an RNN, an LSTM or a GRU, and whose slices are products with an input: ONNX has them
as operators of their own."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce

from graphc.doors.onnx_out.emitter import Emitter
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, NodeOf, Value
from graphc.ir.match import Is, match
from graphc.ir.ops.activation import Relu
from graphc.ir.ops.contract import Matmul
from graphc.ir.ops.control import Scan
from graphc.ir.ops.elementwise import ADD, MUL, SIGMOID, SUB, Elementwise
from graphc.ir.ops.shape import Slice, Transpose
from graphc.ir.types import f32
from graphc.records import dataclass

TANH = Elementwise("tanh")


@dataclass(frozen=True)
class RecurrentCellForm:
    """What a body computes: the kind in ONNX, the order in which ONNX has our gates, and which inputs of the body are
    the slice, the recurrent weights and a bias inside of the candidate."""
    kind: str
    order: tuple[int, ...]
    x: Value
    weights: Value
    inner: Value | None = None
    relu: bool = False


@dataclass(frozen=True)
class GateProjection:
    """x w + biases, w [inputs, rows]."""
    x: Value
    weights: Value
    biases: tuple[Value, ...]


def _parts(gates: Sequence[Value], width: object) -> Value | None:
    """What the values are cut from, if they are its columns side by side, each so wide."""
    whole = None
    for i, gate in enumerate(gates):
        node = gate.node
        if node is None or not isinstance(node.op, Slice) or not isinstance(width, int):
            return None
        op = node.op
        if (op.start[-1], op.stop[-1], op.step[-1]) != (i * width, (i + 1) * width, 1):
            return None
        source = node.inputs[0]
        if source.type.shape[:-1] != gate.type.shape[:-1] or whole not in (None, source):
            return None
        whole = source
    return whole if whole is not None and whole.type.shape[-1] == len(gates) * width else None  # type: ignore[operator]


def _lstm(body: Graph) -> RecurrentCellForm | None:
    """c' = f c + i g, h' = o tanh(c'), of gates side by side: i, f, g, o."""
    h0, c0, x = body.inputs[:3]
    h, c, y = body.outputs
    out = match(h, Is(MUL, Is(SIGMOID, "o"), Is(TANH, "c")))
    new = match(c, Is(ADD, Is(MUL, Is(SIGMOID, "f"), "c0"), Is(MUL, Is(SIGMOID, "i"), Is(TANH, "g"))))
    if out is None or new is None or out["c"] is not c or new["c0"] is not c0 or y is not h:
        return None
    whole = _parts([new["i"], new["f"], new["g"], out["o"]], h0.type.shape[-1])
    found = whole and match(whole, Is(ADD, "x", Is(Matmul, "h", "w")))
    if not found or found["x"] is not x or found["h"] is not h0:
        return None
    return RecurrentCellForm("LSTM", (0, 3, 1, 2), x, found["w"])


def _gru(body: Graph) -> RecurrentCellForm | None:
    """n = tanh(xn + r hn), h' = n + z (h - n), of gates side by side: r, z, n."""
    h0, x = body.inputs[:2]
    h, y = body.outputs
    found = match(h, Is(ADD, "n", Is(MUL, Is(SIGMOID, Is(ADD, "xz", "hz")), Is(SUB, "h", "n"))))
    inner = found and match(found["n"], Is(TANH, Is(ADD, "xn", Is(MUL, Is(SIGMOID, Is(ADD, "xr", "hr")), "hn"))))
    if not found or not inner or found["h"] is not h0 or y is not h:
        return None
    width = h0.type.shape[-1]
    given = _parts([inner["xr"], found["xz"], inner["xn"]], width)
    hidden = _parts([inner["hr"], found["hz"], inner["hn"]], width)
    product = hidden and match(hidden, Is(ADD, Is(Matmul, "h", "w"), "b"), Is(Matmul, "h", "w"))
    if not product or given is not x or product["h"] is not h0:
        return None
    return RecurrentCellForm("GRU", (1, 0, 2), x, product["w"], product.values.get("b"))


def _rnn(body: Graph) -> RecurrentCellForm | None:
    """h' = tanh(x + h w), or relu."""
    h0, x = body.inputs[:2]
    h, y = body.outputs
    inner = Is(ADD, "x", Is(Matmul, "h", "w"))
    found = match(h, Is(TANH, inner), Is(Relu, inner))
    if not found or found["x"] is not x or found["h"] is not h0 or y is not h:
        return None
    return RecurrentCellForm("RNN", (0,), x, found["w"], relu=found.nodes[0].op.opcode is Relu)


CELLS: dict[int, tuple[Callable[[Graph], RecurrentCellForm | None], ...]] = {1: (_gru, _rnn), 2: (_lstm,)}


def _projection(v: Value) -> GateProjection | None:
    product = Is(Matmul, "x", "w")
    one = Is(ADD, product, "b")
    found = match(v, Is(ADD, one, "c"), one, product)
    if not found or found["x"].type.rank != 3 or found["w"].type.rank != 2:
        return None
    biases = tuple(found.values[name] for name in "bc" if name in found.values)
    return GateProjection(found["x"], found["w"], biases) if all(b.type.rank == 1 for b in biases) else None


def recurrent(e: Emitter, node: NodeOf[Scan]) -> list[str] | None:
    """The scan as RNN, LSTM or GRU; None if it is none of them."""
    op = node.op
    if op.xs != 1 or len(op.body.outputs) != op.carries + 1 or node.inputs[0].type.dtype is not f32:
        return None
    cell = next((c for find in CELLS.get(op.carries, ()) if (c := find(op.body))), None)
    given = _projection(node.inputs[op.carries])
    if cell is None or given is None or any(v.type.rank != 2 for v in node.inputs[:op.carries]):
        return None
    outer = dict(zip(op.body.inputs, node.inputs, strict=True))
    if cell.weights not in outer or (cell.inner is not None and cell.inner not in outer):
        return None
    return _written(e, node, cell, given, outer)


def _written(e: Emitter, node: NodeOf[Scan], cell: RecurrentCellForm, given: GateProjection,
             outer: dict[Value, Value]) -> list[str]:
    op = node.op
    hidden = node.inputs[0].type.shape[-1]
    rows = len(cell.order) * hidden
    w, r = (_ordered(e, _rows(e, v), cell.order) for v in (given.weights, outer[cell.weights]))
    bias = e.op("Concat", *(_ordered(e, b, cell.order) for b in _biases(e, cell, given, outer, rows)), axis=0)
    axis = e.numbers(0)
    starts = [e.op("Unsqueeze", e.values[v], axis) for v in node.inputs[:op.carries]]
    more_attributes: dict[str, object] = {"linear_before_reset": 1} if cell.kind == "GRU" else {}
    if cell.relu:
        more_attributes["activations"] = ["Relu"]
    y, *ends = e.ops(cell.kind, e.values[given.x], e.op("Unsqueeze", w, axis), e.op("Unsqueeze", r, axis),
                     e.op("Unsqueeze", bias, axis), "", *starts, outputs=1 + op.carries, hidden_size=hidden,
                     direction="reverse" if op.reverse else "forward", **more_attributes)
    return [*(e.op("Squeeze", end, axis) for end in ends), e.op("Squeeze", y, e.numbers(1))]


def _biases(e: Emitter, cell: RecurrentCellForm, given: GateProjection, outer: dict[Value, Value],
            rows: Dim) -> list[str]:
    """That of the input and that of the recurrent product; of a GRU the latter is inside of the candidate."""
    outside = [e.values[b] for b in given.biases]
    none = e.op("Expand", e.constant(0, f32), e.shape((rows,)))
    if cell.inner is None:
        return [*outside, none, none][:2]
    return [reduce(partial(e.op, "Add"), outside) if outside else none, e.values[outer[cell.inner]]]


def _rows(e: Emitter, v: Value) -> str:
    """The transpose of a matrix; what it is the transpose of, if it is one."""
    node = v.node
    if node is not None and isinstance(node.op, Transpose) and node.op.perm == (1, 0):
        return e.values[node.inputs[0]]
    return e.op("Transpose", e.values[v], perm=[1, 0])


def _ordered(e: Emitter, x: str, order: Sequence[int]) -> str:
    """The gates, side by side along axis 0, in another order."""
    if len(order) == 1:
        return x
    parts = e.ops("Split", x, outputs=len(order), axis=0, num_outputs=len(order))
    return e.op("Concat", *(parts[i] for i in order), axis=0)


