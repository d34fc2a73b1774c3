"""`gc.export`: graphs, networks and training steps as a C library."""
from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from graphc.checkpoint import save_arrays
from graphc.codegen.llvm.host import host_target
from graphc.contained import contained
from graphc.doors.library.archive import ObjectFile, archive
from graphc.doors.library.c_names import OWN, check_name
from graphc.doors.library.header import header
from graphc.doors.library.library import Built, Library
from graphc.doors.library.linking import link
from graphc.doors.library.objects import object_files
from graphc.doors.library.programs import library_program
from graphc.doors.library.samples import samples
from graphc.doors.library.sources import sources
from graphc.doors.library.state_image import joined
from graphc.doors.library.vectors import vectors
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import is_sequence, shown
from graphc.ir.types import TensorType
from graphc.nn.network import sorted_out
from graphc.records import dataclass
from graphc.replacing import replacing
from graphc.schedule.platforms import PLATFORMS, Platform
from graphc.schedule.target import Target
from graphc.state import State

HOST = "x86_64-linux"
EMBED, FILE = "embed", "file"
VECTORS = "vectors.safetensors"


@dataclass(frozen=True)
class Exported:
    """What an export wrote. `notes`: what it could not do, and how to do it."""
    folder: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [f"  {path.relative_to(self.folder)}: {path.stat().st_size} bytes" for path in self.files]
        return "\n".join((f"{self.folder}", *rows, *self.notes))


@formed
def export(what: object, folder: str | os.PathLike[str], /, *, name: str = "net", targets: str | Sequence[str] = HOST,
           weights: str = EMBED, threads: bool = True, training: bool | None = None, seed: int | None = None,
           state: str | os.PathLike[str] | Mapping[str, np.ndarray] | State | None = None,
           **bindings: TensorType | int) -> Exported:
    """Writes a C library into `folder`: NAME.h, libNAME.a and libNAME.so for each target, an example, test vectors.

    `what`: a graph, a network with the types of its inputs and its `state=` or `seed=`, as gc.compile takes them; what
    gc.compile made; a training step; or a mapping from names to several of the last two, whose functions share one
    state: {"step": step, "predict": gc.compile(step.model, x=gc.f32["B", 784])} gives net_step and net_predict. A
    training step alone is net_step, anything else net_run. Named dimensions are parameters: one library serves all
    their sizes.

    `targets`: systems by name. `weights`: "embed": the values of the state are in the library; "file": they are in
    NAME.safetensors, for net_load. `threads`: whether the library brings a thread pool (Linux); without it calls run on
    the caller's thread, or by a parallel loop of the caller's own. Calls give the same bits as in this process.

    Raises GraphError for what cannot be exported, OSError where the files cannot be written.
    """
    options: Mapping[str, object] = {"training": training, "seed": seed, "state": state}
    if callable(what) and not isinstance(what, Mapping):
        options, bindings = sorted_out(what, export, options, bindings)
    platforms = _platforms(targets)
    if weights not in (EMBED, FILE):
        raise GraphError(f'weights= is "{EMBED}" or "{FILE}", got {shown(weights)}', user_loc())
    if not isinstance(threads, bool):
        raise GraphError("threads= says whether the library has a thread pool, True or False; how many take part is "
                         f"for NAME_create to say; got {shown(threads)}", user_loc())
    if not isinstance(folder, (str, os.PathLike)):
        raise GraphError(f"a library is written into a folder, given as str or Path, got {shown(folder)}", user_loc())
    try:
        library = _library(what, check_name(name, "name="), weights == EMBED, threads, options, bindings)
    except GraphError as error:
        raise error.at(user_loc()) from None
    return _written(library, platforms, Path(folder))


def _platforms(targets: str | Sequence[str]) -> list[Platform]:
    """The systems, with the instruction sets that are wanted: "x86_64-linux", or "x86_64-linux:avx2,avx512"."""
    names = (targets,) if isinstance(targets, str) else targets
    if not is_sequence(names) or not names or not all(isinstance(each, str) for each in names):
        raise GraphError(f"targets= takes names of systems, got {shown(targets)}", user_loc())
    found = [_platform(each) for each in names]
    if twice := next((p.name for n, p in enumerate(found) if p.name in [q.name for q in found[:n]]), None):
        raise GraphError(f"targets= names {twice} twice; several instruction sets of a system are one target: "
                         '"x86_64-linux:avx2,avx512"', user_loc())
    return found


