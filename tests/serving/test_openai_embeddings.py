import base64
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette

from llama_keras.serving import openai_routes
from llama_keras.serving.served import ServedModels
from llama_keras.serving.versions import find_source


class Vectors:
    """An Embedder's export, as far as the route sees it."""

    def __init__(self, with_tokens):
        from llama_keras.serving.signature_def import Signature, TensorSpec

        text = {"text": TensorSpec("", "string", (-1,))}
        vector = {"embedding": TensorSpec("", "float", (-1, 2))}
        self.signatures = {"embed": Signature(text, vector)}
        if with_tokens:
            self.signatures["count_tokens"] = self.signatures["embed"]

    def run_arrays(self, signature, inputs):
        sizes = [len(text) for text in inputs["text"].tolist()]
        if signature == "count_tokens":
            return {"num_tokens": np.array(sizes, "int32")}
        return {"embedding": np.array([[n, 0.5] for n in sizes], "float32")}


@pytest.mark.parametrize("with_tokens", [False, True])
def test_embeddings_as_numbers_and_as_bytes(tmp_path, with_tokens):
    from starlette.testclient import TestClient

    (tmp_path / "vectors" / "1").mkdir(parents=True)
    (tmp_path / "vectors" / "1" / "saved_model.pb").write_bytes(b"")
    source = find_source(tmp_path / "vectors")
    fake: Any = Vectors(with_tokens)
    with ServedModels([source], load=lambda _: fake, poll_seconds=0) as served:
        http = TestClient(Starlette(routes=openai_routes.routes(served)))
        asked = {"model": "vectors", "input": ["né", "x"]}
        found = http.post("/v1/embeddings", json=asked).json()
        assert [row["embedding"] for row in found["data"]] == [[3.0, 0.5], [1.0, 0.5]]
        assert [row["index"] for row in found["data"]] == [0, 1]
        tokens = {"prompt_tokens": 4, "total_tokens": 4}
        assert found["usage"] == (tokens if with_tokens else None)
        asked = {"model": "vectors", "input": "né", "encoding_format": "base64"}
        (row,) = http.post("/v1/embeddings", json=asked).json()["data"]
        assert np.frombuffer(base64.b64decode(row["embedding"]), "<f4").tolist() == [3.0, 0.5]
        refused = http.post("/v1/completions", json={"model": "vectors", "prompt": "x"})
        assert refused.status_code == 400 and "does not generate" in refused.text
