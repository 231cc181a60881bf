"""Logits equal Hugging Face's on every variant, through safetensors and through GGUF."""

import numpy as np
import pytest

from tests.golden import parity_table
from tests.golden.parity_table import VARIANTS
from tests.weights.gguf_files import write_llama

TOLERANCE = 1e-4  # of the largest reference logit, in float32; 1e-5 is what we see


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_equals_hugging_face(name):
    assert parity_table.variant_error(name) < TOLERANCE


def test_all_variants_are_there():
    assert len(VARIANTS) == 13


# A setting that is lost on the way must show in the golden logits.
TELLING = {
    "epsilon_1e-6": {"layer_norm_epsilon": 1e-5},
    "tied_gqa": {"layer_norm_epsilon": 1e-6},
    "llama3_rope": {"rope_scaling": None},
    "linear_rope": {"rope_scaling": None},
    "untied": {"rope_max_wavelength": 20000.0},
    "multi_head": {"attention_mask": "bidirectional"},
}


@pytest.mark.parametrize("name", TELLING)
def test_golden_logits_tell_a_lost_setting(name):
    assert parity_table.variant_error(name, **TELLING[name]) > 10 * TOLERANCE


@pytest.mark.parametrize("name", ["multi_head", "llama3_rope", "float32_untied_biases", "head_dim"])
def test_gguf_equals_hugging_face(name, tmp_path):
    file = write_llama(tmp_path / "model.gguf", name)
    token_ids, theirs = parity_table.golden(name)
    ours = parity_table.logits(parity_table.load(file), token_ids)
    assert parity_table.relative_error(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("name", ["tied_gqa", "llama3_rope"])
def test_padding_on_either_side_changes_nothing(name):
    token_ids, theirs = parity_table.golden(name)
    backbone = parity_table.load(parity_table.CHECKPOINTS / name)
    for left, right in ((7, 0), (0, 7), (3, 4)):
        width = ((0, 0), (left, right))
        mask = np.pad(np.ones_like(token_ids), width)
        ours = parity_table.logits(backbone, np.pad(token_ids, width, constant_values=5), mask)
        real = ours[:, left : left + token_ids.shape[1]]
        assert parity_table.relative_error(real, theirs) < TOLERANCE


def test_rows_of_unequal_length_equal_each_alone():
    token_ids, theirs = parity_table.golden("multi_query")
    backbone = parity_table.load(parity_table.CHECKPOINTS / "multi_query")
    mask = np.ones_like(token_ids)
    short = 11
    batch = token_ids.copy()
    batch[1] = np.roll(token_ids[1], -short)  # the first 11 tokens, moved to the right end
    batch[1, -short:] = token_ids[1, :short]
    mask[1, :-short] = 0
    ours = parity_table.logits(backbone, batch, mask)
    assert parity_table.relative_error(ours[0], theirs[0]) < TOLERANCE
    assert parity_table.relative_error(ours[1, -short:], theirs[1, :short]) < TOLERANCE


def test_smollm2_equals_hugging_face(smollm2):
    rows = parity_table.smollm2_rows(parity_table.load(smollm2))
    assert len(rows) == 4
    for row in rows:
        assert row["logits"] < TOLERANCE
        assert row["top_logits"] < TOLERANCE
        assert row["log_normalizer"] < 1e-3
        assert row["same_top"]
