"""Attention and its gradient, block by block.

    forward     the online softmax
    gradient    of queries, keys and values
    blocks      what both share: panels of columns, rows, products of the two
    mask        what a mask does to a block of scores
    powers      2^x of scores
"""
from __future__ import annotations

from graphc.codegen.lower.attention.forward import lower_attention
from graphc.codegen.lower.attention.gradient import lower_attention_grad
from graphc.codegen.lower.request import Lowering
from graphc.ir.op import Op
from graphc.ir.ops.attention import Attention, AttentionGrad

LOWERINGS: dict[type[Op], Lowering] = {Attention: lower_attention, AttentionGrad: lower_attention_grad}
