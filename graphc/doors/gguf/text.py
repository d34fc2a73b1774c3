"""Text as tokens and back, by what a GGUF file says. The packages `tokenizers` and `jinja2` (extra `llm`) are imported
only here."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from graphc.contained import contained
from graphc.dsl.context import user_loc
from graphc.errors import GraphError

CONTROL, USERS = 3, 4                           # types of tokens that are never made from text's pieces
SPACE = "\u2581"                                # what SentencePiece writes for a space
_ENDS = r"[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
LLAMA3 = rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{_WORDS}|\p{{N}}{{1,3}}| ?{_ENDS}"
QWEN2 = rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{_WORDS}|\p{{N}}| ?{_ENDS}"


def _by_pattern(pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _digits() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False)])


# how text is cut into words before they become tokens, by the names that files give
PIECES = {"gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False), "smollm": _digits,
          "llama-bpe": lambda: _by_pattern(LLAMA3), "qwen2": lambda: _by_pattern(QWEN2)}


class ModelText:
    """Tokens of a language model: `encode`, `decode`, and `chat`, the tokens of a conversation."""

    def __init__(self, fields: Mapping[str, Any], where: str):
        """`fields`: of a GGUF file. GraphError where its tokens are of a kind that is not known."""
        self._fields, self._where = {name.removeprefix("tokenizer."): value for name, value in fields.items()
                                     if name.startswith("tokenizer.")}, where
        self.tokens: list[str] = self._needed("ggml.tokens")
        self._tokenizer = self._made()
        self.end = {i for i in (self._fields.get(f"ggml.{name}_token_id") for name in ("eos", "eot")) if i is not None}

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with the one that begins it, if the file says so. Names of control tokens, such as
        <|im_start|>, are these."""
        begin: int = self._fields.get("ggml.bos_token_id", -1)
        adds = begin >= 0 and self._fields.get("ggml.add_bos_token", self._needed("ggml.model") == "llama")
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [begin, *ids] if adds and ids[:1] != [begin] else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without control tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation, [{"role": "user", "content": "…"}, …], up to where the answer begins, by the
        file's own template."""
        template = self._needed("chat_template")
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

    def _needed(self, name: str) -> Any:
        if name not in self._fields:
            raise GraphError(f"{self._where} has no field tokenizer.{name}", user_loc())
        return self._fields[name]

    @contained                  # tens of thousands of pairs, which the collector would visit again and again
    def _made(self) -> Tokenizer:
        kind = self._needed("ggml.model")
        if kind == "gpt2":
            tokenizer = self._bytes()
        elif kind == "llama":
            tokenizer = self._sentences()
        else:
            raise GraphError(f"{self._where}: tokens of the kind {kind!r} are not supported, only gpt2 and llama",
                             user_loc())
        types = self._fields.get("ggml.token_type", [])
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                      for token, type in zip(self.tokens, types) if type == CONTROL])
        tokenizer.add_tokens([AddedToken(token, normalized=False)
                              for token, type in zip(self.tokens, types) if type == USERS])
        return tokenizer

    def _bytes(self) -> Tokenizer:
        """Pairs of bytes, as in GPT-2."""
        pieces = self._fields.get("ggml.pre", "gpt-2")
        if pieces not in PIECES:
            raise GraphError(f"{self._where}: text is cut into words by the rule {pieces!r}; known are "
                             f"{', '.join(PIECES)}", user_loc())
        merges = [pair.partition(" ")[::2] for pair in self._needed("ggml.merges")]
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(self.tokens)}, merges))
        if pieces == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer, tokenizer.decoder = PIECES[pieces](), decoders.ByteLevel()
        return tokenizer

    def _sentences(self) -> Tokenizer:
        """SentencePiece's pairs: of two neighbours those are joined first whose piece has the highest score."""
        vocabulary, scores = {token: i for i, token in enumerate(self.tokens)}, self._needed("ggml.scores")
        pairs = [(-scores[i], i, token[:at], token[at:]) for token, i in vocabulary.items()
                 for at in range(1, len(token)) if token[:at] in vocabulary and token[at:] in vocabulary]
        unknown = self.tokens[self._fields.get("ggml.unknown_token_id", 0)]
        tokenizer = Tokenizer(models.BPE(vocabulary, [pair[2:] for pair in sorted(pairs)], unk_token=unknown,
                                         fuse_unk=True, byte_fallback=True))
        prefix = self._fields.get("ggml.add_space_prefix", True)
        tokenizer.normalizer = normalizers.Sequence([*([normalizers.Prepend(SPACE)] if prefix else []),
                                                     normalizers.Replace(" ", SPACE)])
        tokenizer.decoder = decoders.Sequence([
            decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else [])])
        return tokenizer


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
