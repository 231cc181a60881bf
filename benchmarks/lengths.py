"""Encoding texts of real lengths: sentences of SST-2, 32 in a batch, the last token's vector each.

Ours sorts them by length, as `TextClassifier.predict` and the linear probe do. The others take them
in file order and pad each batch to its longest text, which is what the padding of Hugging Face's
tokenizers gives; KerasHub's preprocessor would pad more, to a fixed length. All run the same ids.
The figure counts tokens without padding.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import smollm2
from benchmarks.suite import Claim, Library, Runs, Suite, limit_tensorflow, limit_torch

BATCH = 32
NAME = "encode SST-2's lengths"


def ours(options: dict[str, Any]) -> Runs:
    """Builds our runs and makes the ids for all."""
    limit_tensorflow()
    from llama_keras.data import shared_folder
    from llama_keras.data.bucketing import TokenRows
    from llama_keras.data.inference import run_rows
    from llama_keras.text import Tokenizer

    path = options["texts"] or shared_folder() / "data" / "sst2" / "test.jsonl"
    with open(path, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines][: options["sentences"]]
    tokenizer = Tokenizer.from_preset(smollm2.PRESET)
    token_ids = tokenizer.encode(texts)
    rows = TokenRows(token_ids, tokenizer.pad_id)

    def make(dtype):
        graph = _last_token_graph(smollm2.our_backbone(dtype))
        return lambda: run_rows(graph, rows, batch_size=BATCH)

    return _runs(make, token_ids, handover={"token_ids": token_ids, "pad_id": tokenizer.pad_id})


def keras_hub(options: dict[str, Any]) -> Runs:
    """Builds KerasHub's runs."""
    limit_tensorflow()

    def make(dtype):
        graph = _last_token_graph(smollm2.keras_hub_backbone(dtype))

        def run():
            names = ("token_ids", "padding_mask")
            for batch in _padded_batches(options):
                np.asarray(graph(dict(zip(names, batch, strict=True))))

        return run

    return _runs(make, options["token_ids"])


def hugging_face(options: dict[str, Any]) -> Runs:
    """Builds the runs of Hugging Face's torch model."""
    import torch

    limit_torch()

    def make(dtype):
        model = smollm2.hugging_face_model(dtype)

        @torch.inference_mode()
        def run():
            for batch in _padded_batches(options):
                token_ids, mask = (torch.from_numpy(array) for array in batch)
                hidden = model(input_ids=token_ids, attention_mask=mask, use_cache=False)[0]
                hidden[torch.arange(len(mask)), mask.sum(1) - 1].float().numpy()

        return run

    return _runs(make, options["token_ids"])


def _runs(make: Callable, token_ids: list[list[int]], **kwargs) -> Runs:
    """Times `make(dtype)` in each dtype."""
    runs = {dtype: make(dtype) for dtype in smollm2.DTYPES}
    return Runs(runs={NAME: runs}, amounts={NAME: sum(map(len, token_ids))}, **kwargs)


def _padded_batches(options: dict[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Gives token ids and padding mask, int32 (B, T), of each batch in file order."""
    rows = options["token_ids"]
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        lengths = np.array([len(row) for row in batch])
        mask = np.arange(lengths.max())[None] < lengths[:, None]
        token_ids = np.full(mask.shape, options["pad_id"], "int32")
        token_ids[mask] = np.concatenate(batch)
        yield token_ids, mask.astype("int32")


def _last_token_graph(backbone) -> Callable:
    import tensorflow as tf

    from llama_keras.data.inference import graph_of

    def last_token(features):
        places = tf.reduce_sum(features["padding_mask"], axis=1) - 1
        return tf.gather(backbone(features), places, batch_dims=1)

    return graph_of(last_token)


SUITE = Suite(
    claims=(Claim(NAME, "tokens", aim=1.5, peers=("hugging_face", "keras_hub")),),
    libraries={
        "llama_keras": Library(ours),
        "keras_hub": Library(keras_hub),
        "hugging_face": Library(hugging_face, python="peer"),
    },
)