def _platform(name: str) -> Platform:
    system, colon, sets = name.partition(":")
    if system not in PLATFORMS:
        raise GraphError(f"{system!r} is no system that graphc makes code for; those are {', '.join(PLATFORMS)}",
                         user_loc())
    platform = PLATFORMS[system]
    known = {t.name: t for t in platform.instruction_sets}
    wanted = sets.split(",") if colon else list(known)
    if unknown := [s for s in wanted if s not in known]:
        raise GraphError(f"{system} has no instruction set {unknown[0]!r}; it has {', '.join(known)}", user_loc())
    return replace(platform, instruction_sets=tuple(_as_here(t) for t in known.values() if t.name in wanted))


def _as_here(target: Target) -> Target:
    """The target that this process computes with, where it is of this instruction set: the same schedules, so the same
    bits."""
    here = host_target()
    return replace(here, name=target.name, features=target.features) if here.covers(target) else target


@contained
def _library(what: object, name: str, embedded: bool, threads: bool, options: Mapping[str, object],
             bindings: Mapping[str, object]) -> Library:
    found = sources(what, options, bindings)
    for source in found:
        if source.function.name in OWN:
            raise GraphError(f"a function cannot be called {source.function.name}: the library has one of that name")
        check_name(source.function.name, "the name of a function")
    words = [source.function.name.upper() for source in found]
    if alike := next((s.function.name for n, s in enumerate(found) if words[n] in words[:n]), None):
        raise GraphError(f"two functions are called {alike} but for the case of letters, which their macros have alike")
    image, numbers = joined([source.arrays for source in found])
    names = [array.name for array in image.arrays]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise GraphError(f"two functions have an array of state called {twice}, and they are not one array: the "
                         "functions of a library share one state, such as that of step and step.model")
    functions = tuple(replace(s.function, state=own) for s, own in zip(found, numbers))
    return Library(name, functions, image, embedded, threads)


def build(library: Library, platform: Platform) -> Built:
    """The programs of a library, which has a thread pool where the runtime has one for the platform."""
    library = replace(library, threads=library.threads and platform.has_pool)
    return Built(library, platform, [
        [library_program(f, library.symbol(f"{f.name}_{target.name}"), target) for f in library.functions]
        for target in platform.instruction_sets])


def _written(library: Library, platforms: Sequence[Platform], folder: Path) -> Exported:
    files, notes = [], []

    def write(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)
        files.append(path)
    for platform in platforms:
        built = build(library, platform)
        there = folder if len(platforms) == 1 else folder / platform.name
        objects = list(object_files(built))
        archived = f"{library.name}.lib" if platform.object_format == "coff" else f"lib{library.name}.a"
        write(there / archived, archive(objects, platform.object_format))
        if platform.name == HOST:           # the linker of this machine makes code for this machine
            notes += _linked(objects, there / f"lib{library.name}.so", write)
        if platform is platforms[0]:
            for name, text in {f"{library.name}.h": header(built), **samples(built)}.items():
                write(folder / name, text.encode())
            save_arrays(folder / VECTORS, vectors(built))
            files.append(folder / VECTORS)
    if library.image.arrays and not library.embedded:
        write(folder / f"{library.name}.safetensors", library.image.content())
    return Exported(folder, tuple(files), tuple(notes))


def _linked(objects: Sequence[ObjectFile], target: Path, write: Callable[[Path, bytes], None]) -> list[str]:
    """Makes the shared library, if there is a linker; else the objects stay, and a note says how."""
    with tempfile.TemporaryDirectory() as work:
        paths = [Path(work) / o.name for o in objects]
        for path, o in zip(paths, objects):
            path.write_bytes(o.code)
        made = Path(work) / target.name
        said = link(paths, made)
        if not said:
            write(target, made.read_bytes())
            return []
    for o in objects:
        write(target.parent / o.name, o.code)
    return [said]
