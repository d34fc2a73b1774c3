"""What stands behind an encoder: scores of masked words, of classes of a text, of classes of its words."""
from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import graphc as gc
from graphc import nn
from graphc.doors.pretrained.encoder import Encoder, EncoderShape, PooledEncoder
from graphc.doors.pretrained.parts import ACTIVATIONS, Bias, Projection, found, plant


class EncoderHead(nn.Module):
    """An encoder, which is the part `base`, and a head behind it: ids [B, T] -> logits. `score` is the head: it gives
    the logits of the encoder's vectors x [B, T, E]."""
    pooled: ClassVar[bool] = False

    def __init__(self, base: str, shape: EncoderShape, labels: int, tied: bool) -> None:
        super().__init__()
        self.base, self.shape, self.labels, self.tied = base, shape, labels, tied
        vars(self)[base] = (PooledEncoder if self.pooled else Encoder)(shape)
        for path, part in self.parts().items():
            plant(self, path, part)

    def forward(self, input_ids: gc.Array, attention_mask: gc.Array | None = None,
                token_type_ids: gc.Array | None = None) -> gc.Array:
        x = found(self, self.base)(input_ids, attention_mask, token_type_ids)
        return self.score(x["pooler_output"] if self.pooled else x)

    def parts(self) -> Mapping[str, nn.Module]:
        """The layers of the head, by path."""
        raise NotImplementedError

    def score(self, x: gc.Array) -> gc.Array:
        raise NotImplementedError

    def linear(self, path: str, x: gc.Array) -> gc.Array:
        return found(self, path)(x)

    def words(self, x: gc.Array, path: str, decoder: str) -> gc.Array:
        """Scores of every word, by the parts that `scores` gives."""
        if not self.tied:
            return self.linear(decoder, x)
        return self.linear(path, found(self, f"{self.base}.embeddings.word_embeddings").scores(x))

    def scores(self, path: str, decoder: str) -> dict[str, nn.Module]:
        """What gives the scores: the bias `path` behind the embedding's matrix where it is tied, else `decoder`."""
        return {path: Bias()} if self.tied else {decoder: Projection(self.shape.vocabulary)}


class BertMaskedHead(EncoderHead):
    """Logits of words [B, T, vocabulary]: BertForMaskedLM."""

    def parts(self) -> Mapping[str, nn.Module]:
        return {**self.scores("cls.predictions", "cls.predictions.decoder"),
                "cls.predictions.transform.dense": Projection(self.shape.width),
                "cls.predictions.transform.LayerNorm": nn.LayerNorm(eps=self.shape.eps)}

    def score(self, x: gc.Array) -> gc.Array:
        x = ACTIVATIONS[self.shape.activation](self.linear("cls.predictions.transform.dense", x))
        x = self.linear("cls.predictions.transform.LayerNorm", x)
        return self.words(x, "cls.predictions", "cls.predictions.decoder")


class RobertaMaskedHead(EncoderHead):
    """Logits of words [B, T, vocabulary]: RobertaForMaskedLM."""

    def parts(self) -> Mapping[str, nn.Module]:
        return {**self.scores("lm_head", "lm_head.decoder"), "lm_head.dense": Projection(self.shape.width),
                "lm_head.layer_norm": nn.LayerNorm(eps=self.shape.eps)}

    def score(self, x: gc.Array) -> gc.Array:
        x = self.linear("lm_head.layer_norm", nn.gelu(self.linear("lm_head.dense", x)))
        return self.words(x, "lm_head", "lm_head.decoder")


class DistilMaskedHead(EncoderHead):
    """Logits of words [B, T, vocabulary]: DistilBertForMaskedLM."""

    def parts(self) -> Mapping[str, nn.Module]:
        return {"vocab_transform": Projection(self.shape.width),
                "vocab_layer_norm": nn.LayerNorm(eps=self.shape.eps),
                **self.scores("vocab_projector", "vocab_projector")}

    def score(self, x: gc.Array) -> gc.Array:
        x = ACTIVATIONS[self.shape.activation](self.linear("vocab_transform", x))
        return self.words(self.linear("vocab_layer_norm", x), "vocab_projector", "vocab_projector")


class BertClassHead(EncoderHead):
    """Logits of classes of a text [B, labels], from the pooler: BertForSequenceClassification."""
    pooled = True

    def parts(self) -> Mapping[str, nn.Module]:
        return {"classifier": Projection(self.labels)}

    def score(self, x: gc.Array) -> gc.Array:
        return self.linear("classifier", x)


class RobertaClassHead(EncoderHead):
    """Logits of classes of a text [B, labels]: RobertaForSequenceClassification."""

    def parts(self) -> Mapping[str, nn.Module]:
        return {"classifier.dense": Projection(self.shape.width), "classifier.out_proj": Projection(self.labels)}

    def score(self, x: gc.Array) -> gc.Array:
        return self.linear("classifier.out_proj", nn.tanh(self.linear("classifier.dense", x[:, 0])))


class DistilClassHead(EncoderHead):
    """Logits of classes of a text [B, labels]: DistilBertForSequenceClassification."""

    def parts(self) -> Mapping[str, nn.Module]:
        return {"pre_classifier": Projection(self.shape.width), "classifier": Projection(self.labels)}

    def score(self, x: gc.Array) -> gc.Array:
        return self.linear("classifier", nn.relu(self.linear("pre_classifier", x[:, 0])))


class TokenClassHead(EncoderHead):
    """Logits of classes of each word [B, T, labels]: …ForTokenClassification."""

    def parts(self) -> Mapping[str, nn.Module]:
        return {"classifier": Projection(self.labels)}

    def score(self, x: gc.Array) -> gc.Array:
        return self.linear("classifier", x)
