"""graphc compiles a declared neural network into one native function for the CPU. Public names only."""
from graphc.dsl.array import Array
from graphc.dsl.elementwise import (
    abs, add, bitwise_and, bitwise_not, bitwise_or, bitwise_xor, cast, ceil, clip, cos, div, equal, erf, exp, expm1, floor, floordiv,
    greater, greater_equal, isfinite, isnan, left_shift, less, less_equal, log, log1p, logical_and, logical_not, logical_or, logical_xor,
    maximum, minimum, mod, mul, name, neg, not_equal, pow, right_shift, round, rsqrt, sigmoid, sign, sin, sqrt, square, stop_gradient,
    sub, tanh, where)
from graphc.dsl.function import GraphFunction, graph
from graphc.dsl.transforms import grad, hvp, jvp, value_and_grad, vjp
from graphc.errors import GraphError, InternalError
from graphc.ir.parser import parse
from graphc.ir.types import DType, TensorType, bool_, f32, f64, i32, i64

__version__ = "0.1.0"
