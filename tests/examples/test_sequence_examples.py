"""The examples that label lines and characters, in short form."""
import keyword

import numpy as np
import pretrain_finetune
import pytest
import tagger
import text
import text_classifier

import graphc as gc


def test_lines_are_split_padded_and_from_their_modules():
    words, train, held_out = text.library_lines(length=12, most=100)
    assert len(train) > 500 and abs(len(train) - 4 * len(held_out)) <= 4
    every = np.concatenate([train.x, held_out.x])
    assert len({row.tobytes() for row in every}) > 0.9 * len(every)
    for lines in (train, held_out):
        padded = np.arange(12) >= lines.lengths[:, None]
        assert (lines.x[padded] == text.PADDING).all() and (lines.x[~padded] != text.PADDING).all()
    line = [words[i] for i in train.x[0, :train.lengths[0]]]
    source = text.PIECE.findall(text.module_source(text.MODULES[train.y[0]]))
    assert any(all(a in ("?", b) for a, b in zip(line, source[i:])) for i in range(len(source)))


def test_tags_are_those_of_a_hand():
    source = "if x: # no\n  y = 3.5 + len('a')\n"
    assert "".join(" nk0'#+"[k] for k in tagger.tags(source)) == "kk n+ ####\n  n + 000 + nnn+'''+\n".replace("\n", " ")
    kinds, inside = tagger.tags(text.module_source("typing")), text.module_source("typing")
    names = {inside[i:i + 5] for i in range(len(inside)) if kinds[i] == 2 and inside[i:i + 5] == "class"}
    assert names == {"class"} and keyword.iskeyword("class")


def test_judged_characters_have_context_on_both_sides():
    ids = np.arange(300, dtype=np.int32)
    x, y = tagger.windows(ids, ids, np.array([0, 64, 128]))
    judged = y != text.IGNORED
    assert (x[judged] == y[judged]).all() and judged.sum(1).tolist() == [tagger.LENGTH - 2 * tagger.CONTEXT] * 3
    # each of them once
    assert np.array_equal(np.sort(y[judged]), np.arange(tagger.CONTEXT, 128 + tagger.LENGTH - tagger.CONTEXT))


def test_tagger(capsys):
    found = tagger.main(["--steps", "80", "--hidden", "24"])
    assert found["bidirectional LSTM"] > found["RNN, forwards"] > found["most frequent kind"] + 0.1
    assert "of the characters" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["GRU", pytest.param("Transformer", marks=pytest.mark.slow)])
def test_text_classifier(model, capsys):
    found = text_classifier.main(["--steps", "60", "--models", model])
    assert found["bag of words"] > 0.6
    assert found[f"{model}, average"] > found["largest class"] + 0.1
    assert "bag of words" in capsys.readouterr().out


@pytest.mark.parametrize("model", text_classifier.MODELS)
@pytest.mark.parametrize("collapse", text_classifier.COLLAPSES)
def test_padding_does_not_change_what_a_classifier_says(model, collapse):
    net = text_classifier.classifier(50, text_classifier.MODELS[model](), collapse)
    run = gc.compile(net, x=gc.i32[2, "T"], lengths=gc.i32[2], seed=0)
    x = np.random.default_rng(0).integers(1, 50, (2, 9)).astype(np.int32)
    other = np.where(np.arange(9) < [[4], [9]], x, 7).astype(np.int32)
    scores = run(x, np.int32([4, 9]))
    np.testing.assert_allclose(scores, run(other, np.int32([4, 9])), atol=1e-5)
    np.testing.assert_allclose(scores[0], run(x[:, :4].copy(), np.int32([4, 4]))[0], atol=1e-5)


@pytest.mark.slow
def test_pretraining_helps(capsys):
    found = pretrain_finetune.main(["--pretraining", "120", "--steps", "50", "--labels", "32"])
    assert found["last"] < 0.8 * found["first"]
    assert found["pretrained, 32"] > found["scratch, 32"]
    assert "32 labelled lines of each module" in capsys.readouterr().out
