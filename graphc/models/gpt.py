"""Causal Transformers: Radford et al. (2018, GPT; 2019, GPT-2) and Brown et al. (2020, GPT-3, arXiv:2005.14165)."""
from __future__ import annotations

from typing import Any

import numpy as np

from graphc import nn
from graphc.dsl.form import formed
from graphc.errors import GraphError

# width, layers, heads
GPT2_SIZES = {"small": (768, 12, 12), "medium": (1024, 24, 16), "large": (1280, 36, 20), "xl": (1600, 48, 25)}

_MATRICES = ((r"attn\.c_attn", "self_attn.in_proj_"), (r"attn\.c_proj", "self_attn.out_proj."),
             (r"mlp\.c_fc", "linear1."), (r"mlp\.c_proj", "linear2."))
_BLOCK = r"(?:transformer\.)?h\.(\d+)\."
GPT_NAMES = (
    (r"(?:transformer\.)?(?:wte|tokens_embed)\.weight", "0.weight"),
    (r"(?:transformer\.)?(?:wpe|positions_embed)\.weight", "1.weight"),
    (r"(?:transformer\.)?ln_f\.(\w+)", r"4.\1"), (r"(?:transformer\.)?position_ids", ""),
    (r"lm_head\.weight", ""), (_BLOCK + r"attn\.(masked_)?bias", ""),
    (_BLOCK + r"ln_(\d)\.(\w+)", r"3.\1.norm\2.\3"),
    *((_BLOCK + rf"{old}\.weight", rf"3.\1.{new}weight", np.transpose) for old, new in _MATRICES),
    *((_BLOCK + rf"{old}\.bias", rf"3.\1.{new}bias") for old, new in _MATRICES),
)
"""Rules for `renamed`: from GPT and GPT-2 of the library transformers, which stores matrices as [in, out]."""


@formed
def gpt(vocabulary: int = 40478, width: int = 768, layers: int = 12, heads: int = 12, context: int = 512,
        pre_norm: bool = False, tied: bool = True, dropout: float = 0.0) -> nn.Module:
    """ids [B, T], T <= context -> scores of the next token [B, T, vocabulary]; the sizes of the first GPT (117 M
    parameters) unless given.

    `pre_norm`: norms before attention and network and one at the end, as from GPT-2 on. `tied`: a token's score is x ·
    its embedding, else its own weights'. The options `mask` and `lengths` go to every block (see nn.TransformerBlock).
    """
    block = nn.TransformerBlock(heads, causal=True, pre_norm=pre_norm, dropout=dropout,
                                activation=nn.gelu(approximate="tanh"))
    embed = nn.Embedding(vocabulary, width, std=0.02)
    net = embed >> nn.LearnedPosition(context) >> nn.Dropout(dropout) >> block ** layers
    return (net >> nn.LayerNorm() if pre_norm else net) >> nn.GenerateToken(embed, tied=tied)


@formed
def gpt2(size: str = "small", context: int = 1024, **options: Any) -> nn.Module:
    """GPT-2: "small" (124 M parameters), "medium", "large" or "xl" (1558 M; the paper's 1542 M is the count with GPT's
    vocabulary of 40,478)."""
    if size not in GPT2_SIZES:
        raise GraphError(f"the sizes of GPT-2 are {', '.join(GPT2_SIZES)}, got {size!r}")
    width, layers, heads = GPT2_SIZES[size]
    return gpt(**{"vocabulary": 50257, **options}, width=width, layers=layers, heads=heads, context=context,
               pre_norm=True)


@formed
def gpt3(**options: Any) -> nn.Module:
    """GPT-3, 175 B parameters; every layer attends to all earlier tokens (the paper's alternates with a banded
    pattern)."""
    return gpt(**{"vocabulary": 50257, "width": 12288, "layers": 96, "heads": 96, "context": 2048,
                  "pre_norm": True, **options})
