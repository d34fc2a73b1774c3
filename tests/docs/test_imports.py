"""Who may import whom (docs/architecture.md, "Folders"), read from the source."""
from __future__ import annotations

from source import sources

BASE = ("errors", "given", "config", "contained", "once", "records")
# folder or file: what it may import beside itself; what is not listed sees all
MAY = {
    "records": (), "errors": ("records",), "extra": ("errors",), "given": ("errors",), "config": ("errors", "given", "records"), "contained": (),
    "once": ("contained",),
    "ir": BASE,
    "schedule": (*BASE, "ir"),
    "analysis": (*BASE, "ir", "schedule.attention_support"),
    "autodiff": (*BASE, "ir", "analysis"),
    "passes": (*BASE, "ir", "schedule", "analysis", "autodiff"),
    "memory": (*BASE, "ir", "schedule", "passes.order"),
    "codegen": (*BASE, "ir", "schedule", "memory.plan", "memory.scan_layout"),
    "runtime": (*BASE, "ir", "schedule.target", "codegen"),
    "dsl": (*BASE, "ir", "autodiff"),
    "nn": (*BASE, "ir", "autodiff", "dsl", ""),             # "": the public names, `import graphc as gc`
    "optim": (*BASE, "ir", "autodiff", "dsl", ""),
}
HEAVY = ("llvmlite", "networkx")                # loaded by codegen/llvm/lazy.py at the first compile
LOADS_LATER = ("codegen/llvm/lazy.py", "codegen/llvm/object_code.py", "once.py", "__init__.py", "cli.py", "runtime/native.py", "nn/__init__.py", "optim/__init__.py",
               "doors/torch/public.py", "optim/foreign.py", "ir/element_type.py", "compiled.py", "progress.py", "callbacks/__init__.py",
               "fitting/history.py", "doors/gguf/model.py", "compiler.py", "generation.py", "cli_commands.py", "profile.py", "doors/onnx/public.py", "doors/onnx_out/public.py", "checkpoint.py")
# import_module: LLVM, also in a worker process that is little else, the compiler behind public names and its stages, what commands do, profiles, tqdm, layers and optimizers that few programs use, the extra `demo`, the runtime's routines
# where their text is not in the disk cache, numpy's bf16, TensorBoard's writer (perhaps torch's), matplotlib, the extra `llm`, the package onnx,
# threads that read large files


def part(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def test_directions():
    wrong = []
    for file, source in sources().items():
        own = part(file)
        if own not in MAY:
            continue
        allowed = (own, *MAY[own])
        named = [n.removeprefix("graphc").removeprefix(".") for n in source.imports if n.split(".")[0] == "graphc"]
        wrong += [f"{file}: {n}" for n in named if not any(n == a or a and n.startswith(f"{a}.") for a in allowed)]
    assert not wrong


def test_imports_stand_at_the_top():
    inside = [f"{file}: {name}" for file, source in sources().items() for name in source.inside]
    later = {file for file, source in sources().items()
             if "import_module" in source.calls or "graphc.once.loaded" in source.imports}
    assert not inside and later <= set(LOADS_LATER), (inside, later)


def test_llvm_and_networkx_come_through_lazy():
    for file, source in sources().items():
        named = [n for n in source.imports if n.split(".")[0] in HEAVY]
        assert not named, f"{file} imports {named}; codegen/llvm/lazy.py loads it"
        uses = any(n.startswith("graphc.codegen.llvm.lazy") for n in source.imports)
        assert not uses or part(file) in ("codegen", "runtime"), f"{file} uses LLVM; only codegen and runtime do"


def test_dataclasses_compile_no_method_when_they_are_imported():
    named = {file for file, source in sources().items() if "dataclasses.dataclass" in source.imports}
    assert named == {"records.py"}, f"{named}: import dataclass from graphc.records, which costs a twentieth of the time"
