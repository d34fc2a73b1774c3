"""Tokens of text, conversations, and `graphc chat`."""
from __future__ import annotations

import numpy as np
import pytest

from gguf_files import fields_of, random_blocks, whole, write
from graphc import GraphError, cli

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")
from graphc.doors.gguf.text import ModelText                                            # noqa: E402

TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
LETTERS = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or"]
BYTES = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.merges": MERGES,
         "tokenizer.ggml.tokens": ["<|im_start|>", "<|im_end|>", *LETTERS, *(m.replace(" ", "") for m in MERGES)],
         "tokenizer.ggml.token_type": [3, 3, *[1] * (len(LETTERS) + len(MERGES))], "tokenizer.ggml.eos_token_id": 1,
         "tokenizer.chat_template": TEMPLATE}
PIECES = {"<unk>": 2, "<s>": 3, **{f"<0x{i:02X}>": 6 for i in range(256)},
          **dict.fromkeys(["\u2581", "a", "b", "c", "ab", "bc", "\u2581a", "\u2581ab"], 1)}
SENTENCES = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": list(PIECES),
             "tokenizer.ggml.token_type": list(PIECES.values()),
             "tokenizer.ggml.scores": [0.0] * 258 + [-9.0, -9.0, -9.0, -9.0, -2.0, -1.0, -3.0, -4.0],
             "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 1}


def test_pairs_of_bytes():
    text = ModelText(BYTES, "a file")
    ids = text.encode("hello worn 42")
    assert [text.tokens[i] for i in ids] == ["hello", "Ġwor", "n", "Ġ", "4", "2"]
    assert text.decode(ids) == "hello worn 42" and text.end == {1}


def test_pieces_of_sentences():
    text = ModelText(SENTENCES, "a file")
    ids = text.encode("abc é")
    # "bc" scores higher than "ab", and é has no piece
    assert [text.tokens[i] for i in ids] == ["<s>", "\u2581a", "bc", "\u2581", "<0xC3>", "<0xA9>"]
    assert text.decode(ids) == "abc é"


@pytest.mark.parametrize("fields, texts", [
    (BYTES, ["hello worn 42 hello", "a<|im_start|>hell o", "é h\u0338e", "hello" * 90]),
    (BYTES | {"tokenizer.ggml.pre": "qwen2"}, ["hello wor", "e\u0301hello", "<|im_end|>\u0338 hello"]),
    (SENTENCES, ["abc é", "a<s>abc  ab", "bca", ""]), (SENTENCES | {"tokenizer.ggml.add_space_prefix": False}, ["abc ab", " ab"])])
def test_a_first_text_has_the_tokens_of_any(fields, texts):
    """Those of a tokenizer that knows only what the text may consist of, if that is little; not where letters are composed first."""
    more = {"tokens": [f"{i:09}" for i in range(3000)], "token_type": [1] * 3000, "scores": [-20.0] * 3000}
    fields = fields | {f"tokenizer.ggml.{name}": fields[f"tokenizer.ggml.{name}"] + new for name, new in more.items()
                       if f"tokenizer.ggml.{name}" in fields}
    known = ModelText(fields, "a file")
    oracle, begin = known._of_all, [1] * (fields["tokenizer.ggml.model"] == "llama")
    oracle.decoder = known._kind.decoder
    for text in texts:
        first = ModelText(fields, "a file")
        assert (known._kind.parts_of(text) is None) == (
            fields.get("tokenizer.ggml.pre") == "qwen2" and not text.isascii() or len(text) > 400)
        ids = first.encode(text)
        assert ids == begin + oracle.encode(text, add_special_tokens=False).ids == first.encode(text)
        assert first.decode(ids) == oracle.decode(ids, skip_special_tokens=True)


def test_conversations():
    text = ModelText(BYTES, "a file")
    ids = text.chat([{"role": "user", "content": "hello"}])
    assert ids[0] == 0 and "".join(text.tokens[i] for i in ids) == (
        "<|im_start|>userĊhello<|im_end|>Ċ<|im_start|>assistantĊ")
    bad = ModelText(BYTES | {"tokenizer.chat_template": "{{ raise_exception('no system') }}"}, "a file")
    with pytest.raises(GraphError, match="its template for conversations fails: no system"):
        bad.chat([])
    with pytest.raises(GraphError, match="cut into words by the rule 'own'"):
        ModelText(BYTES | {"tokenizer.ggml.pre": "own"}, "a file")
    with pytest.raises(GraphError, match="kind 'rwkv' are not supported"):
        ModelText(BYTES | {"tokenizer.ggml.model": "rwkv"}, "a file")
    with pytest.raises(GraphError, match="has no field tokenizer.ggml.tokens"):
        ModelText({}, "a file")


def test_chat(tmp_path, capsys):
    count = len(BYTES["tokenizer.ggml.tokens"])
    shapes = {"token_embd": (count, 32), "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32),
              "blk.0.attn_output": (32, 32), "blk.0.ffn_gate": (32, 32), "blk.0.ffn_up": (32, 32), "blk.0.ffn_down": (32, 32)}
    tensors = {f"{name}.weight": random_blocks("Q8_0", shape, i, 0.3) for i, (name, shape) in enumerate(shapes.items())}
    tensors |= {name: whole(np.ones(32)) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")}
    path = write(tmp_path / "m.gguf", fields_of("llama", 32, 1, 2, 1, 32) | BYTES, tensors)
    assert cli.main(["chat", str(path), "--prompt", "hello", "--tokens", "5", "--system", "be brief"]) == 0
    first = capsys.readouterr().out
    assert cli.main(["chat", str(path), "--prompt", "hello", "--tokens", "5", "--system", "be brief"]) == 0
    assert first == capsys.readouterr().out and len(first) > 1
    assert cli.main(["chat", str(tmp_path / "other.gguf"), "--prompt", "hello"]) == 1
    assert "there is no file" in capsys.readouterr().err
