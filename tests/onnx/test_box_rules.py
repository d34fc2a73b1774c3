"""Boxes of images: beside ONNX Runtime, and their gradients."""
import numpy as np
import pytest
from one_node import floats, in_graphc, in_runtime, model_of, same

import graphc as gc

F = np.float32
BOXES = np.array([[0, 0, 0, 5, 6], [1, 2, 1, 4, 1], [1, -3, 2, 20, 9], [0, 9, 9, 12, 12], [0, 3, 3, 1, 1]], F)


@pytest.mark.parametrize("how", ({"pooled_shape": [2, 3]}, {"pooled_shape": [3, 2], "spatial_scale": 0.5}, {"pooled_shape": [1, 1]}))
def test_max_roi_pool(how):
    same("MaxRoiPool", {"x": floats(2, 3, 8, 7), "rois": BOXES}, tolerance=0, **how)


@pytest.mark.parametrize("mode", ("avg", "max"))
def test_roi_align(mode):
    given = {"x": floats(2, 3, 8, 7), "rois": BOXES[:, 1:] + F(0.3), "at": BOXES[:, 0].astype(np.int64)}
    same("RoiAlign", given, mode=mode, output_height=2, output_width=3, sampling_ratio=2, spatial_scale=0.7)


@pytest.mark.parametrize("op, how", (("MaxRoiPool", {"pooled_shape": [2, 3]}), (
    "RoiAlign", {"mode": "max", "output_height": 2, "output_width": 2, "sampling_ratio": 2})))
def test_gradients_of_the_images(op, how):
    rest = {"rois": BOXES} if op == "MaxRoiPool" else {"rois": BOXES[:, 1:] + F(0.3), "at": BOXES[:, 0].astype(np.int64)}
    net = gc.from_onnx(model_of(op, {"x": floats(2, 3, 8, 7), **rest}, constants=tuple(rest), **how))
    assert gc.check_gradients(net, x=floats(2, 3, 8, 7), samples=3, directions=1).ok


@pytest.mark.parametrize("op, how", (("MaxRoiPool", {"pooled_shape": [2, 3]}), (
    "RoiAlign", {"mode": "max", "output_height": 2, "output_width": 2, "sampling_ratio": 2}), (
    "RoiAlign", {"output_height": 2, "output_width": 2, "sampling_ratio": 2})))
def test_open_sizes(op, how):
    """One program for images of any size."""
    rest = {"rois": BOXES} if op == "MaxRoiPool" else {"rois": BOXES[:, 1:] + F(0.3), "at": BOXES[:, 0].astype(np.int64)}
    model = model_of(op, {"x": floats(2, 3, 8, 7), **rest}, **how)
    run = gc.compile(gc.from_onnx(model, sizes={"x": ("N", 3, "H", "W")}))
    for shape in ((2, 3, 8, 7), (2, 3, 5, 9)):
        x = floats(*shape)
        expect, = in_runtime(model_of(op, {"x": x, **rest}, **how), {"x": x, **rest})
        np.testing.assert_allclose(run(x, *rest.values()), expect, atol=1e-5)


def test_boxes_of_another_shape():
    with pytest.raises(gc.GraphError, match="boxes"):
        in_graphc(model_of("MaxRoiPool", {"x": floats(1, 1, 4, 4), "rois": floats(3, 4)}, pooled_shape=[2, 2]), {"x": floats(1, 1, 4, 4), "rois": floats(3, 4)})
