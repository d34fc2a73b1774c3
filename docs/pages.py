"""Runs the Python of a documentation page and keeps the outputs printed in it true.

    python docs/pages.py            rewrites the outputs in README.md and docs/*.md
    python docs/pages.py serving    only of the pages whose names have this in them

A page's ```python blocks are one program, saved as <page>.py and run block by block. A comment before a ```text block
says what the block holds of the output of the Python block above it:

    <!-- output -->                     all of it, the same on every machine: a test compares it
    <!-- output of one machine -->      it depends on the CPU, the version or the clock: run by the test, not compared
    <!-- … of one machine: 12 lines from "define"; 8 lines from "vfmadd" -->      only these lines, with … between
"""
from __future__ import annotations

import ast
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "readme.py", "docs/architecture.md": "regression.py", "docs/numerics.md": "numerics.py",
         "docs/training.md": "training.py", "docs/distributed.md": "distributed.py",
         "docs/extending.md": "extending.py", "docs/library.md": "library.py",
         "docs/parameters.md": "parameters.py", "docs/serving.md": "serving.py",
         "docs/coming_from_jax.md": "from_jax.py", "docs/coming_from_keras.md": "from_keras.py",
         **{f"docs/tutorials/{name}.md": f"{name}.py"
            for name in ("tables", "time_series", "language_models", "research", "teaching")}}
TARGET = "avx2"                         # the CPU that the pages show

FENCE = re.compile(r"```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- output( of one machine)?(?:: (.*))? -->\n+$")
PART = re.compile(r'(\d+) lines? from "([^"]*)"')


@dataclass(frozen=True)
class Output:
    """What a page shows: `text` at [start, end) of the page, of what Python block number `block` prints."""
    block: int
    text: str
    start: int
    end: int
    compared: bool
    parts: tuple[tuple[int, str], ...]

    def of(self, printed: str) -> str:
        """What the page should show."""
        lines = printed.rstrip("\n").split("\n")
        if not self.parts:
            return "\n".join(lines) + "\n"
        return "\n".join(_cut(lines, self.parts)) + "\n"


@dataclass(frozen=True)
class Page:
    """The Python blocks of a page in order, and the outputs that it shows."""
    markdown: str
    blocks: tuple[str, ...]
    outputs: tuple[Output, ...]

    @staticmethod
    def read(path: Path) -> "Page":
        markdown = path.read_text()
        blocks, outputs = [], []
        for fence in FENCE.finditer(markdown):
            mark = MARK.search(markdown[:fence.start()])
            if fence[1] == "python":
                blocks.append(fence[2])
            elif mark:
                parts = tuple((int(n), start) for n, start in PART.findall(mark[2] or ""))
                outputs.append(Output(len(blocks) - 1, fence[2], fence.start(2), fence.end(2), not mark[1], parts))
        return Page(markdown, tuple(blocks), tuple(outputs))

    def run(self, name: str, folder: Path) -> list[str]:
        """What each block prints. The program is saved as `name` in `folder`, so that source lines can be shown."""
        path = folder / name
        path.write_text("".join(self.blocks))
        namespace: dict = {"__name__": Path(name).stem}
        printed, line = [], 0
        for block in self.blocks:
            with chdir(folder), redirect_stdout(io.StringIO()) as out:
                exec(compile("\n" * line + block, str(path), "exec", dont_inherit=True), namespace)
            printed.append(out.getvalue().replace(f"{folder}/", ""))
            line += block.count("\n")
        return printed

    def with_outputs(self, printed: list[str]) -> str:
        """The page with true outputs."""
        text = self.markdown
        for output in reversed(self.outputs):
            text = text[:output.start] + output.of(printed[output.block]) + text[output.end:]
        return text


def links(markdown: str) -> list[str]:
    """The targets of a page's links that are files or headings here."""
    prose = FENCE.sub("", markdown)
    return [t for t in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in t]


def anchors(markdown: str) -> set[str]:
    """The names under which a page's headings are linked."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", markdown), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def _cut(lines: list[str], parts: tuple[tuple[int, str], ...]) -> Iterator[str]:
    end = 0
    for count, start in parts:
        at = next((i for i in range(end, len(lines)) if start in lines[i]), None)
        if at is None:
            raise ValueError(f"the output has no line with {start!r} after line {end}: change the mark above it")
        yield from ["…"] * (at > end)
        end = at + count
        yield from lines[at:end]
    yield from ["…"] * (end < len(lines))


def measured_errors() -> dict[str, float]:
    """The greatest error of each function, as its test bounds it."""
    source = ast.parse((ROOT / "tests" / "codegen" / "test_vecmath.py").read_text())
    return next(ast.literal_eval(n.value) for n in source.body if isinstance(n, ast.Assign)
                and ast.unparse(n.targets[0]) == "MEASURED_F32")


def with_errors(markdown: str) -> str:
    """The page with the table of errors as measured."""
    rows = "".join(f"| {name} | {ulp:.2f} |\n" for name, ulp in measured_errors().items())
    return re.sub(r"(\| function \| ulp \|\n\|---\|---\|\n)(\|.*\n)+", lambda m: m[1] + rows, markdown)


def main(*parts: str) -> None:
    """Of pages whose paths contain one of `parts`; of all pages without any."""
    os.environ["GRAPHC_TARGET"] = TARGET
    for page_path, name in PAGES.items():
        if parts and not any(part in page_path for part in parts):
            continue
        page = Page.read(ROOT / page_path)
        with tempfile.TemporaryDirectory() as folder:
            fresh = with_errors(page.with_outputs(page.run(name, Path(folder))))
        print(f"{page_path}: {len(page.blocks)} blocks, {'unchanged' if fresh == page.markdown else 'rewritten'}")
        (ROOT / page_path).write_text(fresh)


if __name__ == "__main__":
    sys.path.append(str(ROOT))
    main(*sys.argv[1:])
