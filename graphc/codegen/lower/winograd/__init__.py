"""Convolutions by 3 × 3 kernels in Winograd's form: contractions whose operands are transformed tiles.

    convolution     tiles of the image by transformed kernels
    gradient        towards the kernels
    weights         the transform of kernels, a kernel of its own
    tiles           tiles of an image, read and transformed
    transform       the transforms as loop functions
"""
from __future__ import annotations

from graphc.codegen.lower.winograd.convolution import lower_convolution
from graphc.codegen.lower.winograd.gradient import lower_weight_gradient
from graphc.codegen.lower.winograd.weights import lower_weights
from graphc.codegen.lower.request import Lowering
from graphc.ir.op import Op
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights

LOWERINGS: dict[type[Op], Lowering] = {WinogradConv2d: lower_convolution, WinogradWeightGrad: lower_weight_gradient,
             WinogradWeights: lower_weights}
