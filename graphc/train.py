"""The training step: forward, backward and update of a network as ONE graph, with the state that it owns."""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import graphc as gc
from graphc import optim
from graphc.api import budget_of
from graphc.apart import Share, started
from graphc.checkpoint import load_arrays, save_arrays
from graphc.compiler import Compilation
from graphc.config import MOST_I64, thread_count
from graphc.dsl.context import user_loc
from graphc.dsl.debug import with_printed
from graphc.dsl.form import formed, formed_methods
from graphc.dsl.function import GraphFunction
from graphc.dsl.other_methods import OF_STEPS, Answering
from graphc.errors import GraphError, InternalError
from graphc.execute import Runnable
from graphc.fitting.trainer import Trainer, check_shards
from graphc.given import integer
from graphc.hyper import Hyperparameters
from graphc.ir.convert import is_sequence, real, shown
from graphc.ir.graph import Graph
from graphc.ir.shown import Shown
from graphc.ir.types import DType, TensorType
from graphc.memory.usage import Memory
from graphc.nn.entry import Entry
from graphc.nn.module import Function, Module, as_module
from graphc.nn.network import entries, sorted_out
from graphc.nn.parameter import Parameter
from graphc.product_types import training_compute
from graphc.ranks import ALONE, Ranks
from graphc.runtime.arguments import array_of_any_type
from graphc.shards import ShardedProgram, step_program
from graphc.state import Model, Own, State
from graphc.training_graph import EMA, REPORTS, STEP, Objective, Recipe

if TYPE_CHECKING:
    from graphc.profile import Profile

MOST_SHARDS = 1 << 16
FIT = "fit/"                        # begins the names of what a checkpoint keeps of a run of `fit`


@formed
def train_step(f: Callable[..., Any], /, *, optimizer: optim.Optimizer, loss: Callable[..., Any] | None = None,
               trainable: object = None, seed: int = 0, threads: int | str = 0, state: State | str | None = None,
               report: str | Sequence[str] = (), outputs: Sequence[str] = (), ema: float | None = None,
               compute: str | DType | None = None, memory: str | int | None = None, shards: int | None = None,
               comm: Any = None, **types: TensorType) -> "TrainStep":
    """A training step that is one native call.

    Short form: `train_step(net, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3), x=gc.f32[64, 784], y=gc.i32[64])`;
    the last input goes to the loss, the others to the network. General form, without `loss`: `f` takes all inputs by
    name and returns a scalar loss, or (loss, {name: array}). `trainable`: a network, a list of networks, or a predicate
    on parameter names; what it leaves out keeps its value, and batch norms among it work as in inference. `seed`
    decides the first parameters and all random numbers. `threads`: as of `gc.compile`.

    `state`: that of another step, `other.state`, with which this one shares the parameters and statistics of layers
    that both use, and the random numbers' key (generator and discriminator, actor and critic, pretraining and
    fine-tuning); steps and optimizer arrays are its own. Without it the step has parameters of its own. If another step
    that lives has trained one of the layers, the first call raises GraphError, unless values were loaded or written
    before, or the step is that one made again by the same line, or state="own" says that it is meant. An input may be
    called like an option (`state=gc.f32[3]`); then that option cannot be given.

    What a call returns beside the loss, in a dict: `report`, of "grad_norm" (before clipping), "update_norm",
    "param_norm" (before the update) and "update_ratio", 2-norms over all that is trained; `outputs`, names of
    intermediate values as of `gc.compile`. `ema`, a decay such as 0.999: an exponential average of the parameters,
    ema = decay ema + (1 - decay) p after each update (the first begins it), which `step.averaged` is bound to.

    `compute`: "bf16": factors of products, forward and backward, are rounded to bf16, as of gc.compile; parameters,
    gradients and the update stay f32. "int8": training for a network that will be compiled with compute="int8": the
    forward pass rounds the factors of products by weights as that does, in f32, and gradients go straight through.

    `memory`: bytes that a call may take (`step.memory.total`, parameters included), or a text such as "300 MB". What
    does not fit is computed again in the backward pass, by the same kernels, the cheapest first: `step.explain()` says
    what. GraphError, when the step is compiled, where even that does not fit. With `shards` it is that of all of them:
    what is left for the gradients of one, which are computed one after the other.

    `shards`: the batch is cut along its first axis into so many parts; one compiled function gives the gradients of
    each, a fixed tree adds them, one update follows. Loss, gradients and what is reported are means of the shards'
    weighted by their rows (with `ignore_index` of a loss, too); each shard draws its own random numbers, and batch
    norms take the statistics of a shard. `comm`, a communicator of mpi4py: its ranks share the shards, and have the
    same bytes of state as one process; see `gc.distributed`.
    """
    options = {"loss": loss, "trainable": trainable, "seed": seed, "threads": threads, "state": state,
               "report": report, "outputs": outputs, "ema": ema, "compute": training_compute(compute),
               "memory": memory, "shards": shards, "comm": comm}
    given, inputs = sorted_out(f, train_step, options, types)
    options = dict(given)
    seed, threads, state, comm = (options.pop(name) for name in ("seed", "threads", "state", "comm"))
    _check(optimizer, options["loss"], state, inputs)
    step = TrainStep(_recipe(f, inputs, optimizer, options), integer(seed, "seed", 0, MOST_I64, user_loc()),
                     thread_count(threads, loc=user_loc()), state)
    return step if comm is None else gc.distributed(step, comm)


