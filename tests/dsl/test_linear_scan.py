"""The first-order recurrence as users write it."""
import numpy as np

import graphc as gc


def test_discounted_returns_and_their_gradient():
    @gc.graph
    def returns(reward: gc.f64[5], discount: gc.f64[()]):
        return gc.linear_scan(discount, reward, reverse=True)[0]
    reward = np.array([1.0, 0, 2, 0, 3])
    np.testing.assert_allclose(returns(reward, np.array(0.5)), 1 + 2 / 4 + 3 / 16)
    slope, by_discount = gc.grad(returns, wrt=("reward", "discount"))(reward, np.array(0.5))
    np.testing.assert_allclose(slope, 0.5 ** np.arange(5))
    np.testing.assert_allclose(by_discount, 2 * 2 * 0.5 + 3 * 4 * 0.125)


def test_moving_average_of_rows():
    @gc.graph
    def average(x: gc.f32[3, 40]):
        return gc.linear_scan(0.9, x * 0.1, axis=-1)
    x = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    expected, level = np.empty_like(x), np.zeros(3, np.float32)
    for t in range(40):
        level = expected[:, t] = 0.9 * level + 0.1 * x[:, t]
    np.testing.assert_allclose(average(x), expected, rtol=1e-4, atol=1e-6)
