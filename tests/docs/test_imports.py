"""Who may import whom (docs/architecture.md, "Folders"), read from the source."""
from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent.parent / "graphc"
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
LOADS_LATER = ("codegen/llvm/lazy.py", "once.py", "__init__.py", "cli.py", "runtime/native.py", "nn/__init__.py", "optim/__init__.py",
               "doors/torch/public.py", "optim/foreign.py", "ir/element_type.py", "compiled.py", "progress.py", "callbacks/__init__.py", "fitting/history.py",
               "doors/gguf/model.py", "profile.py", "doors/onnx/public.py", "doors/onnx_out/public.py")
# import_module: LLVM, the compiler behind public names, profiles, tqdm, layers and optimizers that few programs use, the extra `demo`, the runtime's routines where their text is
# not in the disk cache, numpy's bf16, TensorBoard's writer (perhaps torch's), matplotlib, the extra `llm`, the package onnx

FILES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))


def tree(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text())


def imports(node: ast.AST) -> Iterator[str]:
    """Dotted names of what is imported: the module and, for `from m import n`, also m.n."""
    for n in ast.walk(node):
        if isinstance(n, ast.Import):
            yield from (a.name for a in n.names)
        elif isinstance(n, ast.ImportFrom):
            yield from (f"{n.module}.{a.name}" for a in n.names)


def part(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def test_directions():
    wrong = []
    for file in FILES:
        own = part(file)
        if own not in MAY:
            continue
        allowed = (own, *MAY[own])
        named = [n.removeprefix("graphc").removeprefix(".") for n in imports(tree(file)) if n.split(".")[0] == "graphc"]
        wrong += [f"{file}: {n}" for n in named if not any(n == a or a and n.startswith(f"{a}.") for a in allowed)]
    assert not wrong


def test_imports_stand_at_the_top():
    inside = [f"{file}: {name}" for file in FILES for f in ast.walk(tree(file))
              if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) for name in imports(f)]
    later = {file for file in FILES for n in ast.walk(tree(file)) if isinstance(n, ast.Call)
             and "import_module" in ast.unparse(n.func)}
    later |= {file for file in FILES if "graphc.once.loaded" in set(imports(tree(file)))}
    assert not inside and later <= set(LOADS_LATER), (inside, later)


def test_llvm_and_networkx_come_through_lazy():
    for file in FILES:
        named = [n for n in imports(tree(file)) if n.split(".")[0] in HEAVY]
        assert not named, f"{file} imports {named}; codegen/llvm/lazy.py loads it"
        uses = any(n.startswith("graphc.codegen.llvm.lazy") for n in imports(tree(file)))
        assert not uses or part(file) in ("codegen", "runtime"), f"{file} uses LLVM; only codegen and runtime do"


def test_dataclasses_compile_no_method_when_they_are_imported():
    named = {file for file in FILES if "dataclasses.dataclass" in set(imports(tree(file)))}
    assert named == {"records.py"}, f"{named}: import dataclass from graphc.records, which costs a twentieth of the time"
