"""Models of PyTorch through graphc against PyTorch eager, Inductor, ONNX Runtime and OpenVINO, as far as these are
there, in alternating turns: inference of one sample and of eight, and the training step. What cannot be built is said
once. First calls are those of new code: neither graphc nor Inductor finds any that an earlier run has left."""
from __future__ import annotations

import argparse
import copy
import importlib.util
import math
import os
import statistics
import sys
import tempfile
import time
import timeit
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch._inductor.config
from torch import nn as tnn
from torch._inductor.utils import fresh_inductor_cache

import graphc as gc
from benchmarks.deadline import deadline
from benchmarks.torch_zoo import IMAGES, TIMM, VISION, Model, Tagger, of_images, of_text, of_timm, of_vision
from graphc import nn, optim
from graphc.doors.torch.backend import graphc

SECONDS, TURNS, LEAST_CALLS = 0.15, 7, 1            # of a turn; turns; calls in it
BATCHES = (1, 8)
RATE = 1e-4
PEERS = ("eager", "inductor", "onnxruntime", "openvino")
OURS = ("from_torch", "torch.compile")
SLOWER = 1.1

Call = Callable[[], Any]


def models() -> Iterator[Model]:
    """Small ones of each kind, dropout off; then some of the zoo."""
    layer = tnn.TransformerEncoderLayer(128, 4, 256, dropout=0.0, batch_first=True)
    rows: dict[str, tuple[Callable[[], tnn.Module], Callable[[], torch.Tensor]]] = {
        "MLP 784-512-512-10": (lambda: tnn.Sequential(tnn.Linear(784, 512), tnn.ReLU(), tnn.Linear(512, 512),
                                                      tnn.ReLU(), tnn.Linear(512, 10)), lambda: torch.randn(8, 784)),
        "CNN 28x28": (lambda: tnn.Sequential(
            tnn.Conv2d(1, 32, 3), tnn.BatchNorm2d(32), tnn.ReLU(), tnn.Conv2d(32, 64, 3), tnn.ReLU(), tnn.MaxPool2d(2),
            tnn.Flatten(), tnn.Linear(9216, 10)), lambda: torch.randn(8, 1, 28, 28)),
        "Transformer 2x128, T = 64": (lambda: tnn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
                                      lambda: torch.randn(8, 64, 128)),
        "LSTM 128, T = 64": (lambda: Tagger(tnn.LSTM(16, 128, batch_first=True), 128),
                             lambda: torch.randint(0, 50, (8, 64)))}
    for name, (make, x) in rows.items():
        yield Model(name, lambda make=make, x=x: (make(), [x()]))
    if importlib.util.find_spec("transformers"):
        yield from (of_text(family, False) for family in ("Bert", "GPT2", "Llama"))
        yield from (of_images(family, IMAGES[family]) for family in ("ViT", "ConvNext"))
    if importlib.util.find_spec("torchvision"):
        yield from (of_vision(name, VISION[name]) for name in ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"))
    if importlib.util.find_spec("timm"):
        yield from (of_timm(name, TIMM[name]) for name in ("mixer_s32_224", "deit_tiny_patch16_224"))


@dataclass
class Line:
    """Of one model in one mode: milliseconds of a call, processor seconds until the first one is done."""
    model: str
    mode: str
    times: dict[str, float]
    first: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Our time (from_torch's) as a share of the best peer's."""
        return self.times[OURS[0]] / min(t for name, t in self.times.items() if name in PEERS)

    def __str__(self) -> str:
        text = f"{self.model}, {self.mode}: "
        if self.times:
            text += (", ".join(f"{k} {v:.3f}" for k, v in self.times.items())
                     + f" ms; {self.ratio:.2f} of the best peer; ")
        return text + "first call: " + (", ".join(f"{k} {v:.1f} s" for k, v in self.first.items()) or "not told")


def alternated(calls: dict[str, Call]) -> dict[str, float]:
    """The median milliseconds of a call of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(TURNS):
        for name, call in calls.items():
            end, count = time.perf_counter() + SECONDS, 0
            while count < LEAST_CALLS or time.perf_counter() < end:
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
                count += 1
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


@contextmanager
def cold() -> Iterator[None]:
    """No compiled code of before, and no processes that compile beside this one."""
    with tempfile.TemporaryDirectory() as folder, fresh_inductor_cache(), mock.patch.dict(os.environ, {
            "GRAPHC_CACHE": folder, "GRAPHC_COMPILE_WORKERS": "off"}):
        yield


def worked() -> float:
    """Processor seconds of this process, and of those that it has waited for (compilers)."""
    return sum(os.times()[:4])


def built(makers: dict[str, Callable[[], Call]], patience: float, said: set[str],
          place: Callable[[], AbstractContextManager[None]] = cold) -> tuple[dict[str, Call], dict[str, float]]:
    """The calls that could be made and made once, and the processor seconds of that. `patience`: seconds on the clock
    that another framework may take. `place`: where each is made."""
    calls: dict[str, Call] = {}
    took: dict[str, float] = {}
    for name, make in makers.items():
        start = worked()
        try:
            with warnings.catch_warnings(), place(), deadline(0 if name in OURS else patience, by_clock=True):
                warnings.simplefilter("ignore")
                call = make()
                call()
        except Exception as error:
            if name in OURS:
                raise
            reason = f"without {name}: {type(error).__name__}: {str(error)[:200]}".replace("\n", " ")
            if reason not in said:
                print(reason, flush=True)
            said.add(reason)
            continue
        took[name] = worked() - start
        print(f"  {name}: first call {took[name]:.1f} s", file=sys.stderr, flush=True)
        calls[name] = call
    return calls, took


def inference(module: tnn.Module, inputs: Sequence[torch.Tensor], threads: int) -> dict[str, Callable[[], Call]]:
    """How each answers."""
    arrays = [t.numpy() for t in inputs]

    def ours() -> Call:
        run = gc.compile(gc.from_torch(module, *inputs), threads=threads)
        return lambda: run(*arrays)

    def compiled(backend: Any) -> Callable[[], Call]:
        def make() -> Call:
            torch._dynamo.reset()
            function = torch.compile(module, backend=backend)
            return lambda: function(*inputs)
        return make
    return {"eager": lambda: lambda: module(*inputs), OURS[0]: ours, OURS[1]: compiled(graphc),
            "inductor": compiled("inductor"), "onnxruntime": lambda: _onnxruntime(module, inputs, threads),
            "openvino": lambda: _openvino(module, inputs, threads)}


def _onnxruntime(module: tnn.Module, inputs: Sequence[torch.Tensor], threads: int) -> Call:
    """The same network in ONNX Runtime, by way of `gc.to_onnx`."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model = gc.to_onnx(gc.from_torch(module, *inputs), seed=0)         # its own values
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {given.name: t.numpy() for given, t in zip(session.get_inputs(), inputs)}
    return lambda: session.run(None, feed)


def _openvino(module: tnn.Module, inputs: Sequence[torch.Tensor], threads: int) -> Call:
    import openvino
    model = openvino.convert_model(module, example_input=tuple(inputs))
    request = openvino.Core().compile_model(model, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()      # not bf16, its choice where the CPU has AMX
    arrays = [t.numpy() for t in inputs]
    return lambda: request.infer(arrays)


def training(module: tnn.Module, inputs: Sequence[torch.Tensor], threads: int) -> dict[str, Callable[[], Call]]:
    """How each does a step of AdamW on the squared error."""
    with torch.no_grad():
        target = torch.randn(module(*inputs).shape)
    arrays, y = [t.numpy() for t in inputs], target.numpy()

    def stepped(backend: Any = None) -> Callable[[], Call]:
        def make() -> Call:
            trained = copy.deepcopy(module).train()
            optimizer = torch.optim.AdamW(trained.parameters(), RATE)
            if backend is not None:
                torch._dynamo.reset()
            answer = trained if backend is None else torch.compile(trained, backend=backend)

            def step() -> None:
                loss = tnn.functional.mse_loss(answer(*inputs), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return step
        return make

    def ours() -> Call:
        step = gc.train_step(gc.from_torch(copy.deepcopy(module).train(), *inputs), loss=nn.mse,
                             optimizer=optim.AdamW(RATE), threads=threads, y=gc.f32[tuple(target.shape)])
        return lambda: step(*arrays, y)
    return {"eager": stepped(), OURS[0]: ours, OURS[1]: stepped(graphc), "inductor": stepped("inductor")}


def sized(inputs: Sequence[torch.Tensor], batch: int) -> list[torch.Tensor]:
    """The inputs with so many samples."""
    return [torch.cat([t] * -(-batch // len(t)))[:batch].contiguous() for t in inputs]


def lines(model: Model, options: argparse.Namespace, end: float, said: set[str]) -> Iterator[Line]:
    """All modes of a model, as far as there is time."""
    torch.manual_seed(0)
    module, inputs = model.make()
    module.eval()
    modes = {f"batch {batch}": (inference, batch) for batch in BATCHES}
    for mode, (ways, batch) in {**modes, f"training step, batch {BATCHES[-1]}": (training, BATCHES[-1])}.items():
        left = end - time.perf_counter()
        if left <= 0:
            print(f"no time for {model.name}, {mode}", flush=True)
            continue
        with torch.inference_mode() if ways is inference else nullcontext():
            makers = ways(module, sized(inputs, batch), options.threads)
            calls, took = built({k: v for k, v in makers.items() if k not in options.without},
                                min(options.patience, left), said, nullcontext if options.warm else cold)
            yield Line(model.name, mode, {} if options.first else alternated(calls), {} if options.warm else took)


def call() -> str:
    """What tensors cost as arguments, over numpy's arrays."""
    @gc.graph
    def total(a: gc.f32[4], b: gc.f32[4], c: gc.f32[4], d: gc.f32[4], e: gc.f32[4], f: gc.f32[4], g: gc.f32[4],
              h: gc.f32[4], i: gc.f32[4], j: gc.f32[4]) -> Any:
        return a + b + c + d + e + f + g + h + i + j
    run, tensors = gc.compile(total, threads=1), [torch.randn(4) for _ in range(10)]
    arrays = [t.numpy() for t in tensors]

    def least(given: Sequence[Any]) -> float:
        return 1e6 / 1000 * min(timeit.repeat(lambda: run(*given), number=1000, repeat=15))
    usual = f"a call with ten arrays {least(arrays):.2f} us, with ten tensors {least(tensors):.2f} us"
    with torch.no_grad():
        return f"{usual}, where no gradients are recorded {least(tensors):.2f} us"


def summary(found: Sequence[Line]) -> Iterator[str]:
    """The means, and what is slower than it should be."""
    for text, of in (("inference", [x for x in found if "training" not in x.mode]),
                     ("training step", [x for x in found if "training" in x.mode])):
        if of := [x for x in of if x.times]:
            mean = math.exp(float(np.mean([math.log(x.ratio) for x in of])))
            yield f"{text}: geometric mean {mean:.2f} of the best peer's time, {len(of)} lines"
    yield from (f"slower: {x.model}, {x.mode}: {x.ratio:.2f}" for x in found
                if x.times and x.ratio > SLOWER)
    for ours in OURS:
        firsts = [x.first[ours] / x.first["inductor"] for x in found if {ours, "inductor"} <= x.first.keys()]
        if firsts:
            mean = math.exp(float(np.mean(np.log(firsts))))
            yield f"first call of {ours}: geometric mean {mean:.2f} of Inductor's, at most {max(firsts):.2f}"


def main(arguments: list[str]) -> None:
    """Prints a line for each model and mode, then the means."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks torch speed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", action="append", help="models whose name contains it")
    parser.add_argument("--without", action="append", default=[], choices=[*PEERS[1:], OURS[1]])
    parser.add_argument("--first", action="store_true", help="first calls alone, of graphc and Inductor")
    parser.add_argument("--warm", action="store_true", help="code of earlier runs is taken, first calls are not told")
    parser.add_argument("--minutes", type=float, default=12, help="no new mode of a model after so long")
    parser.add_argument("--part", default="0/1", help="i/n: the i-th of n parts of the models")
    parser.add_argument("--patience", type=float, default=120, help="seconds for the first call of another framework")
    options = parser.parse_args(arguments)
    options.without += ("eager", "onnxruntime", "openvino") if options.first else ()
    torch.set_num_threads(options.threads)
    torch._inductor.config.compile_threads = 1          # no workers, which would outlive what they are measured beside
    end, found, said = time.perf_counter() + 60 * options.minutes, list[Line](), set[str]()
    print(call(), flush=True)
    part, parts = map(int, options.part.split("/"))
    for model in list(models())[part::parts]:
        if options.only and not any(text in model.name for text in options.only):
            continue
        try:
            for line in lines(model, options, end, said):
                found.append(line)
                print(line, flush=True)
        except Exception as error:
            print(f"BAD {model.name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
    print("\n".join(summary(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
