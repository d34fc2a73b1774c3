"""The fields of a config, each of which is read, known to change no number, or refused."""
from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from graphc.dsl.context import user_loc
from graphc.errors import GraphError

T = TypeVar("T")

# how a model was made, trained, stored or is sampled from: none of it is part of what the network computes
HARMLESS = frozenset("""
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures attention_dropout
    attention_probs_dropout_prob attn_pdrop bad_words_ids begin_suppress_tokens bos_token_id cache_implementation
    chunk_size_feed_forward classifier_dropout custom_pipelines decoder_start_token_id directionality
    diversity_penalty do_sample dropout dtype early_stopping embd_pdrop encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing
    hidden_dropout hidden_dropout_prob id2label initializer_range is_encoder_decoder keys_to_ignore_at_inference
    label2id length_penalty max_length min_length model_type n_ctx no_repeat_ngram_size num_beam_groups num_beams
    num_labels num_return_sequences output_attentions output_hidden_states output_past output_scores
    pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    prefix pretraining_tp problem_type qa_dropout remove_invalid_values repetition_penalty resid_pdrop return_dict
    return_dict_in_generate sep_token_id seq_classif_dropout sinusoidal_pos_embds summary_activation
    summary_first_dropout summary_proj_to_labels summary_type summary_use_proj suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p use_bfloat16 use_cache transformers.js_config pad_token_id
    """.split())
MISSING: Any = object()


class Fields:
    """The fields of `where`. What nobody has asked for when `finish` is called, and what is not harmless, is an error:
    a field that is ignored may change every number."""

    def __init__(self, where: str, table: Mapping[str, Any], ignored: Collection[str] = ()):
        """`ignored`: those that the user says do not matter."""
        self.where, self._table, self._seen = where, table, {*ignored}

    def integer(self, name: str, default: Any = MISSING, least: int = 1) -> int:
        return self._read(name, default, lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least,
                          f"an int of {least} or more")

    def number(self, name: str, default: Any = MISSING) -> float:
        return self._read(name, default, lambda v: isinstance(v, (int, float)) and not isinstance(v, bool), "a number")

    def flag(self, name: str, default: Any = MISSING) -> bool:
        return self._read(name, default, lambda v: isinstance(v, bool), "true or false")

    def text(self, name: str, default: Any = MISSING) -> str:
        return self._read(name, default, lambda v: isinstance(v, str), "a string")

    def words(self, name: str, default: Any = MISSING) -> list[str]:
        return self._read(name, default, lambda v: isinstance(v, list) and all(isinstance(w, str) for w in v),
                          "a list of strings")

    def table(self, name: str) -> Mapping[str, Any] | None:
        """An object in the config; None where there is none."""
        return self._read(name, None, lambda v: isinstance(v, dict), "an object")

    def optional(self, name: str, read: Callable[..., T], *default: T | None) -> T | None:
        """What `read` gives, None where the config says null, or says nothing and there is no default."""
        if name in self._table and self._table[name] is None or name not in self._table and not default:
            self._seen.add(name)
            return None
        return read(name, *default)

    def only(self, name: str, *allowed: Any) -> None:
        """GraphError where the field is there and is none of these values."""
        self._seen.add(name)
        value = self._table.get(name)
        if value is not None and value not in allowed:
            raise GraphError(f"{self.where}: {name} = {value!r} is not supported, only "
                             f"{' or '.join(map(repr, allowed))}", user_loc())

    def finish(self) -> None:
        """GraphError for a field that nobody asked for."""
        unknown = sorted(name for name, value in self._table.items()
                         if name not in self._seen and name not in HARMLESS and value is not None)
        if unknown:
            name = unknown[0]
            raise GraphError(f"{self.where}: the field {name} = {self._table[name]!r} is not supported; should it "
                             f"change no number, say ignore=[{name!r}]", user_loc())

    def _read(self, name: str, default: Any, fits: Callable[[Any], bool], what: str) -> Any:
        self._seen.add(name)
        value = self._table.get(name)
        if value is None:
            if default is MISSING:
                raise GraphError(f"{self.where} has no field {name}, {what}", user_loc())
            return default
        if not fits(value):
            raise GraphError(f"{self.where}: {name} is {what}, got {value!r}", user_loc())
        return value
