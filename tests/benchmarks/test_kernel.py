"""The comparison of attention kernels in small: that it runs and is about the kernels, no times."""

import numpy as np
import pytest

from benchmarks.kernel import (
    DTYPES,
    KINDS,
    PASSES,
    SUITE,
    LayerSizes,
    _layer_graph,
    layer_claim,
    layer_runs,
)

SIZES = LayerSizes(width=16, num_query_heads=4, num_key_value_heads=2, tokens=16, calls={8: 2})


# As the library of dot products has it, and as ours.
@pytest.mark.parametrize("kernels", [{"fixed": "dot_product"}, {"learned": KINDS["learned"]}])
def test_a_layers_runs_run(kernels):
    found = layer_runs(kernels, sizes=SIZES)
    claims = {layer_claim(k, p, 8, d) for k in kernels for p in PASSES for d in DTYPES}
    assert found.amounts == dict.fromkeys(claims, 16 * 2)
    assert set(found.runs) == claims
    for modes in found.runs.values():
        (run,) = modes.values()
        output = np.asarray(run(), dtype="float32")
        assert np.isfinite(output).all() and output.any()


def test_a_pass_back_gives_every_gradient():
    def shapes(kernel):
        graph = _layer_graph(kernel, "forward and backward", 8, "float32", SIZES)
        return sorted(tuple(output.shape) for output in graph())

    rows, queries, keys = (2, 8, 16), (16, 16), (16, 8)
    plain = sorted([rows, rows, queries, queries, keys, keys])
    assert shapes(KINDS["unnormalized"]) == plain
    assert shapes(KINDS["learned"]) == [(), *plain]


def test_the_suites_claims_are_those_of_its_lengths():
    lengths = LayerSizes().calls
    claims = {claim.name for claim in SUITE.claims if claim.name.startswith("attention, ")}
    rows = [(k, p, t, d) for k in KINDS for p in PASSES for t in lengths for d in DTYPES]
    assert claims == {layer_claim(*row) for row in rows} and len(claims) == 36
    assert all(LayerSizes().tokens % length == 0 for length in lengths)
