"""Samples of every operator, one tuple. A file lists its own; tests of other levels (native code against the oracle)
import SAMPLES.
"""
from __future__ import annotations

import samples_contract
import samples_elementwise
import samples_matrix
import samples_move
import samples_rows
from op_sample import Sample

SAMPLES: tuple[Sample,
               ...] = samples_elementwise.SAMPLES + samples_rows.SAMPLES + samples_move.SAMPLES + samples_contract.SAMPLES + samples_matrix.SAMPLES

# Results that are integers or bools, or steps: no gradient, by nature.
NON_DIFFERENTIABLE = frozenset((
    "sign", "floor", "ceil", "round", "floordiv", "lt", "le", "gt", "ge", "eq", "ne", "isnan", "isfinite",
    "bitand", "bitor", "bitxor", "bitnot", "shift_left", "shift_right", "stop_gradient", "bitcast",
    "winograd_weights", "winograd_conv2d", "winograd_weight_grad", "block_product", "pack", "pack_pair", "pack_four", "argmax", "argmin", "argsort",
    "running_arg_extremum", "row_places",
    "check_rows", "one_hot", "constant", "iota", "dimension",
    "random_bits", "random_uniform", "random_normal", "random_bernoulli", "random_permutation"))

# Gradients that have a test of their own: why, and where.
CHECKED_ELSEWHERE = {
    "attention_grad": "two of its operands are results of attention, so no difference can be taken in them alone: "
                      "test_ops_b.test_attention (second order)"}
