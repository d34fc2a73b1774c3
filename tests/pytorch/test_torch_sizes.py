"""Sizes for which PyTorch read a module: others are an error, and not the other branch of the module."""
import ast
import re

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.export import Dim, export  # noqa: E402
from graphc.doors.torch.guards import where_it_holds  # noqa: E402

pytestmark = pytest.mark.peers
KEEPS_GUARDS = hasattr(export(nn.Identity(), (torch.ones(2),)), "_guards_code")


class If(nn.Module):
    """Another function on one side of a condition of its size."""

    def __init__(self, condition):
        super().__init__()
        self.condition = condition

    def forward(self, x):
        return x * 2 if self.condition(x.shape[0]) else x + 1


LARGE, SMALL, EVEN = If(lambda n: n > 3), If(lambda n: n < 9), If(lambda n: n % 2 == 0)
X = torch.ones(6, 2)


def strided():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def rightly_or_not(module, net, sizes, shape=(2,)):
    """The sizes at which a call is right; others are refused."""
    run, right = gc.compile(net), []
    for n in sizes:
        x = torch.randn(n, *shape)
        try:
            found = run(x.numpy())
        except GraphError:
            continue
        assert np.allclose(found, module(x).detach(), atol=1e-5), n
        right.append(n)
    return right


@pytest.mark.parametrize("module, dynamic, right", [
    (LARGE, {"x": {0: "B"}}, [4, 6, 9]), (LARGE, {"x": {0: Dim("B", min=5)}}, [6, 9]), (LARGE, ({0: Dim("B", min=4, max=6)},), [4, 6]),
    (SMALL, [("B", None)], [1, 2, 3, 4, 6]), (EVEN, {"x": {0: 2 * Dim("half")}}, [2, 4, 6]), (EVEN, {"x": {0: "B"}}, [2, 4, 6])],
    ids=["name", "Dim", "tuple", "list", "multiple", "guard"])
def test_sizes_of_a_module(module, dynamic, right):
    net = gc.from_torch(module, X, dynamic=dynamic)
    assert rightly_or_not(module, net, [1, 2, 3, 4, 6, 9]) == right
    with pytest.raises(GraphError, match="If was read for"):
        gc.compile(net, x=gc.f32[{SMALL: 9, EVEN: 3}.get(module, 3), 2])


@pytest.mark.parametrize("module, dim, right", [
    (LARGE, Dim("B", min=4), [4, 6, 9]), (SMALL, Dim("B", max=8), [1, 2, 3, 4, 6]), (LARGE, Dim.AUTO, [4, 6, 9]),
    (If(lambda n: n != 3), Dim.AUTO, [1, 2, 4, 6, 9]), (EVEN, Dim.AUTO, [2, 4, 6])], ids=["least", "most", "found", "unequal", "even"])
def test_sizes_of_a_program(module, dim, right):
    if dim is Dim.AUTO and module is not LARGE and not KEEPS_GUARDS:
        pytest.skip("this PyTorch does not keep its guards")
    net = gc.from_torch(export(module, (X,), dynamic_shapes=({0: dim},)))
    assert rightly_or_not(module, net, [1, 2, 3, 4, 6, 9]) == right


class Of(nn.Module):
    """Another function on one side of a condition of several sizes."""

    def __init__(self, condition):
        super().__init__()
        self.condition = condition

    def forward(self, X, more):
        (y,) = more["of-it"]
        return X * 2 if self.condition(*X.shape, *y.shape) else X + 1


