"""Layers: functions of arrays that own parameters. Composed with `>>`, repeated with `**`."""
from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from graphc.dsl.arguments import converted, of_array
from graphc.dsl.array import Array, as_array
from graphc.dsl.context import current_trace, declared_at, error_loc, tracing, user_loc
from graphc.dsl.form import formed, formed_methods, plain_signature, refused
from graphc.dsl.inline import join
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.ir.dims import Dims
from graphc.ir.shown import Pictured
from graphc.ir.types import DType, TensorType, f32
from graphc.nn.held import is_held
from graphc.nn.mentioned import in_same_file, mentioned_variables
from graphc.nn.outside import check_made, no_attribute, untraced
from graphc.nn.parameter import ZEROS, Initializer, Parameter
from graphc.nn.path import entered, noted, parameter_path, placed
from graphc.nn.substitution import PARAMS, substitute, substituted


class OutsideOfGraph(GraphError, AttributeError):
    """A parameter that is asked for where it is no array; an AttributeError too, so that hasattr works."""


class Module(Pictured):
    """Base of all layers. A subclass keeps its sizes and inner layers as attributes and defines `forward`.

    Parameters are made at the first call, when the sizes are known: `self.parameter("weight", shape, init)` inside
    `forward` gives the array. A layer called twice uses the same parameters. Names are paths of attribute names and
    positions, as in torch.
    """

    hands_on = False                    # to others whatever it is called with, arrays or not
    stands_alone = False                # takes no arrays: an imported model that only makes some
    maps_last_axis = False              # by a matrix

    def __init_subclass__(cls, **options: Any) -> None:
        """The arguments of graphc's own layers are what their annotations say; they are called with arrays."""
        super().__init_subclass__(**options)
        if not cls.__module__.startswith(f"{__package__}."):
            return
        if "__init__" in vars(cls):
            converted(cls)
        if "forward" in vars(cls) and not cls.hands_on:
            setattr(cls, "forward", of_array(cls.forward))
        formed_methods(cls, "layer")

    def __init__(self) -> None:
        self._parameters: dict[str, Parameter] = {}
        self._made: dict[str, Callable[..., Array]] = {}    # parameters that are made of others (nn.weight_norm)
        self._original: Module | None = None        # the layer that this one is a copy of
        self._declared = user_loc()

    def forward(self, *arrays: Any, **options: Any) -> Any:
        raise GraphError(f"{type(self).__name__} defines no forward(self, x)")

    def __call__(self, /, *arrays: Any, **options: Any) -> Any:
        if PARAMS in options and PARAMS not in self.takes():
            return self._called_with(options.pop(PARAMS), arrays, options)
        if not tracing():
            raise untraced(argument_names(self.forward), arrays)
        try:
            result = self.within(noted(self.kind, self.forward), *arrays, **options)
        except TypeError:
            error = refused(self.kind, plain_signature(self.forward), arrays, options)
            if error is None:
                raise
            raise error from None
        if made := vars(self).get("_made"):
            check_made(self.kind, made, self._parameters)
        return result

    def _called_with(self, params: object, arrays: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """A functional call, `net(x, params={"0.weight": w})`: with these arrays in the place of parameters of the
        names that `named_parameters` gives (others are the layer's own)."""
        if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
            raise GraphError(f"params= takes a mapping from names of parameters to arrays, got {shown(params)}")
        given = {name: as_array(array, f32) for name, array in params.items()}
        with substituted(self, given) as used:
            result = self(*arrays, **options)
        if unused := sorted(given.keys() - used):
            raise GraphError(f"{self.kind} has no parameter {unused[0]!r}; it has "
                             f"{', '.join(name for name, _ in self.named_parameters())}")
        return result

    def __getattr__(self, name: str) -> Any:
        """A parameter as an array, `layer.weight`, inside of a trace and once the layer has been called."""
        parameter = vars(self).get("_parameters", {}).get(name)
        if parameter is None:
            raise no_attribute(type(self).__name__, name, bool(vars(self).get("_parameters")))
        if not tracing():
            raise OutsideOfGraph(f"{name} is an array inside of a graph; its value is in the state: step.state[…]",
                                 user_loc())
        return self.within(lambda: self._array(name, parameter))

    def within(self, function: Callable[..., Any], /, *arrays: Any, **options: Any) -> Any:
        """`function(*arrays)` as a part of this layer, under whose path parameters and inner layers get their names."""
        with entered(self, _mentioned):
            try:
                return function(*arrays, **options)
            except GraphError as error:         # without a line: that of the user's forward, else of the layer
                raise error.at(error_loc(error.__traceback__) or user_loc())

    def __rshift__(self, after: Callable[..., Any]) -> "Sequential":
        return chain(self, after)

    def __rrshift__(self, before: Callable[..., Any]) -> "Sequential":
        return chain(before, self)

    def __pow__(self, times: int) -> "Sequential":
        """`times` fresh copies, one after the other. Copies share nothing with each other or with the original."""
        return repeated(self, times)

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        """A copy with parameters of its own, which start with the values of this layer's where a state has both
        (`layer ** 2`: other values)."""
        made = memo[id(self)] = type(self).__new__(type(self))
        vars(made).update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()
                           if name != "_original"})
        made._original = self
        for name, parameter in made._parameters.items():
            parameter.like = (self, name)
        return made

    def fresh_copy(self) -> Module:
        """A copy whose parameters start with values of their own."""
        memo: dict[int, object] = {}
        made = copy.deepcopy(self, memo)
        for module in (m for m in memo.values() if isinstance(m, Module)):
            module._original = None
            for parameter in module._parameters.values():
                parameter.like = None
        return made

    def takes(self) -> frozenset[str]:
        """Names of the options of `forward`: its arguments after the first. A layer around layers takes what its
        inner ones take."""
        return frozenset(list(argument_names(self.forward))[1:])

    def declared_inputs(self) -> Mapping[str, TensorType]:
        """The inputs that the layer says itself, by name, so that nobody else need: those of an imported model. None of
        most layers."""
        return {}

    @property
    def kind(self) -> str:
        """What the layer is called in a summary."""
        return type(self).__name__

    @property
    def training(self) -> bool:
        """Whether the running trace is for training (dropout on, batch statistics) or for inference."""
        return current_trace().training

    @property
    def frozen(self) -> bool:
        """Whether the layer stays as it is, its statistics too: a LoRA holds it, or `trainable=` of the training step
        that is traced leaves out all that it has (so far)."""
        trains = current_trace().trained
        return is_held() or trains is not None and not trains(self, [parameter_path(name) for name in self._parameters])

    def parameter(self, name: str, shape: Dims, init: Initializer, dtype: DType = f32,
                  trainable: bool = True) -> Array:
        """The array of this layer's parameter `name`, made at the first call. GraphError if the sizes changed since, or
        for a type of 16 bits, which are too few to train in."""
        if trainable and dtype.is_storage:
            raise GraphError(f"{self.__class__.__name__} would have {name} in {dtype}, which has too few bits to train "
                             f"in: convert the input, x.astype(gc.f32); gc.compile(…, store=\"{dtype}\") keeps trained "
                             "weights so")
        type = (dtype if dtype.is_float else f32)[tuple(shape)]
        made = vars(self).get("_made", {}).get(name)
        return made(self, type, init) if made else self._array(name, self._own(name, type, init, trainable))

    def _array(self, name: str, parameter: Parameter) -> Array:
        """The array of a parameter: that of the trace's state, or what a functional call gives for it."""
        given = substitute(self, name)
        if given is None:
            return current_trace().state(parameter, parameter_path(name), parameter.type)
        if given.type != parameter.type:
            raise GraphError(f"params= gives {name} of {type(self).__name__} as {given.type}, it is {parameter.type}")
        return given

    def buffer(self, name: str, shape: Dims, init: Initializer, dtype: DType = f32) -> Array:
        """Like `parameter`, for a value that is not trained, such as a running mean. `update` writes it."""
        return self.parameter(name, shape, init, dtype, trainable=False)

    def integers(self, name: str, shape: Dims, dtype: DType, init: Initializer = ZEROS) -> Array:
        """Like `buffer`, for integers of any type (a buffer of an integer type is f32, as types follow the input)."""
        return self._array(name, self._own(name, dtype[tuple(shape)], init, trainable=False))

    def update(self, name: str, value: Array) -> None:
        """`value` becomes the buffer's value after the run."""
        current_trace().update_state(self._parameters[name], value)

    def children(self) -> Iterator[tuple[str, "Module"]]:
        """Inner layers by name: attributes, and the items of attributes that are lists, tuples or dicts."""
        for name, value in vars(self).items():
            if isinstance(value, (Module, list, tuple, dict)):
                yield from modules_in(name, value)

    def named_modules(self) -> Iterator[tuple[str, "Module"]]:
        """This layer and all inner ones, by path; a shared one once, under its first path."""
        return _walk(self, "", set())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters and buffers made so far, by path; a shared one once."""
        for path, module in self.named_modules():
            for name, parameter in module._parameters.items():
                yield join(path, name), parameter

    def parameters(self) -> list[Parameter]:
        """The trainable parameters made so far."""
        return [p for _, p in self.named_parameters() if p.trainable]

    def __repr__(self) -> str:
        known = {"bias" if k == "biased" else k: v for k, v in vars(self).items() if not k.startswith("_")}
        options = ", ".join(f"{k}={v!r}" for k, v in known.items())
        return f"{type(self).__name__}({options})"

    def _own(self, name: str, type: TensorType, init: Initializer, trainable: bool) -> Parameter:
        if not type.is_static:
            raise GraphError(f"{name} of {self.__class__.__name__} would be {type}: the sizes of parameters must be "
                             "ints, only other dimensions of the input may be names")
        like = None if self._original is None else (self._original, name)
        made = self._parameters.setdefault(name, Parameter(type, init, trainable, like))
        if is_held():
            made.trainable = False
        if made.type != type:
            raise GraphError(f"{self.__class__.__name__} already has {name}: {made.type}; this input would need {type}."
                             " A layer used twice shares its parameters; make a second layer for another size "
                             "(copy.deepcopy(net) of one that has not been called)")
        return made


formed(Module)
formed_methods(Module, "layer")


class Sequential(Module):
    """Layers and functions of arrays, one after the other. Items are named 0, 1, … as in torch.

    An option, `net(x, lengths=n)`, goes to every item that has an argument of this name; GraphError if none has.
    More arrays by position, `net(x, y)`, go to the first item alone.
    """
    hands_on = True

    def __init__(self, *items: Callable[..., Any]) -> None:
        super().__init__()
        self.items = tuple(as_module(item) for item in items)
        self._open = False          # made by >>, so that another >> extends it: a >> b >> c has three items

    def forward(self, x: Array, *rest: Any, **options: Any) -> Any:
        _check_taken(self, options)
        for i, item in enumerate(self.items):
            placed(item, str(i))
            with declared_at(item._declared or self._declared):
                x = item(x, *rest, **chosen(item, options))
            rest = ()
        return x

    def takes(self) -> frozenset[str]:
        return frozenset().union(*(item.takes() for item in self.items))

    def declared_inputs(self) -> Mapping[str, TensorType]:
        return self.items[0].declared_inputs() if self.items else {}

    def children(self) -> Iterator[tuple[str, Module]]:
        return ((str(i), item) for i, item in enumerate(self.items))

    def __getitem__(self, index: int | slice) -> Module:
        return Sequential(*self.items[index]) if isinstance(index, slice) else self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.items)) or "Sequential()"


class Function(Module):
    """A plain Python function of arrays as a layer. Layers that it mentions are named by the variables that hold
    them."""
    hands_on = True

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    @property
    def kind(self) -> str:
        return getattr(self.function, "__name__", "function")

    def forward(self, /, *arrays: Any, **options: Any) -> Any:
        return self.function(*arrays, **options)

    def takes(self) -> frozenset[str]:
        return frozenset(list(argument_names(self.function))[1:])

    def children(self) -> Iterator[tuple[str, Module]]:
        return modules_of_function(self.function)

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


def chain(before: Callable[..., Any], after: Callable[..., Any]) -> Sequential:
    """before >> after, as one flat sequence."""
    result = Sequential(*_links(before), *_links(after))
    result._open = True
    return result


@converted
def repeated(layer: Module, times: int) -> Sequential:
    """`times` fresh copies of the layer, one after the other."""
    if times < 0:
        raise GraphError(f"layer ** n takes an int n >= 0, got {times}")
    return Sequential(*(layer.fresh_copy() for _ in range(times)))


def as_module(item: Callable[..., Any]) -> Module:
    """A layer as it is, a function of arrays as a layer; GraphError for anything else."""
    if isinstance(item, Module):
        return item
    if not callable(item):
        raise GraphError(f">> takes layers and functions of arrays, got {item!r}")
    return item() if isinstance(item, type) and issubclass(item, Module) else Function(item)


def chosen(item: Module, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that `item` takes."""
    return {name: value for name, value in options.items() if name in item.takes()} if options else {}


