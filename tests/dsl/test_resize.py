"""resize and grid_sample against PyTorch and ONNX's reference, and mistakes."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

RNG = np.random.default_rng(2)
# one element is the centre; for the others onnx's reference is not what its text says
SINGLE = ("half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric")
ENDS = ("align_corners", "tf_crop_and_resize")              # with scales, onnx's reference takes sizes that are not whole
SIZES = (((5, 7), (10, 14)), ((5, 7), (3, 4)), ((4, 4), (9, 2)), ((6, 3), (1, 5)), ((12, 9), (5, 4)))


def run(f, *arrays):
    with gc.dsl.trace.Trace("f") as trace:
        ins = [trace.input(f"x{i}", gc.f32[a.shape]) for i, a in enumerate(arrays)]
        function = gc.dsl.function.finish(trace, f(*ins))
    return gc.compile(function)(*arrays)


@pytest.mark.peers
@pytest.mark.parametrize("old, new", SIZES)
def test_interpolate_of_torch(old, new):
    torch = pytest.importorskip("torch")
    x = RNG.random((2, 3, *old), np.float32)

    def same(got, **options):
        want = torch.nn.functional.interpolate(torch.tensor(x), new, **options).numpy()
        np.testing.assert_allclose(run(got, x), want, rtol=1e-5, atol=1e-5, err_msg=str(options))
    same(lambda x: gc.resize(x, new), mode="nearest")
    same(lambda x: gc.resize(x, new, coordinates="half_pixel", rounding="round_prefer_ceil"), mode="nearest-exact")
    for mode in ("bilinear", "bicubic"):
        same(lambda x: gc.resize(x, new, mode), mode=mode)
        same(lambda x: gc.resize(x, new, mode, coordinates="align_corners"), mode=mode, align_corners=True)
        same(lambda x: gc.resize(x, new, mode, antialias=True), mode=mode, antialias=True)
    volume, line = RNG.random((1, 2, 3, *old), np.float32), RNG.random((2, 3, 8), np.float32)
    want = torch.nn.functional.interpolate(torch.tensor(volume), (5, *new), mode="trilinear").numpy()
    np.testing.assert_allclose(run(lambda x: gc.resize(x, (5, *new), "trilinear"), volume), want, rtol=1e-5, atol=1e-5)
    want = torch.nn.functional.interpolate(torch.tensor(line), 5, mode="linear", align_corners=True).numpy()
    np.testing.assert_allclose(run(lambda x: gc.resize(x, 5, "linear", coordinates="align_corners"), line), want, rtol=1e-5, atol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize("coordinates", ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
                                         "tf_crop_and_resize"))
@pytest.mark.parametrize("mode", ("nearest", "linear", "cubic"))
def test_resize_of_onnx(mode, coordinates):
    """By its reference, with sizes, and with scales where they are not the ratio of sizes."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator
    x = RNG.random((1, 2, 6, 7), np.float32)
    crop = [0.125, -0.25, 0.75, 1.3125] if coordinates == "tf_crop_and_resize" else None

    def onnx(sizes, scales, **options):
        roi = [0, 0, *crop[:2], 1, 1, *crop[2:]] if crop else [0] * 8
        given = {"x": x, "roi": np.float32(roi)}
        given |= {"sizes": np.int64([1, 2, *sizes])} if scales is None else {"scales": np.float32([1, 1, *scales])}
        kinds = {"sizes": TensorProto.INT64}
        node = helper.make_node("Resize", ["x", "roi", "scales" if scales else "", "" if scales else "sizes"], ["y"], mode=mode,
                                coordinate_transformation_mode=coordinates, extrapolation_value=0.25, **options)
        graph = helper.make_graph(
            [node], "g", [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in given],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
        return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])).run(None, given)[0]
    roundings = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") if mode == "nearest" else ("floor",)
    for sizes, scales in (((9, 5), None), ((3, 3), None), ((1 if coordinates in SINGLE else 2, 8), None), *(((9, 4), (1.5, 0.625)),) * (coordinates not in ENDS)):
        for rounding in roundings:
            for exclude in (False, True) if mode == "cubic" else (False,):
                want = onnx(sizes, scales, **({"nearest_mode": rounding} if mode == "nearest" else {}),
                            **({"exclude_outside": 1} if exclude else {}))
                got = run(lambda x: gc.resize(x, sizes, mode, coordinates, rounding, scales=scales, crop=crop, fill=0.25,
                                              exclude_outside=exclude), x)
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=f"{sizes} {scales} {rounding} {exclude}")


