"""The comparison of attention kernels in small: that it runs and is about the kernels, no times."""

import numpy as np
import pytest

from benchmarks.kernel import DTYPES, KINDS, PASSES, SUITE, LayerSizes, layer_claim, layer_runs

SIZES = LayerSizes(width=16, num_query_heads=4, num_key_value_heads=2, tokens=16, calls={8: 2})


def last_outputs(kernels):
    """Gives for each claim what its run ends with: the layer's output, or its last gradient."""
    found = layer_runs(kernels, sizes=SIZES)
    assert set(found.amounts.values()) == {16 * 2}
    outputs = {}
    for claim, modes in found.runs.items():
        (run,) = modes.values()
        outputs[claim] = np.asarray(run(), dtype="float32")
    return outputs


@pytest.fixture(scope="module")
def outputs():
    return {
        "gaussian": last_outputs(KINDS),
        "dot_product": last_outputs(dict.fromkeys(KINDS, "dot_product")),
    }


def test_both_libraries_run_under_each_claim(outputs):
    claims = {layer_claim(k, p, 8, d) for k in KINDS for p in PASSES for d in DTYPES}
    assert set(outputs["gaussian"]) == set(outputs["dot_product"]) == claims
    for found in outputs.values():
        assert all(np.isfinite(output).all() and output.any() for output in found.values())


def test_a_pass_back_ends_with_a_gradient(outputs):
    forward, backward = (
        {kind: outputs["gaussian"][layer_claim(kind, name, 8, "float32")] for kind in KINDS}
        for name in PASSES
    )
    assert {output.shape for output in forward.values()} == {(2, 8, 16)}
    # The last weight: of the layer's output, or the learned temperature.
    shapes = {kind: output.shape for kind, output in backward.items()}
    assert shapes == {"fixed": (16, 16), "learned": (), "unnormalized": (16, 16)}


def test_the_suites_claims_are_those_of_its_lengths():
    lengths = LayerSizes().calls
    claims = {claim.name for claim in SUITE.claims if claim.name.startswith("attention, ")}
    rows = [(k, p, t, d) for k in KINDS for p in PASSES for t in lengths for d in DTYPES]
    assert claims == {layer_claim(*row) for row in rows} and len(claims) == 36
    assert all(LayerSizes().tokens % length == 0 for length in lengths)
