"""Networks from folders against numbers that transformers gave for the same folders (`record`, by hand, writes them),
and what is refused."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from pretrained.folders import CONFIGS, config_of, made, summary, tokens

RECORDED = Path(__file__).with_name("recorded.json")


def given(case: str) -> tuple[np.ndarray, np.ndarray]:
    config = config_of(case)
    classes = case.endswith("classes") and config["model_type"] != "gpt2" and "bert" not in config["model_type"]
    return tokens(config.get("pad_token_id", 0 if "bert" in case else None) if "bert" in case or classes else None)


def by_transformers(folder: Path, case: str) -> list[float]:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    net, info = getattr(transformers, CONFIGS[case][1]).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] - {"lm_head.bias"} and not info["unexpected_keys"] and not info["mismatched_keys"]
    ids, mask = given(case)
    with torch.no_grad():
        result = net.eval()(torch.tensor(ids), attention_mask=torch.tensor(mask))
    return summary(result["logits" if "logits" in result else "last_hidden_state"].numpy(), mask)


@pytest.mark.peers
@pytest.mark.parametrize("case", CONFIGS)
def test_the_record_is_that_of_transformers(case, tmp_path):
    np.testing.assert_allclose(by_transformers(made(tmp_path, case), case), json.loads(RECORDED.read_text())[case],
                               rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CONFIGS)
def test_folders(case, tmp_path):
    model = gc.from_pretrained(made(tmp_path, case))
    ids, mask = given(case)
    run = gc.compile(model, input_ids=gc.i64[3, 11], attention_mask=gc.i64[3, 11])
    got = run(ids, mask)
    got = got["last_hidden_state"] if isinstance(got, dict) else got
    np.testing.assert_allclose(summary(got, mask), json.loads(RECORDED.read_text())[case], rtol=1e-4, atol=1e-4)


def record() -> None:
    """Writes what transformers says: `PYTHONPATH=.:tests python -c "from pretrained.test_recorded import *; record()"`.
    """
    import tempfile
    rows = {case: by_transformers(made(Path(tempfile.mkdtemp()), case), case) for case in CONFIGS}
    lines = (f'"{case}": {json.dumps([float(f"{x:.6g}") for x in row])}' for case, row in rows.items())
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