def _check_taken(net: Module, options: dict[str, Any]) -> None:
    unknown = sorted(options.keys() - net.takes()) if options else []
    if unknown:
        raise GraphError(f"no layer of this sequence takes {unknown[0]!r}; "
                         f"their options are {', '.join(sorted(net.takes())) or 'none'}")


def argument_names(function: Callable[..., Any]) -> Iterator[str]:
    """Names of the arguments that may be given by name; none for functions without a signature (some of numpy's and
    Python's own)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return iter(())
    return (p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def _mentioned(function: Callable[..., Any]) -> Iterator[tuple[str, Module]]:
    return Function(function).named_modules()


def _walk(module: Module, path: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path, module
    for name, child in module.children():
        yield from _walk(child, join(path, name), seen)


def modules_in(name: str, value: object) -> Iterator[tuple[str, Module]]:
    """The layers in an attribute or variable: itself, or items of a list, tuple or dict."""
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from modules_in(f"{name}.{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from modules_in(f"{name}.{key}", item)


def modules_of_function(function: Callable[..., Any], seen: tuple[object, ...] = ()) -> Iterator[tuple[str, Module]]:
    """The layers that a function refers to: in its closure, among its globals, in its bound object, and in
    other functions of the same file that it mentions."""
    function = inspect.unwrap(function)
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, Module):
        for name, value in getattr(owner, "__dict__", {}).items():
            yield from modules_in(name, value)
    plain = getattr(function, "__func__", function)
    for name, value in mentioned_variables(plain).items():
        yield from modules_in(name, value)
        if in_same_file(plain, value) and value not in seen:
            yield from modules_of_function(cast(Callable[..., Any], value), seen + (plain,))


def _links(item: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    return item.items if isinstance(item, Sequential) and item._open else (item,)
