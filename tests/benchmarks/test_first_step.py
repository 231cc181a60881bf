"""The comparison of first steps in small: that both train one step, no times."""

import keras
import numpy as np
import pytest

from benchmarks.first_step import CLAIM, SUITE, runs
from llama_keras.models import LlamaBackbone
from llama_keras.training import ExactTrainer


@pytest.mark.parametrize("bases", [(ExactTrainer, keras.Model), (keras.Model,)])
def test_a_run_fits_one_step(bases):
    backbone = LlamaBackbone.from_preset("llama-tiny")
    before = backbone.get_weights()
    run = runs(bases, backbone).runs[CLAIM]["float32"]
    assert np.isfinite([run(), run()]).all()
    after = backbone.get_weights()
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_claim_is_about_what_stands_in_the_suite():
    (claim,) = SUITE.claims
    assert claim.name == CLAIM
    assert set(claim.peers) < set(SUITE.libraries)
