"""`graphc chat model.gguf`: a conversation in the terminal."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.doors.gguf.model import from_gguf
from graphc.generation import Generator

if TYPE_CHECKING:
    from graphc.doors.gguf.text import ModelText

BROKEN = "\ufffd"                               # where a token ends within a letter


def chat(options: argparse.Namespace) -> None:
    """Answers each question in turn; the model sees all of the conversation."""
    model = from_gguf(options.model, store=options.store)
    text, generator = model.text, Generator(model)
    messages = [{"role": "system", "content": options.system}] if options.system else []
    for question in [options.prompt] if options.prompt is not None else _questions():
        messages.append({"role": "user", "content": question})
        answer = ""
        for part in answered_by(generator, text, messages, options):
            answer += part
            print(part, end="", flush=True)
        print()
        messages.append({"role": "assistant", "content": answer})


def answered_by(generator: Generator, text: ModelText, messages: list[dict[str, str]],
                options: Any) -> Iterator[str]:
    """The answer, piece by piece."""
    ids: list[int] = []
    said = ""
    sampling = {"temperature": options.temperature, "top_p": options.top_p, "seed": options.seed}
    for token in generator.stream(text.chat(messages), options.tokens, **sampling):
        ids.append(int(np.asarray(token).reshape(-1)[0]))
        if ids[-1] in text.end:
            return
        whole = text.decode(ids)
        if not whole.endswith(BROKEN):
            yield whole[len(said):]
            said = whole


def _questions() -> Iterator[str]:
    """Lines of the terminal, until it ends."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if line.strip():
            yield line