def _recipe(f: Callable[..., Any], types: Mapping[str, TensorType], optimizer: optim.Optimizer,
            options: Mapping[str, Any]) -> Recipe:
    loss, trainable, report, outputs, ema, compute, memory, shards = options.values()
    return Recipe(Objective(as_module(f), loss), types, optimizer, trainable, report=_reports(report),
                  outputs=_outputs(outputs), ema=_decay(ema), compute=compute, memory=budget_of(memory),
                  shards=None if shards is None else integer(shards, "shards", 1, MOST_SHARDS, user_loc()))


def _check(optimizer: object, loss: object, state: object, types: Mapping[str, TensorType]) -> None:
    """GraphError for options that are not what they are called."""
    if not isinstance(optimizer, optim.Optimizer):
        raise GraphError(f"optimizer= takes one of graphc.optim, for example optim.AdamW(1e-3), got {optimizer!r}",
                         user_loc())
    if loss is not None and not callable(loss):
        raise GraphError(f"loss= takes a function of prediction and target such as nn.mse, got {loss!r}", user_loc())
    if state is not None and state != "own" and not isinstance(state, State):
        raise GraphError(f'state= takes the state of another step, step.state, to share layers with it, or "own"; got '
                         f"{type(state).__name__}. Values come from a file by step.load(path), from a mapping by "
                         "step.state.load(arrays)",
                         user_loc())
    if loss is not None and len(types) < 2:
        raise GraphError("with loss=, give the types of the network's inputs and, last, of the target: x=gc.f32[…], "
                         "y=gc.i32[…]", user_loc())


def _reports(given: str | Sequence[str]) -> tuple[str, ...]:
    """What report= asks for."""
    names = (given,) if isinstance(given, str) else given
    if not is_sequence(names) or not all(isinstance(n, str) and n in REPORTS for n in names):
        raise GraphError(f"report= takes names among {', '.join(REPORTS)}, got {shown(given)}", user_loc())
    return tuple(names)


def _outputs(given: Sequence[str]) -> tuple[str, ...]:
    """What outputs= asks for."""
    if not is_sequence(given) or not all(isinstance(n, str) for n in given):
        raise GraphError(f'outputs= takes a list of names, for example outputs=["0", "features.3"], got {shown(given)}',
                         user_loc())
    return tuple(given)


def _decay(given: float | None) -> float | None:
    """What ema= says."""
    if given is not None and not 0 <= real(given, "ema") < 1:
        raise GraphError(f"ema= is a decay in [0, 1), such as 0.999, got {shown(given)}", user_loc())
    return None if given is None else real(given, "ema")


