"""Methods that people know of the layers, training steps, optimizers and compiled models of other frameworks, and what
to write here: the answer to an attribute that the thing does not have. (`other_names.py`: names of modules.)
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

_CPU = "all runs on the CPU"
_NO_ZERO = "there is nothing to clear: gradients are values inside of a step, made anew by each call"
_NO_BACKWARD = "step(x, y) does forward, backward and update; gc.grad(f, wrt) is a graph of the gradient"
_BY_COMPILE = "gc.compile(step.model, …) is for inference, gc.train_step trains"
_PLACES = dict.fromkeys(("cuda", "cpu", "to"), f"{_CPU}; x.astype(dtype) converts inside of a graph")

OF_LAYERS = {
    "summary": "write print(gc.plan(net, x=gc.f32[32, 784]))", "fit": "a step has it, gc.train_step(…).fit(x, y)",
    "predict": "a step has it, gc.train_step(…).predict(x)", "eval": "gc.compile(net, …) is for inference",
    "train": "gc.train_step trains, gc.compile(net, training=True, …) runs so", "cuda": _CPU,
    "state_dict": "the arrays are in the state, step.state", "zero_grad": _NO_ZERO,
    "load_state_dict": "gc.compile(net, …, state=file or arrays); a step: step.state.load(arrays)",
    "requires_grad_": "trainable= of gc.train_step says what is trained"}
OF_STEPS = {
    **_PLACES, "zero_grad": _NO_ZERO, "backward": _NO_BACKWARD, "step": "step(x, y) is one step on one batch",
    "train": "each call trains", "eval": f"step.evaluate and step.predict do not train; {_BY_COMPILE}",
    "parameters": "step.state has the arrays by name", "named_parameters": "step.state has the arrays by name",
    "state_dict": "step.state.copy() gives all arrays by name, step.save(path) writes them",
    "load_state_dict": "step.state.load(arrays), or step.load(path)",
    "param_groups": "step.hyper has the hyperparameters by name, step.lr the learning rate",
    "optimizer": "step.hyper has its hyperparameters, step.state its arrays (optim.…)",
    "compile": "gc.train_step(net, loss=…, optimizer=…) compiles at the first call",
    "score": "step.evaluate(x, y, metrics=…)", "transform": "step.predict(x)"}
OF_OPTIMIZERS = {
    "zero_grad": _NO_ZERO, "step": "gc.train_step(net, loss=…, optimizer=…) makes a step, which updates at each call",
    "param_groups": "optim.group(…) gives options to some parameters; step.hyper reads and writes them",
    "add_param_group": "groups=[optim.group(…)] when the optimizer is made",
    **dict.fromkeys(("state", "state_dict", "load_state_dict"), "an optimizer's arrays are in the state of its step: "
                    "step.state[\"optim.<array>.<parameter>\"]"),
    "minimize": "gc.train_step(f, optimizer=…)", "apply_gradients": "gc.train_step does it at each call",
    "init": "gc.train_step makes the first state", "learning_rate": "lr"}
OF_RUNS = {
    **_PLACES, "eval": "it runs as compiled: training=True of gc.compile is the other way",
    **dict.fromkeys(("predict", "run", "forward"), "call it: run(x)"), "backward": _NO_BACKWARD, "zero_grad": _NO_ZERO,
    "train": "gc.train_step trains, gc.compile(net, training=True, …) runs so", "fit": "gc.train_step(…).fit(x, y)",
    **dict.fromkeys(("parameters", "named_parameters", "state_dict"), "run.state has the arrays by name"),
    "load_state_dict": "run.state.load(arrays), or gc.compile(…, state=file)",
    "save": "gc.export makes a library of it, gc.to_onnx a file; gc.save_weights writes the weights"}

OF_FUNCTIONS = {
    **dict.fromkeys(("grad", "backward"), "gc.grad(f, wrt) is a graph of the gradient"),
    **dict.fromkeys(("compile", "lower", "jit", "run", "eval", "forward"), "gc.compile(f) makes native code"),
    "trace": "the graph is traced: print(f)", "summary": "write print(gc.plan(f))", "vmap": "gc.vmap(f)",
    "export": "gc.export makes a library of it, gc.to_onnx a file"}


class Answering:
    """What has not the attribute that is asked for says what to write, for the names of `answers`.

    By descriptors: with `__getattr__`, Python would look up every attribute the slow way, in each call of a step.
    """
    answers: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, text in vars(cls).get("answers", {}).items():
            if not any(name in vars(base) for base in cls.__mro__):
                setattr(cls, name, _Missing(name, text))

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in self.answers or hasattr(self, name)]


class _Missing:
    """An attribute that there is not; those of an instance come before it."""
    __slots__ = ("_name", "_text")

    def __init__(self, name: str, text: str):
        self._name, self._text = name, text

    def __get__(self, thing: object, kind: type) -> NoReturn:
        raise AttributeError(f"{kind.__name__} has no {self._name}: {self._text}", name=self._name)
