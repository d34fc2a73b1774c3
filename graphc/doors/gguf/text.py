"""Text as tokens and back, by what a GGUF file says. The package `jinja2` (extra `llm`) is imported only here."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from graphc.doors.gguf.tokens import token_kind
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.once import once_property


class ModelText:
    """Tokens of a language model: `encode`, `decode`, and `chat`, the tokens of a conversation."""

    def __init__(self, fields: Mapping[str, Any], where: str):
        """`fields`: of a GGUF file. GraphError where its tokens are of a kind that is not known."""
        self._fields, self._where = {name.removeprefix("tokenizer."): value for name, value in fields.items()
                                     if name.startswith("tokenizer.")}, where
        self._kind = token_kind(self._fields, where)
        self._is_first = True
        self.tokens = self._kind.tokens
        self.end = {i for i in (self._fields.get(f"ggml.{name}_token_id") for name in ("eos", "eot")) if i is not None}

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with the one that begins it, if the file says so. Names of control tokens, such as
        <|im_start|>, are these."""
        begin: int = self._fields.get("ggml.bos_token_id", -1)
        adds = begin >= 0 and self._fields.get("ggml.add_bos_token", self._fields["ggml.model"] == "llama")
        ids: list[int] = self._tokenizer_of(text).encode(text, add_special_tokens=False).ids
        return [begin, *ids] if adds and ids[:1] != [begin] else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without control tokens."""
        return self._kind.text(ids)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation, [{"role": "user", "content": "…"}, …], up to where the answer begins, by the
        file's own template."""
        template = self._kind.needed("chat_template")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        names = {f"{name}_token": self.tokens[i] if i is not None else ""
                 for name in ("bos", "eos") for i in [self._fields.get(f"ggml.{name}_token_id")]}
        try:
            made = environment.from_string(template)
            text = made.render(messages=list(messages), add_generation_prompt=True, **names)
        except jinja2.TemplateError as error:
            raise GraphError(f"{self._where}: its template for conversations fails: {error}", user_loc()) from None
        return self.encode(text)

    def _tokenizer_of(self, text: str) -> Tokenizer:
        """The one of all tokens, which takes long to make; of the first text, which somebody waits for, one of its own.
        """
        parts = self._kind.parts_of(text) if self._is_first else None
        self._is_first = False
        return self._of_all if parts is None else self._kind.tokenizer(parts)

    @once_property
    def _of_all(self) -> Tokenizer:
        return self._kind.tokenizer()


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