class TrainStep(Trainer, Shown, Answering):
    """Call it with one batch: it returns the loss as a float, or a dict if the function reports more values.

    `state[name]` reads and writes parameters, running statistics, optimizer arrays ("optim.<array>.<parameter>"),
    "step" and "random.key"; `lr` and `hyper[name]` hyperparameters. `model` can be compiled for inference. `graph` is
    the whole step, as of a batch that is not cut into shards; `dump` shows what runs.

    Examples:
        >>> x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
        >>> step = gc.train_step(nn.Linear(1), loss=nn.mse, optimizer=optim.SGD(0.5), x=gc.f32[32, 1], y=gc.f32[32, 1])
        >>> losses = [step(x, 3 * x) for _ in range(50)]
        >>> step.state["weight"].round(3)
        array([[3.]], dtype=float32)
    """
    answers = OF_STEPS

    def __init__(self, recipe: Recipe, seed: int, threads: int, state: State | str | None = None):
        """`recipe` says what the step does; the rest as of `train_step`."""
        function, trained = recipe.function()
        self._threads, self._seed, self.made = threads, seed, user_loc()
        self._kept: dict[str, np.ndarray] = {}          # where the run was that the file loaded last is of
        self._ranks: Ranks = ALONE
        self.state, self.own = (state if isinstance(state, State) else State()), state == "own"
        self._become(recipe, function)
        if recipe.optimizer.start is not None:
            recipe.optimizer.start(self)
        self.version = self.state.lock.version
        names = {e.key: e.name for e in entries(function) if isinstance(e.key, Parameter)}
        self.share = Share(names, trained, {c.path: c.kind for c in function.calls})

    def _become(self, recipe: Recipe, function: GraphFunction) -> None:
        """From now on the step is `function`, the graph of `recipe`, on the state that it has."""
        if recipe.shards is not None:
            check_shards(function)
        self._shown, self._printer = with_printed(function)
        self.state.join(entries(function), self._seed, self)
        self._recipe, self._function, self._types = recipe, function, function.inputs
        self._forget()

    def _forget(self) -> None:
        """Without native code: as made, and as copied or pickled."""
        super()._forget()
        # made by functions of what the step has, not by its methods: a step that nobody needs is gone at once
        self._programs = step_program(self._recipe, self._shown, self.state, self._threads, self._ranks)
        self._fixed: Runnable | ShardedProgram | None = None
        self._called = False

    def __getstate__(self) -> dict[str, Any]:
        made = ("_programs", "_evaluations", "_predictions", "_variants", "_run", "_fixed", "_called", "_ranks")
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, values: dict[str, Any]) -> None:
        vars(self).update(values)
        self._ranks = ALONE
        self._forget()
        self.own = True                     # a copy of a step is apart from it on purpose

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}: {type}" for name, type in self._types.items())
        return f"<training step {self.graph.name}({inputs}), {len(self.state)} arrays of state>"

    @property
    def function(self) -> tuple[Module, Callable[..., Any] | None]:
        """What is trained: the network and the loss, or the function that returns the loss."""
        return self._recipe.objective.root, self._recipe.objective.loss

    @property
    def graph(self) -> Graph:
        """Forward, backward and update, before any optimisation."""
        return self._function.graph

    def entries(self) -> tuple[Entry, ...]:
        """What the step reads and writes, by the names that it has in the state."""
        return tuple(replace(e, name=self.state.name(e.key) or e.name) for e in entries(self._function))

    def to_torch(self, module: Any) -> None:
        """Parameters and buffers of the network that `gc.from_torch` made of `module`, back into the module."""
        gc.to_torch(self, module)

    @property
    def traced(self) -> GraphFunction:
        """The whole step as a function, which knows who owns each array of the state."""
        return self._function

    def as_one(self, what: str) -> GraphFunction:
        """The same, for what holds one function of a step. GraphError of a step with shards, which has several."""
        if self._recipe.shards is not None:
            raise GraphError("a step with shards= is several functions and the sums between them, and "
                             f"{what} holds one: make the step without shards=, and give it this state: "
                             "other.state.load(step.state.copy())", user_loc())
        return self._function

    @property
    def model(self) -> Model:
        """The network, bound to this state: `gc.compile(step.model, x=gc.f32[1, 784])`."""
        if self._recipe.objective.loss is None and isinstance(self._recipe.objective.root, Function):
            raise GraphError("this step trains a function, not a network: compile the network inside with "
                             "state=step.state", user_loc())
        return Model(self._recipe.objective.root, self.state)

    @property
    def hyper(self) -> Hyperparameters:
        """Learning rate, momentum, weight decay … by name: read, and written, also between two steps."""
        return Hyperparameters(self)

    @property
    def lr(self) -> float:
        """The learning rate: `hyper["lr"]`; that of the next update, if it is a schedule. `step.lr = 1e-4` writes a
        number."""
        return cast(float, self.hyper["lr"])            # every optimizer declares it as one number

    @lr.setter
    def lr(self, value: float) -> None:
        self.hyper["lr"] = value

    @property
    def ranks(self) -> Ranks:
        """Those who share the shards: `rank` of `count`; one rank has all of them."""
        return self._ranks

    @property
    def sharded(self) -> ShardedProgram:
        """The native code of a step with shards."""
        if not isinstance(self._programs, ShardedProgram):
            raise GraphError("this step has no shards: make it with shards=8, say", user_loc())
        return self._programs

    def join(self, ranks: Ranks, threads: int) -> None:
        """From now on the ranks share the shards, each with so many threads unless the step was made with others."""
        ranks.origin, self.state.written = self.state.lock.version, 0 if ranks.count > 1 else None
        self._ranks, self._threads = ranks, self._threads or threads
        self._forget()

    def part(self, rows: int) -> slice:
        """Which rows of a batch of so many this rank gives: all, if there is one rank."""
        return self._ranks.part(rows, self._recipe.shards or 1)

    def scatter(self, *arrays: Any) -> float | dict[str, Any]:
        """One step on a batch that rank 0 gives, in the order of the inputs; the other ranks give nothing."""
        return self(*self._ranks.dealt(arrays, self._recipe.shards or 1))

    def remade(self, recipe: Recipe) -> None:
        """The step does from now on what `recipe` says, on the state that it has."""
        function, _ = recipe.function()
        self._become(recipe, function)

    @property
    def recipe(self) -> Recipe:
        """What the step is made from."""
        return self._recipe

    @property
    def averaged(self) -> Model:
        """The network with the exponential averages of its parameters (`ema=`), for gc.compile, as `model`."""
        model, key = self.model, self._recipe.key
        if self._recipe.ema is None:
            raise GraphError("this step averages nothing: make it with ema=0.999, say", user_loc())
        if not self._steps_done():
            raise GraphError("there is no average before the first step", user_loc())
        return Model(model.net, self.state.seen_as({p: Own(key, EMA, p) for p in self.share.trained}))

    def __call__(self, *arrays: Any, **named: Any) -> float | dict[str, Any]:
        """One step on one batch, in the order of the declared inputs or by name."""
        if named or len(arrays) != len(self._types):
            arrays = self._ordered(arrays, named)
        run = self._fixed or self._first(arrays)
        result: Any = run(*arrays)
        if self._printer is not None:
            result = self._printer(result)
            result = result["loss"] if len(result) == 1 and not self._recipe.outputs else result
        return {name: _number(value) for name, value in result.items()} if isinstance(result, dict) else float(result)

    def save(self, path: str | os.PathLike[str]) -> None:
        """The whole state as safetensors; training resumes from it bit for bit. While `fit` runs, with the place where
        it is. All ranks of a distributed step call it, and rank 0 writes."""
        run = {} if self._run is None else {FIT + name: array for name, array in self._run.arrays().items()}
        arrays = run | self.state.saved()
        self._ranks.from_first(lambda: save_arrays(path, arrays), "step.save")

    def load(self, path: str | os.PathLike[str], partial: bool = False) -> None:
        """Takes the state from a file that `save` wrote; `partial`: what the file has (weights from elsewhere, say),
        the rest stays. GraphError, and nothing changed, if it does not fit. Of a distributed step rank 0 reads it."""
        arrays = self._ranks.from_first(lambda: load_arrays(path), "step.load")
        self.hyper.make_live(name for name in self.hyper.numbers if self.hyper.saved_as(name) in arrays)
        self.state.load(arrays, str(path), partial=partial)
        self._kept = {name.removeprefix(FIT): a for name, a in arrays.items() if name.startswith(FIT)}

    @property
    def memory(self) -> Memory | None:
        """Bytes of arena, parameters, inputs and outputs; known before the first run. The oracle knows none."""
        return self._programs.memory

    def dump(self, stage: str = "graph") -> str:
        """The step as text at a stage: graph, fused, loops, llvm or asm."""
        return self._programs.dump(stage)

    def explain(self) -> str:
        """Which products `compute=` left in f32, why neighbours were not fused, and among which candidates each
        kernel's schedule was chosen."""
        return "\n\n".join(filter(None, (self._function.remarks, self._programs.explain())))

    @property
    def compilation(self) -> Compilation:
        """The stages of the step, as far as they were needed. GraphError of a step with shards, which has several."""
        if isinstance(self._programs, ShardedProgram):
            self.as_one("step.compilation")
            raise InternalError("a step with shards is no single function", "train")
        return self._programs.compilation

    def profile(self, *arrays: Any, runs: int = 5) -> Profile:
        """Where the time of a step on one batch goes: print it, or `save("roofline.svg")`. Runs on a copy of the
        state."""
        return self._programs.profile(*self._ordered(arrays, {}), runs=runs)

    def _ordered(self, arrays: Sequence[Any], named: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        names = list(self._types)
        given = dict(zip(names, arrays)) | dict(named)
        wrong = [n for n in given if n not in names] or [n for n in names if n not in given]
        if wrong or len(arrays) + len(named) != len(names):
            raise GraphError(f"the step takes {', '.join(names)}; got {len(arrays)} arrays"
                             + (f" and {', '.join(named)}" if named else ""), user_loc())
        return tuple(array_of_any_type(given[n], f"the step's {n!r}") for n in names)

    def _begin(self) -> None:
        """The step is about to train, perhaps for the first time."""
        if not self._called:
            started(self)
            self._called = True

    def _steps_done(self) -> int:
        """Calls so far."""
        recipe = self._recipe
        return int(self.state[self.state.name(Own(recipe.key, STEP)) or STEP])

    def _first(self, arrays: Sequence[np.ndarray]) -> Runnable | ShardedProgram:
        """The native code for these arrays. It is `_fixed` from now on if it is that for all, so that later calls do
        not come here."""
        self._begin()
        run = self._programs.serving(arrays)
        if self._programs.static:
            self._fixed = run
        return run


formed_methods(TrainStep)


def _number(result: np.ndarray) -> float | np.ndarray:
    return float(result) if np.ndim(result) == 0 else result
