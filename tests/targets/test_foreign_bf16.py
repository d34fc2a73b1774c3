"""Products of bf16 on processors that are not this one: by their instruction, or widened, within what its rounding of sums allows."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machines import MACHINES, built, job_of, results_of

from graphc.bf16_products import Bf16Products
from graphc.ir.builder import Builder
from graphc.ir.ops.conv import Conv, ConvInputGrad, ConvWeightGrad
from graphc.ir.types import TensorType, bf16, f32
from graphc.schedule.target import AVX512_BF16

FEATURES = {"aarch64-linux": ("", ",+bf16")}
CASES = [(platform, extra) for platform in MACHINES for extra in FEATURES.get(platform, ("",))]


def rounded(x: np.ndarray) -> np.ndarray:
    return x.astype(bf16.np).astype(np.float64)


@pytest.mark.parametrize("platform,extra", CASES)
def test_products_and_convolutions(platform, extra):
    machine = MACHINES[platform]
    if lacks := machine.lacks():
        pytest.skip(f"needs {lacks}")
    rng, b, given, outs, wanted = np.random.default_rng(0), Builder("products"), [], [], []
    for m, k, n in ((1, 64, 9), (7, 37, 13), (16, 128, 24)):
        x, w = (rng.standard_normal(s).astype(np.float32) for s in ((m, k), (n, k)))
        one, other = (b.input(f"x{len(given) + i}", TensorType(f32, a.shape)) for i, a in enumerate((x, w)))
        outs.append(b.matmul(one, b.transpose(other, perm=(1, 0))))
        given += [x, w]
        wanted.append((rounded(x) @ rounded(w).T, np.abs(x) @ np.abs(w).T))
    op = Conv.at(2)(stride=(2, 1), padding=((1, 1), (1, 0)), dilation=(1, 1))
    image, kernels = (2, 5, 8, 7), (7, 5, 3, 2)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in (image, kernels))
    dy = rng.standard_normal(op.output_shape(image, kernels)).astype(np.float32)
    for each, left, right in ((op, x, w), (op.like(ConvInputGrad, x_shape=image), w, dy), (op.like(ConvWeightGrad, w_shape=kernels), x, dy)):
        ins = [b.input(f"x{len(given) + i}", TensorType(f32, a.shape)) for i, a in enumerate((left, right))]
        outs += b.apply(each, ins)
        given += [left, right]
        wanted.append((each.reference(rounded(left), rounded(right)), each.reference(np.abs(left), np.abs(right))))
    graph = Bf16Products(AVX512_BF16).whole(b.finish(outs, ("",) * len(outs)))
    target = replace(machine.target, features=machine.target.features + extra)
    program = built(graph, target).program
    found = results_of(program, machine.run(program, job_of(program, given, (), 1)), ()).outputs
    for y, (exact, size) in zip(found, wanted, strict=True):
        assert (np.abs(y - exact) <= 2e-6 * size + 1e-7).all()
