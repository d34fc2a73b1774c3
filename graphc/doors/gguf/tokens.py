"""What cuts text into tokens, by what a GGUF file says: pairs of bytes, as in GPT-2, or SentencePiece's pieces. Of all
tokens, or of those alone that a text may consist of, which is a matter of milliseconds. The package `tokenizers` (extra
`llm`) is imported only here."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from graphc.contained import contained
from graphc.dsl.context import user_loc
from graphc.errors import GraphError

NORMAL, CONTROL, USERS = 1, 3, 4                # types of tokens; pieces of text never become one of the last two
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
COMPOSED = {"qwen2"}                            # those whose texts are brought into Unicode's form C first


class TokenKind(ABC):
    """How the tokens of a file are joined of letters."""

    def __init__(self, fields: Mapping[str, Any], where: str):
        """`fields`: those of the tokenizer. GraphError where one is missing, or not known."""
        self.fields, self.where = fields, where
        self.tokens: list[str] = self.needed("ggml.tokens")
        self.types: list[int] = fields.get("ggml.token_type", [])
        self.control = {i for i, type in enumerate(self.types) if type == CONTROL}

    def needed(self, name: str) -> Any:
        if name not in self.fields:
            raise GraphError(f"{self.where} has no field tokenizer.{name}", user_loc())
        return self.fields[name]

    def parts_of(self, text: str) -> set[str] | None:
        """All that tokens of the text may be, special ones aside: neighbouring letters of it. None where it has more of
        them than there are tokens, or where nothing is known."""
        written, longest = self._written(text), max(map(len, self.tokens), default=0)
        if written is None or len(written) * longest > len(self.tokens):
            return None
        ends = range(1, longest + 1)
        return self._and_begun({written[i:i + n] for i in range(len(written)) for n in ends})

    @contained                  # tens of thousands of pairs, which the collector would visit again and again
    def tokenizer(self, parts: Collection[str] | None = None) -> Tokenizer:
        """Of all tokens; with `parts`, of these alone and the special ones. A pair that no text has cannot be
        joined in it: of such a text both give the same."""
        vocabulary = {token: i for i, token in enumerate(self.tokens)}
        if parts is not None:
            wanted = {*parts, *self._always(), *(t for t, type in zip(self.tokens, self.types) if type != NORMAL)}
            vocabulary = {token: i for token, i in vocabulary.items() if token in wanted}
        tokenizer = self._made(vocabulary, parts)
        for kind, add in ((CONTROL, tokenizer.add_special_tokens), (USERS, tokenizer.add_tokens)):
            add([AddedToken(token, special=kind == CONTROL, normalized=False)
                 for token, type in zip(self.tokens, self.types) if type == kind])
        return tokenizer

    def text(self, ids: Sequence[int]) -> str:
        """That of tokens, without control tokens."""
        count = len(self.tokens)
        return str(self.decoder.decode([self.tokens[i] for i in ids if 0 <= i < count and i not in self.control]))

    @cached_property
    @abstractmethod
    def decoder(self) -> Any:
        """What makes text of tokens."""

    @abstractmethod
    def _written(self, text: str) -> str | None:
        """The text as tokens write it; None where its parts may be written otherwise than it is as a whole."""

    @abstractmethod
    def _made(self, vocabulary: dict[str, int], parts: Collection[str] | None) -> Tokenizer: ...

    def _and_begun(self, parts: set[str]) -> set[str]:
        """These, and what may be made of those with which a piece begins."""
        return parts

    def _always(self) -> set[str]:
        """Tokens that any text may need."""
        return set()


class BytePairs(TokenKind):
    """Pairs of bytes, as in GPT-2, joined in the order of a list."""

    def __init__(self, fields: Mapping[str, Any], where: str):
        super().__init__(fields, where)
        self.merges: list[str] = self.needed("ggml.merges")
        self.pieces: str = fields.get("ggml.pre", "gpt-2")
        if self.pieces not in PIECES:
            raise GraphError(f"{where}: text is cut into words by the rule {self.pieces!r}; known are "
                             f"{', '.join(PIECES)}", user_loc())

    @cached_property
    def decoder(self) -> Any:
        return decoders.ByteLevel()

    def _written(self, text: str) -> str | None:
        if self.pieces in COMPOSED and normalizers.NFC().normalize_str(text) != text:
            return None                 # what is in form C is so in all of its parts
        return "".join(part for part, _ in _BYTES.pre_tokenize_str(text))

    def _made(self, vocabulary: dict[str, int], parts: Collection[str] | None) -> Tokenizer:
        merges = self.merges if parts is None else [m for m in self.merges if m.replace(" ", "", 1) in parts]
        tokenizer = Tokenizer(models.BPE(vocabulary, [pair.partition(" ")[::2] for pair in merges]))
        if self.pieces in COMPOSED:
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = PIECES[self.pieces]()
        return tokenizer


_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


class Sentences(TokenKind):
    """SentencePiece's pairs: of two neighbours those are joined first whose piece has the highest score."""

    def __init__(self, fields: Mapping[str, Any], where: str):
        super().__init__(fields, where)
        self.scores: list[float] = self.needed("ggml.scores")
        self.unknown = self.tokens[fields.get("ggml.unknown_token_id", 0)]
        self.prefixed = bool(fields.get("ggml.add_space_prefix", True))

    @cached_property
    def decoder(self) -> Any:
        return decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
                                  *([decoders.Strip(" ", 1, 0)] if self.prefixed else [])])

    def _written(self, text: str) -> str | None:
        return text.replace(" ", SPACE)

    def _and_begun(self, parts: set[str]) -> set[str]:
        return parts | {SPACE, *(SPACE + part for part in parts)} if self.prefixed else parts

    def _always(self) -> set[str]:
        return {self.unknown, *(f"<0x{i:02X}>" for i in range(256))}

    def _made(self, vocabulary: dict[str, int], parts: Collection[str] | None) -> Tokenizer:
        scores = self.scores
        pairs = [(-scores[i], i, token[:at], token[at:]) for token, i in vocabulary.items()
                 for at in range(1, len(token)) if token[:at] in vocabulary and token[at:] in vocabulary]
        tokenizer = Tokenizer(models.BPE(vocabulary, [pair[2:] for pair in sorted(pairs)], unk_token=self.unknown,
                                         fuse_unk=True, byte_fallback=True))
        tokenizer.normalizer = normalizers.Sequence([*([normalizers.Prepend(SPACE)] if self.prefixed else []),
                                                     normalizers.Replace(" ", SPACE)])
        return tokenizer


KINDS: dict[str, Callable[[Mapping[str, Any], str], TokenKind]] = {"gpt2": BytePairs, "llama": Sentences}


def token_kind(fields: Mapping[str, Any], where: str) -> TokenKind:
    """That of a file with these fields of a tokenizer. GraphError where it is not known."""
    if missing := [name for name in ("ggml.tokens", "ggml.model") if name not in fields]:
        raise GraphError(f"{where} has no field tokenizer.{missing[0]}", user_loc())
    kind = fields["ggml.model"]
    if kind not in KINDS:
        raise GraphError(f"{where}: tokens of the kind {kind!r} are not supported, only {' and '.join(KINDS)}",
                         user_loc())
    return KINDS[kind](fields, where)
