"""Damaged models: read all the same or refused with a GraphError. `python -m benchmarks onnx mutations` makes 10,000."""
import numpy as np

from benchmarks.onnx_damaged import mutated, small_models, survives

COUNT = 150


def test_no_damage_is_more_than_an_error():
    models, random = small_models(), np.random.default_rng(1)
    results = [survives(mutated(models[int(random.integers(len(models)))], random)) for _ in range(COUNT)]
    assert 0 < results.count("read") < COUNT
