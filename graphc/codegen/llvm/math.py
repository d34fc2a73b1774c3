"""The LLVM functions behind exp, tanh, …: f32 from `vecmath`, f64 lane by lane from libm; and repairs by libm calls."""
from __future__ import annotations

from graphc.codegen.llvm import special_functions, vector_math
from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.control import run
from graphc.codegen.llvm.fused import fma
from graphc.codegen.llvm.lanes import lane_text
from graphc.codegen.llvm.storage_floats import CONVERSIONS
from graphc.codegen.llvm.types import REGISTER, cold_convention, vector
from graphc.codegen.loops.arithmetic import Arithmetic
from graphc.codegen.loops.loop_ir import Val
from graphc.errors import InternalError
from graphc.ir.types import DType, f32
from graphc.schedule.target import Target

ARITY = {"pow": 2, "fma": 3}
OUT_OF_LINE = frozenset({"fma"})        # of many instructions, in the place of one
F32, F64 = vector_math.F32 | special_functions.F32 | {"fma": fma}, vector_math.F64 | special_functions.F64


class Fragment(Arithmetic):
    """A straight-line piece of loop IR: operand values, statements, result."""

    def __init__(self, dtype: DType, lanes: int, arity: int, target: Target) -> None:
        self.block = []
        self._values = arity
        self.has_scaling = target.has_scaling
        self.operands = [Val(self, dtype, lanes, k) for k in range(arity)]


def math_text(body: BodyEmitter, name: str, op: str, dtype: DType, lanes: int, target: Target) -> str:
    """The definition of `name`, written into an empty body."""
    rule = (F32 if dtype is f32 else F64).get(op)
    if rule is None:
        raise InternalError(f"no {dtype} version of {op!r}", "llvm")
    fragment = Fragment(dtype, lanes, ARITY.get(op, 1), target)
    result = rule(fragment, *fragment.operands)
    ty = vector(REGISTER[dtype.name], lanes)
    for operand in fragment.operands:
        body.set_val(operand, f"%x{operand.id}")
    run(body, fragment.block)
    body.line(f"ret {ty} {body.val(result)}")
    arguments = ", ".join(f"{ty} %x{o.id}" for o in fragment.operands)
    return body.text(f"define internal {ty} {name}({arguments}) #{0 if op in OUT_OF_LINE else 1}")


def conversion_text(body: BodyEmitter, name: str, op: str, stored: DType, lanes: int, target: Target,
                    rare: bool = False) -> str:
    """The definition of `name`, which converts f16 or bf16 to f32 ("widen") or back ("narrow"). rare: it is to be
    called, and leaves registers as they are where it can."""
    source, to = (stored, f32) if op == "widen" else (f32, stored)
    fragment = Fragment(source, lanes, 1, target)
    result = CONVERSIONS[op, stored](fragment, *fragment.operands)
    body.set_val(fragment.operands[0], "%x")
    run(body, fragment.block)
    given, made = [vector(REGISTER[d.name], lanes) for d in (source, to)]
    body.line(f"ret {made} {body.val(result)}")
    convention, attributes = (cold_convention(target), 2) if rare else ("", 1)
    return body.text(f"define internal {convention}{made} {name}({given} %x) #{attributes}")


def libm_repair_text(body: BodyEmitter, name: str, function: str, dtype: DType, lanes: int, arity: int) -> str:
    """result with libm's value in the lanes that are bad; kept out of line, and preserves all registers where it
    can."""
    ty = vector(REGISTER[dtype.name], lanes)
    symbol = body.module.libm(function, dtype, arity)
    result = "%result"
    for lane in range(lanes):
        result = _repair_lane(body, symbol, dtype, lanes, lane, result, arity)
    body.line(f"ret {ty} {result}")
    operands = "".join(f", {ty} %x{k}" for k in range(arity))
    convention = cold_convention(body.module.target)
    return body.text(f"define internal {convention}{ty} {name}({vector('i1', lanes)} %bad, {ty} %result{operands}) #2")


def _repair_lane(body: BodyEmitter, symbol: str, dtype: DType, lanes: int, lane: int, result: str, arity: int) -> str:
    ty, element = vector(REGISTER[dtype.name], lanes), REGISTER[dtype.name]
    bad = lane_text(body, vector("i1", lanes), "%bad", lanes, lane)
    call, after, before = body.label(), body.label(), body.block
    body.line(f"br i1 {bad}, label %{call}, label %{after}")
    body.begin(call)
    actual = ", ".join([f"{element} {lane_text(body, ty, f'%x{k}', lanes, lane)}" for k in range(arity)])
    value = body.emit(f"call {element} {symbol}({actual})")
    if lanes > 1:
        value = body.emit(f"insertelement {ty} {result}, {element} {value}, i64 {lane}")
    body.line(f"br label %{after}")
    body.begin(after)
    return body.emit(f"phi {ty} [ {result}, %{before} ], [ {value}, %{call} ]")