@pytest.mark.skipif(not KEEPS_GUARDS, reason="this PyTorch does not keep its guards")
@pytest.mark.parametrize("condition, text", [
    (lambda a, b, c: a < c, r"X.shape\[0\] < more\['of-it'\]\[0\].shape\[0\]: .* from 1 on, got -?\d"), (lambda a, b, c: a >= c, "from 1 on, got 0"), (lambda a, b, c: a == c, "from 1 on, got 0"),
    (lambda a, b, c: a == 2 and b == c, ""), (lambda a, b, c: a * b > 2 * c + 1, "from 0 on, got -"), (lambda a, b, c: (a + b) % 3 == 0, ""), (lambda a, b, c: max(a, b) < c, ""),
    (lambda a, b, c: not a < b < c, ""), (lambda a, b, c: c // 2 == a, ""), (lambda a, b, c: a == 3 and b < 9000, "")])
def test_sizes_beside_each_other(condition, text):
    """Conditions of two sizes, inputs inside of a dict and a list, and names of more than small letters."""
    module, x, y, right, refused = Of(condition), torch.ones(3, 5), torch.ones(7), 0, ""
    some = {0: Dim.AUTO, 1: Dim.AUTO}
    net = gc.from_torch(export(module, (x, {"of-it": [y]}), dynamic_shapes=(some, {"of-it": [{0: Dim.AUTO}]})))
    run, names = gc.compile(net), list(net.declared_inputs())
    for a, b, c in ((3, 5, 7), (4, 6, 9), (2, 4, 5), (7, 5, 7), (5, 5, 3), (3, 2, 1), (2, 7, 7), (3, 4, 6), (6, 3, 2)):
        x, y = torch.randn(a, b), torch.randn(c)
        try:
            found = run(**dict(zip(names, (x.numpy(), y.numpy()))))
        except GraphError as error:
            refused += str(error)
            continue
        assert np.allclose(found, module(x, {"of-it": [y]})), (a, b, c)
        right += 1
    assert 0 < right
    assert re.search(text, refused)


@pytest.mark.parametrize("guard, ranges", [
    ("Max(2, n // 2, n - 5) < 4", [(0, 7)]), ("min(n, 9, n + 1) == 9", [(9, None)]), ("n != 5", [(0, 4), (6, None)]), ("not (3 <= n and n <= 8)", [(0, 2), (9, None)]),
    ("n < 200000", []), ("n.real < 4", [])])
def test_guards_of_one_size(guard, ranges):
    tree = ast.parse(re.sub(r"\bn\b", "L['x'].size()[0]", guard), mode="eval").body
    assert where_it_holds(tree, 0, None) == ranges


def test_height_and_width_of_strided_convolutions():
    """torch.export takes no name alone for these: it asks how images of one pixel lie in memory."""
    module, x = strided(), torch.randn(2, 3, 16, 18)
    run = gc.compile(gc.from_torch(module, x, dynamic={"input": {0: "B", -2: "H", -1: "W"}}))
    for shape in ((1, 3, 5, 9), (3, 3, 40, 7), (2, 3, 1, 4), (1, 3, 1, 1)):
        given = torch.randn(shape)
        assert np.allclose(run(given.numpy()), module(given).detach(), atol=1e-5)


def test_arguments_that_are_one_tensor():
    """Attention asks whether its keys are its queries; those of a call are others."""
    module, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(2, 5, 8)
    q, k, v = torch.randn(3, 3, 4, 8)
    run = gc.compile(gc.from_torch(module, x, x, x, dynamic={name: {0: "B", 1: "T"} for name in ("query", "key", "value")}))
    assert np.allclose(run(q.numpy(), k.numpy(), v.numpy())[0], module(q, k, v)[0].detach(), atol=1e-5)


def test_a_step_of_such_sizes():
    step = gc.train_step(gc.from_torch(nn.Sequential(nn.Linear(2, 2), LARGE), X, dynamic={"input": {0: "B"}}), loss=gc.nn.mse,
                         optimizer=gc.optim.SGD(0.1), y=gc.f32["B", 2])
    step(np.ones((4, 2), np.float32), np.ones((4, 2), np.float32))
    with pytest.raises(GraphError, match="read for B: a size from 4 on, got 3"):
        step(np.ones((3, 2), np.float32), np.ones((3, 2), np.float32))


@pytest.mark.parametrize("dynamic, text", [
    (True, 'dynamic= got True: write dynamic={"x": {0: "B"}}'), ({"x": "B"}, "got 'B' for x: write"), ({"x": {0: 5}}, "got 5 for axis 0 of x: write"),
    ({"x": {2: "B"}}, "names axis 2 of x, which has 2 axes"), ({"x": {0: "a b"}}, "got 'a b' for axis 0"), ({"y": {0: "B"}}, "names y; the example arguments are x"),
    ({"x": {0: Dim.AUTO}}, "for axis 0 of x: write"), ({"x": ("B", "B")}, "names axis 1 of x B, which is 2 in the example, and another of 6")])
def test_mistakes_in_dynamic(dynamic, text):
    with pytest.raises(GraphError) as error:
        gc.from_torch(LARGE, X, dynamic=dynamic)
    assert text in str(error.value)


def test_arguments_that_the_module_does_not_take():
    with pytest.raises(GraphError, match="too many positional arguments"):
        gc.from_torch(LARGE, X, X)
