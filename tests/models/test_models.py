"""The known networks: counts of parameters as published, planned without a weight; small ones run."""
import resource
import time

import numpy as np
import pytest

import graphc as gc
from graphc import models

IMAGE, TOKENS = gc.f32[1, 3, 224, 224], gc.i32[1, 128]
# network, input: parameters (torchvision's and transformers' documentation, or their modules' numel)
PUBLISHED = {
    "alexnet": (lambda: models.alexnet(), IMAGE, 61_100_840),
    "resnet18": (lambda: models.resnet18(), IMAGE, 11_689_512),
    "resnet50": (lambda: models.resnet50(), IMAGE, 25_557_032),
    "mobilenet": (lambda: models.mobilenet(), IMAGE, 4_231_976),
    "bert": (lambda: models.bert(pooled=True), TOKENS, 109_482_240),
    "bert_large": (lambda: models.bert_large(pooled=True), TOKENS, 335_141_888),
    "gpt": (lambda: models.gpt(), TOKENS, 116_534_784),
    "gpt2": (lambda: models.gpt2(), TOKENS, 124_439_808),
    "gpt2_xl": (lambda: models.gpt2("xl"), TOKENS, 1_557_611_200),
    "gpt2_xl_of_the_paper": (lambda: models.gpt2("xl", vocabulary=40478), TOKENS, 1_541_964_800),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name):
    make, type, count = PUBLISHED[name]
    assert gc.plan(make(), x=type).parameters == count


def test_gpt3_is_planned_in_seconds():
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    plan = gc.plan(models.gpt3(), ids=gc.i32[1, 2048])
    assert 174e9 < plan.parameters < 176e9
    assert plan.memory.state == 4 * plan.parameters
    assert time.process_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000       # KB


def small_ids():
    return np.random.default_rng(0).integers(0, 50, (2, 9)).astype(np.int32)


def test_small_gpt_is_causal():
    run = gc.compile(models.gpt(50, 16, 2, 2, 12, pre_norm=True), ids=gc.i32[2, 9], seed=0)
    ids = small_ids()
    later = ids.copy()
    later[:, 6:] = (later[:, 6:] + 1) % 50
    a, b = run(ids), run(later)
    assert a.shape == (2, 9, 50)
    assert (a[:, :6] == b[:, :6]).all() and (a[:, 6:] != b[:, 6:]).any()


def test_generation_is_what_the_scores_say():
    net = models.gpt(50, 16, 2, 2, 24, pre_norm=True)
    ids = small_ids()
    more = gc.generate(net, ids, 8, seed=0)
    scores = gc.compile(net, ids=gc.i32[2, 16], seed=0)(np.concatenate([ids, more[:, :-1]], axis=1).astype(np.int32))
    assert (scores[:, 8:].argmax(-1) == more).all()


def test_tied_and_untied_heads():
    tied, untied = (gc.plan(models.gpt(50, 16, 2, 2, 12, tied=t), ids=gc.i32[2, 9]).parameters for t in (True, False))
    assert untied - tied == 50 * 16


def test_bert_segments_and_mask():
    types = {"ids": gc.i32[2, 9], "segments": gc.i32[2, 9], "mask": gc.bool_[2, 1, 1, 9]}
    run = gc.compile(models.bert(50, 16, 2, 2, 12), seed=0, **types)
    ids, mask = small_ids(), np.ones((2, 1, 1, 9), bool)
    mask[0, ..., 5:] = False
    padded = ids.copy()
    padded[0, 5:] = 7
    zeros, ones = np.zeros_like(ids), np.ones_like(ids)
    assert (run(ids, zeros, mask)[0, :5] == run(padded, zeros, mask)[0, :5]).all()
    assert (run(ids, ones, mask) != run(ids, zeros, mask)).any()


@pytest.mark.parametrize("make, width", [
    (lambda width: models.resnet(models.BasicBlock, (1, 1, 1, 1), 10, width), 8),
    (lambda width: models.mobilenet(10, width), 64)])
def test_widths(make, width):
    """Convolutions between two scaled layers grow with the square of the width."""
    narrow, wide = (gc.plan(make(n), x=gc.f32[1, 3, 64, 64]).parameters for n in (width, 2 * width))
    assert 3 * narrow < wide < 4 * narrow


def test_one_step_of_training():
    step = gc.train_step(models.gpt(50, 16, 2, 2, 12, pre_norm=True), loss=gc.nn.cross_entropy,
                         optimizer=gc.optim.AdamW(1e-2),
                         ids=gc.i32[2, 9], y=gc.i32[2, 9], seed=0)
    ids = small_ids()
    losses = [step(ids, ids) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0] and abs(losses[0] - np.log(50)) < 0.3


def test_renamed():
    arrays = {"a.0.q": np.zeros((2, 3)), "a.0.k": np.ones((2, 3)), "a.0.w": np.arange(6).reshape(2, 3),
              "drop": np.zeros(1), "same": np.ones(2)}
    rules = [(r"a\.(\d)\.q", r"\1.qk[0]"), (r"a\.(\d)\.k", r"\1.qk[1]"), (r"a\.(\d)\.w", r"\1.w", np.transpose),
             ("drop", "")]
    found = models.renamed(arrays, rules)
    assert set(found) == {"0.qk", "0.w", "same"}
    assert found["0.w"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["0.qk"].tolist() == [[0] * 3] * 2 + [[1] * 3] * 2


def test_renamed_refuses_one_name_for_two():
    with pytest.raises(gc.GraphError, match="two arrays the name 'w'; the second is 'b'"):
        models.renamed({"a": np.zeros(1), "b": np.zeros(1)}, [("[ab]", "w")])


def test_in_order():
    net = models.lenet()
    with pytest.raises(gc.GraphError, match="trace it first"):
        models.in_order(net, {})
    gc.plan(net, x=gc.f32[1, 1, 8, 8])
    shapes = [p.type.shape for _, p in net.named_parameters()]
    arrays = {f"torch{i}": np.zeros(s) for i, s in enumerate(shapes)} | {"num_batches_tracked": np.array(0)}
    assert list(models.in_order(net, arrays)) == [n for n, _ in net.named_parameters()]
    with pytest.raises(gc.GraphError, match="8 parameters, 7 arrays"):
        models.in_order(net, dict(list(arrays.items())[:7]))
    with pytest.raises(gc.GraphError, match=r"0.weight is f32\[32, 1, 3, 3\], torch0 at the same place is \[32\]"):
        models.in_order(net, {**arrays, "torch0": np.zeros(32)})


def test_unknown_size():
    with pytest.raises(gc.GraphError, match="the sizes of GPT-2 are small, medium, large, xl, got 'huge'"):
        models.gpt2("huge")
