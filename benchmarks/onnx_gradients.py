"""Gradients of imported operators against differences: the backend suite's cases with float inputs."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import numpy_helper

import graphc as gc
from benchmarks.onnx_suite import Outcome, cases, input_names, loaded, outcomes
from graphc.doors.onnx.known import NeedsNumbers, Unsupported

ELEMENTS = 6000                     # of the largest input: differences of larger ones take long
PASS, WRONG, NONE, ERROR = "pass", "wrong", "no gradient", "error"
# whose numbers are random, or whose slopes are those of rounding
LEFT_OUT = ("bernoulli", "randomuniform", "randomnormal", "dropout", "quantize", "qlinear", "cast", "expanded",
            "optional", "sequence", "string", "_bf16", "fp16", "bfloat16", "float16")
# at whose numbers there is no slope: acosh at 1, 0 to a power or divided by its norm, infinite masks, NaN
EDGES = ("test_acosh_example", "test_pow", "test_l2normalization_axis_0", "test_sign",
         "test_attention_4d_softcap_neginf_mask", "test_attention_4d_softcap_neginf_mask_poison",
         "test_ai_onnx_ml_tree_ensemble_set_membership")



def candidates() -> list[Any]:
    """Cases of one operator each with a float input that is not large."""
    found = []
    for case in cases(("node",)):
        if case.name in EDGES or any(word in case.name for word in LEFT_OUT):
            continue
        _, sets = loaded(case)
        arrays = [numpy_helper.to_array(v) if hasattr(v, "dims") else v for v in sets[0][0]] if sets else []
        if all(isinstance(a, (np.ndarray, np.generic)) for a in arrays) and any(
                a.dtype.kind == "f" and 0 < a.size <= ELEMENTS for a in arrays):
            found.append(case)
    return found


def gradient_outcome(case: Any) -> Outcome:
    """Whether the gradients of a case agree with differences. Inputs that decide sizes are given as numbers."""
    model, sets = loaded(case)
    arrays = {name: np.asarray(numpy_helper.to_array(v) if hasattr(v, "dims") else v)
              for name, v in zip(input_names(model), sets[0][0])}
    fixed: dict[str, np.ndarray] = {}
    while True:
        try:
            given = {name: a for name, a in arrays.items() if name not in fixed}
            report = gc.check_gradients(gc.from_onnx(model, sizes=fixed), samples=3, directions=1, **given)
            return Outcome(case.kind, case.name, PASS if report.ok else WRONG, "" if report.ok else str(report))
        except NeedsNumbers as error:
            needed = {name: arrays[name] for name in error.inputs if name not in fixed}
            if not needed:
                return Outcome(case.kind, case.name, NONE, error.text)
            fixed |= needed
        except Unsupported as error:
            return Outcome(case.kind, case.name, NONE, error.text)
        except gc.GraphError as error:
            return Outcome(case.kind, case.name, NONE if _says_none(error.text) else ERROR, error.text)
        except Exception as error:      # whatever it is, it is this case's outcome
            return Outcome(case.kind, case.name, ERROR, f"{type(error).__name__}: {error}")


# in the error for a case that has no gradient to check
NO_GRADIENT = ("nothing to check", "no argument to check", "no gradient", "no float", "not finite",
               "integers or bools", "type of each input")


def _says_none(text: str) -> bool:
    return any(words in text for words in NO_GRADIENT)


def main(words: Sequence[str]) -> None:
    """All candidates whose names have one of the words in them."""
    counts: dict[str, int] = {}
    for o in outcomes([c for c in candidates() if not words or any(w in c.name for w in words)], gradient_outcome):
        counts[o.result] = counts.get(o.result, 0) + 1
        if o.result in (WRONG, ERROR):
            print(f"{o.result}: {o.name}: {' '.join(o.reason.split())[:300]}", flush=True)
    print(counts)
