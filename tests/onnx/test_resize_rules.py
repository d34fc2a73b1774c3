"""Resize where sizes have names: one program, the numbers of ONNX Runtime for each size."""
from __future__ import annotations

import numpy as np
import pytest
from one_node import floats, helper, in_runtime, onnx

import graphc as gc

SHAPES = ((1, 2, 7, 5), (2, 3, 4, 9))


def open_model(opset: int, scales=None, **attributes):
    """Resize of x [B, C, H, W]: by scales, or to the size of y [B, C, K, L]."""
    held = [] if scales is None else [onnx.numpy_helper.from_array(np.array(scales, np.float32), "scales")]
    nodes = [helper.make_node("Shape", ["y"], ["size"])] if scales is None else []
    ends = ["", "scales"] if opset > 11 else ["roi", "scales"] if opset > 10 else ["scales"]
    held += [onnx.numpy_helper.from_array(np.zeros(0, np.float32), "roi")] if "roi" in ends else []
    nodes += [helper.make_node("Resize", ["x", *(ends if scales else ["", "", "size"])], ["out"], **attributes)]
    inputs = [("x", ["B", "C", "H", "W"])] + ([("y", ["B", "C", "K", "L"])] if scales is None else [])
    graph = helper.make_graph(nodes, "resize", [helper.make_tensor_value_info(n, 1, s) for n, s in inputs],
                              [helper.make_empty_tensor_value_info("out")], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(model, *cases) -> None:
    run = gc.compile(gc.from_onnx(model))
    for inputs in cases:
        expect, = in_runtime(model, inputs)
        found = run(**inputs)
        assert found.shape == expect.shape
        np.testing.assert_allclose(found, expect, atol=3e-6)


@pytest.mark.parametrize("mode", ("nearest", "linear", "cubic"))
@pytest.mark.parametrize("coordinates", ("half_pixel", "align_corners", *(pytest.param(c, marks=pytest.mark.slow) for c in (
    "asymmetric", "pytorch_half_pixel"))))
def test_coordinates(mode, coordinates):
    model = open_model(13, mode=mode, coordinate_transformation_mode=coordinates)
    check(model, *({"x": floats(*s), "y": floats(*s[:2], *size)} for s, size in zip(SHAPES, ((14, 3), (9, 9)))))


@pytest.mark.parametrize("scales", ((1, 1, 2, 0.5), (1, 1, 1.5, 3)))
@pytest.mark.parametrize("mode", ("linear", "nearest"))
def test_scales_of_named_sizes(scales, mode):
    model = open_model(13, scales, mode=mode, coordinate_transformation_mode="half_pixel")
    check(model, *({"x": floats(*s)} for s in SHAPES))


@pytest.mark.parametrize("how", ({"nearest_mode": "floor"}, {"nearest_mode": "ceil"}, {"nearest_mode": "round_prefer_ceil"},
                                 {"mode": "cubic", "exclude_outside": 1}, {"mode": "cubic", "cubic_coeff_a": -0.5}))
def test_roundings_and_kernels(how):
    check(open_model(13, (1, 1, 1.5, 2), **how), *({"x": floats(*s)} for s in SHAPES))


def test_older_forms():
    check(open_model(10, (1, 1, 2, 2), mode="linear"), *({"x": floats(*s)} for s in SHAPES))
    model = open_model(11, (1, 1, 2, 3), mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn",
                       nearest_mode="floor")
    check(model, *({"x": floats(*s)} for s in SHAPES))
    fixed = gc.compile(gc.from_onnx(model, sizes=dict(zip("BCHW", SHAPES[0]))))
    np.testing.assert_array_equal(fixed(floats(*SHAPES[0])), in_runtime(model, {"x": floats(*SHAPES[0])})[0])


def test_gradients():
    model = open_model(13, mode="cubic")
    assert gc.check_gradients(gc.from_onnx(model), x=floats(1, 1, 4, 5), y=floats(1, 1, 7, 3)).ok


def test_what_is_not_done_with_names():
    for how, words in (({"keep_aspect_ratio_policy": "not_larger"}, "policy"), ({"antialias": 1, "mode": "linear"},
                                                                              "antialias")):
        with pytest.raises(gc.GraphError, match=words):
            gc.plan(gc.from_onnx(open_model(19, **how)))
    with pytest.raises(gc.GraphError, match="times"):
        gc.plan(gc.from_onnx(open_model(13, (1, 1, 0.3, 1))))