@pytest.mark.peers
@pytest.mark.parametrize("align", (False, True))
@pytest.mark.parametrize("padding", ("zeros", "border", "reflection"))
@pytest.mark.parametrize("mode", ("nearest", "bilinear", "bicubic"))
def test_grid_sample_of_torch(mode, padding, align):
    """Values, and gradients of both."""
    torch = pytest.importorskip("torch")
    x, grid = RNG.random((2, 3, 5, 6), np.float32), RNG.uniform(-1.9, 1.9, (2, 4, 3, 2)).astype(np.float32)
    tx, tg = torch.tensor(x, requires_grad=True), torch.tensor(grid, requires_grad=True)
    want = torch.nn.functional.grid_sample(tx, tg, mode, padding, align)
    weights = RNG.random(want.shape, np.float32)
    (want * torch.tensor(weights)).sum().backward()
    with gc.dsl.trace.Trace("f") as trace:
        a, g = trace.input("x", gc.f32[x.shape]), trace.input("g", gc.f32[grid.shape])
        y = gc.grid_sample(a, g, mode, padding, align)
        loss = gc.dsl.function.finish(trace, gc.sum(y * weights))
    np.testing.assert_allclose(run(lambda x, g: gc.grid_sample(x, g, mode, padding, align), x, grid), want.detach().numpy(), rtol=1e-4, atol=1e-5)
    if mode == "nearest":
        dx, dg = gc.compile(gc.grad(loss, wrt="x"))(x, grid), np.zeros_like(grid)
    else:
        dx, dg = gc.compile(gc.grad(loss, wrt=("x", "g")))(x, grid)
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dg, tg.grad.numpy(), rtol=1e-3, atol=1e-4)


def test_places_that_are_no_numbers_read_nothing():
    x = np.ones((1, 1, 2, 2), np.float32)
    for place in (np.nan, np.inf, -np.inf, 1e30):
        got = run(lambda x, g: gc.grid_sample(x, g), x, np.full((1, 1, 1, 2), place, np.float32))
        assert got == 0 or np.isnan(got)
        assert np.isfinite(run(lambda x, g: gc.grid_sample(x, g, "nearest", "border"), x, np.full((1, 1, 1, 2), 1e30, np.float32))).all()


@pytest.mark.parametrize("f, says", (
    (lambda x: gc.resize(x, (3, 3), "area"), "one of nearest"), (lambda x: gc.resize(x, (3, 3), coordinates="corners"), "one of half_pixel"),
    (lambda x: gc.resize(x, (3, 3), crop=(0, 0, 1, 1)), "crop has four numbers"), (lambda x: gc.resize(x, (3, 3), antialias=True), "antialias"),
    (lambda x: gc.resize(x, (3, 3), scales=(0.0, 1.0)), "above 0"), (lambda x: gc.resize(x, (3, 3), scales=(1.0,)), "2 numbers, got 1"),
    (lambda x: gc.resize(x[0], (3,), "cubic", scales="a"), "scales"), (lambda x: gc.grid_sample(x, gc.zeros((1, 2, 2, 3))), "grid"),
    (lambda x: gc.grid_sample(x, gc.zeros((1, 2, 2, 2)), "cubic"), "one of nearest"),
    (lambda x: gc.grid_sample(x, gc.zeros((1, 2, 2, 2), gc.f64)), "one dtype")))
def test_mistakes(f, says):
    with pytest.raises(gc.GraphError, match=says) as caught:
        gc.compile(lambda x: f(x), x=gc.f32[1, 2, 4, 4])
    assert caught.value.loc.file == __file__
