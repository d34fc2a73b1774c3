"""Images of convolutions in groups: read as bf16 or as f32, by what both cost."""
from __future__ import annotations

import pytest

from graphc.bf16_products import rounded_images
from graphc.ir.builder import Builder
from graphc.ir.ops.conv import Conv
from graphc.ir.types import bf16, f32
from graphc.passes.read_stored import ReadStored
from graphc.schedule.group_images import group_image_forms
from graphc.schedule.target import AVX512_AMX


def convolution(kernel: int, stored: bool):
    """Of each channel by itself. stored: the image is there as bf16."""
    b = Builder("groups")
    image, weights = b.input("x", (bf16 if stored else f32)[2, 64, 56, 56]), b.input("w", f32[64, 1, kernel, kernel])
    x = b.cast(image, dtype=f32) if stored else b.maximum(image, 0.0)
    op = Conv.at(2)(stride=(1, 1), padding=((kernel // 2, kernel // 2),) * 2, dilation=(1, 1), groups=64)
    return b.finish([b.maximum(b.apply(op, [x, weights])[0], 0.0)], ("y",))


@pytest.mark.parametrize("kernel, narrow", [(3, True), (5, True), (7, False)])
def test_few_taps_are_worth_fewer_bytes(kernel, narrow):
    """Each number is widened for each tap along a row; with many taps that takes longer than bytes of f32."""
    graph = convolution(kernel, False)
    assert len(rounded_images(graph, AVX512_AMX)) == narrow
    node, = [n for n in graph.nodes if isinstance(n.op, Conv)]
    forms = group_image_forms(node.op, *(v.type.shape for v in node.inputs), AVX512_AMX, True)
    assert forms.best.schedule is narrow and len(forms.candidates) == 2 and "conversion" in str(forms)


@pytest.mark.parametrize("kernel, narrow", [(3, True), (15, False)])
def test_what_is_stored_in_16_bits_is_read_so_where_that_is_faster(kernel, narrow):
    after = ReadStored(AVX512_AMX).run(convolution(kernel, True))
    node, = [n for n in after.nodes if isinstance(n.op, Conv)]
    assert (node.inputs[0].type.dtype is bf16) is narrow
