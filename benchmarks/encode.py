"""Encoding full rows: 8 texts of 128 tokens through the layers of a SmolLM2-135M, no head.

Ours and KerasHub run as one `tf.function`, Hugging Face's torch model in inference mode; each in
float32 and bfloat16. The figure counts tokens.
"""

from typing import Any

import numpy as np

from benchmarks import smollm2
from benchmarks.suite import Claim, Library, Runs, Suite, limit_tensorflow, limit_torch

ROWS, LENGTH = 8, 128
NAME = f"encode {ROWS} × {LENGTH}"


def _runs(make) -> Runs:
    """Times `make(dtype)` in each dtype."""
    runs = {dtype: make(dtype) for dtype in smollm2.DTYPES}
    return Runs(runs={NAME: runs}, amounts={NAME: ROWS * LENGTH})


def _token_ids() -> np.ndarray:
    return np.random.default_rng(0).integers(5, smollm2.SIZES["vocabulary_size"], (ROWS, LENGTH))


def _keras(backbone) -> Any:
    import tensorflow as tf

    from llama_keras.data.inference import graph_of

    graph = graph_of(backbone)
    token_ids = tf.constant(_token_ids(), tf.int32)
    features = {"token_ids": token_ids, "padding_mask": tf.ones_like(token_ids)}
    return lambda: graph(features)[0, 0, 0].numpy()  # asking for a value waits for all


def ours(options: dict[str, Any]) -> Runs:
    """Builds our runs."""
    limit_tensorflow()
    return _runs(lambda dtype: _keras(smollm2.our_backbone(dtype)))


def keras_hub(options: dict[str, Any]) -> Runs:
    """Builds KerasHub's runs."""
    limit_tensorflow()
    return _runs(lambda dtype: _keras(smollm2.keras_hub_backbone(dtype)))


def hugging_face(options: dict[str, Any]) -> Runs:
    """Builds the runs of Hugging Face's torch model."""
    import torch

    limit_torch()

    def make(dtype):
        model = smollm2.hugging_face_model(dtype)
        token_ids = torch.from_numpy(_token_ids())
        mask = torch.ones_like(token_ids)

        @torch.inference_mode()
        def run():
            model(input_ids=token_ids, attention_mask=mask, use_cache=False)

        return run

    return _runs(make)


SUITE = Suite(
    claims=(Claim(NAME, "tokens", aim=1.0, peers=("hugging_face", "keras_hub")),),
    libraries={
        "llama_keras": Library(ours),
        "keras_hub": Library(keras_hub),
        "hugging_face": Library(hugging_face, python="peer"),
    },
)
