"""Training on texts of real lengths: sentences of SST-2, a class each (`train_tags`: CoNLL-2003).

A full fine-tuning, 32 texts in a batch: forward, backward, the norm of all gradients clipped to 1,
AdamW. Ours is `model.fit` with the batches of `TextClassifier.fit` and `TokenClassifier.fit`,
texts of like length together, and the AdamW that they take by default; the others take the texts
in file order and pad each batch to its longest one, KerasHub's backbone (which has no such heads)
under a Dense layer in `keras.Model.fit`, Hugging Face's in a plain torch loop. All run the same
ids; weights are float32 and products bfloat16 (`mixed_bfloat16`; torch's autocast). The figure
counts tokens without padding.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks import smollm2
from benchmarks.suite import Claim, Library, Runs, Suite, limit_tensorflow, limit_torch

BATCH = 32
RATE, CLIP = 1e-5, 1.0
# Name → number of classes, and whether each token has one.
SETS = {"SST-2": (2, False), "CoNLL-2003": (9, True)}
# One at a time: two models of each library do not fit 24 GB.
PRECISIONS = {"bfloat16": "mixed_bfloat16"}


def ours(options: dict[str, Any], *, name: str) -> Runs:
    """Builds our runs and makes the ids for all."""
    limit_tensorflow()
    import keras

    from llama_keras.data.bucketing import TokenRows, training_batches
    from llama_keras.tasks import TextClassifier, TokenClassifier
    from llama_keras.text import Tokenizer
    from llama_keras.training.optimizers import AdamW

    tokenizer = Tokenizer.from_preset(smollm2.PRESET)
    ids = tokenizer.encode(sentences(name, options["sentences"]))

    def make(dtype: str) -> Callable:
        parts = {"backbone": smollm2.our_backbone(dtype), "tokenizer": tokenizer}
        classes, by_token = SETS[name]
        if by_token:
            types = [str(number) for number in range(classes // 2)]
            model: Any = TokenClassifier(labels=types, **parts)
            labels: Any = [[0] * len(row) for row in ids]
        else:
            model = TextClassifier(labels=["a", "b"], **parts)
            labels = np.arange(len(ids), dtype="int32") % classes
        rows = TokenRows(ids, tokenizer.pad_id, labels)
        dataset, steps = training_batches(rows, batch_size=BATCH, seed=0)
        model.compile(AdamW(RATE, global_clipnorm=CLIP))
        fit = {"steps_per_epoch": steps, "verbose": 0, "shuffle": False}
        return lambda: keras.Model.fit(model, dataset, **fit)

    return _runs(name, make, ids, handover={"token_ids": ids, "pad_id": tokenizer.pad_id})


def keras_hub(options: dict[str, Any], *, name: str) -> Runs:
    """Builds KerasHub's runs."""
    limit_tensorflow()
    import keras
    import tensorflow as tf

    def make(dtype: str) -> Callable:
        classes, by_token = SETS[name]
        backbone = smollm2.keras_hub_backbone(dtype)
        hidden = backbone.output
        if not by_token:
            last = keras.ops.sum(backbone.input["padding_mask"], axis=1) - 1
            places = keras.ops.cast(last, "int32")[:, None, None]
            hidden = keras.ops.take_along_axis(hidden, places, axis=1)[:, 0]
        logits = keras.layers.Dense(classes, dtype="float32")(hidden)
        model = keras.Model(backbone.input, logits)
        model.compile(
            keras.optimizers.AdamW(RATE, global_clipnorm=CLIP),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        shape = (None, None)
        signature = (
            {key: tf.TensorSpec(shape, tf.int32) for key in ("token_ids", "padding_mask")},
            tf.TensorSpec(shape if by_token else shape[:1], tf.int32),
            tf.TensorSpec(shape if by_token else shape[:1], tf.float32),
        )

        def batches():
            for token_ids, mask, labels in _padded_batches(name, options):
                weights = mask if by_token else np.ones(len(mask))
                features = {"token_ids": token_ids, "padding_mask": mask}
                yield features, labels, weights.astype("float32")

        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(4)
        return lambda: model.fit(dataset, verbose=0)

    return _runs(name, make, options["token_ids"])


def hugging_face(options: dict[str, Any], *, name: str) -> Runs:
    """Builds the runs of Hugging Face's torch model."""
    import torch

    limit_torch()
    classes, by_token = SETS[name]
    model = smollm2.hugging_face_model("float32").train()
    head = torch.nn.Linear(smollm2.SIZES["hidden_dim"], classes)
    weights = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.004)

    def make(dtype: str) -> Callable:
        is_mixed = dtype != "float32"

        def run():
            for batch in _padded_batches(name, options):
                token_ids, mask, labels = (torch.from_numpy(array).long() for array in batch)
                with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                    hidden = model(input_ids=token_ids, attention_mask=mask, use_cache=False)[0]
                    if not by_token:
                        hidden = hidden[torch.arange(len(mask)), mask.sum(1) - 1]
                    logits = head(hidden).float()
                if by_token:
                    labels = torch.where(mask == 1, labels, -100)
                loss = torch.nn.functional.cross_entropy(
                    logits.reshape(-1, classes), labels.reshape(-1)
                )
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, CLIP)
                optimizer.step()

        return run

    return _runs(name, make, options["token_ids"])


def sentences(name: str, count: int) -> list[str]:
    """Gives the first sentences of a set of `SETS`."""
    from llama_keras.data import shared_folder

    folder = shared_folder() / "data"
    if name == "SST-2":
        with open(folder / "sst2" / "test.jsonl", encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line in lines][:count]
    blocks = (folder / "conll2003" / "testa.conll").read_text(encoding="utf-8").split("\n\n")
    texts = [" ".join(line.split("\t")[0] for line in block.splitlines()) for block in blocks]
    return [text for text in texts if text][:count]


def _runs(name: str, make: Callable, ids: list[list[int]], **kwargs) -> Runs:
    runs = {mode: _lazily(make, dtype) for mode, dtype in PRECISIONS.items()}
    claim = _claim(name)
    return Runs(runs={claim: runs}, amounts={claim: float(sum(map(len, ids)))}, **kwargs)


def _claim(name: str) -> str:
    return f"train on {name}"


def _lazily(make: Callable, dtype: str) -> Callable:
    # A model, its gradients and moments are 2.2 GB: those of all modes are not made before time.
    made: list[Callable] = []

    def run():
        if not made:
            made.append(make(dtype))
        return made[0]()

    return run


def _padded_batches(
    name: str, options: dict[str, Any]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Gives token ids and padding mask int32 (B, T) and labels (B,) or (B, T), in file order."""
    rows = options["token_ids"]
    classes, by_token = SETS[name]
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        lengths = np.array([len(row) for row in batch])
        mask = np.arange(lengths.max())[None] < lengths[:, None]
        token_ids = np.full(mask.shape, options["pad_id"], "int32")
        token_ids[mask] = np.concatenate(batch)
        numbers = np.zeros(mask.shape) if by_token else (start + np.arange(len(batch))) % classes
        yield token_ids, mask.astype("int32"), numbers.astype("int32")


def suite(name: str) -> Suite:
    """Gives the suite of a data set."""
    return Suite(
        claims=(Claim(_claim(name), "tokens", aim=1.5, peers=("hugging_face", "keras_hub")),),
        libraries={
            "llama_keras": Library(partial(ours, name=name)),
            "keras_hub": Library(partial(keras_hub, name=name)),
            "hugging_face": Library(partial(hugging_face, name=name), python="peer"),
        },
    )


SUITE = suite("SST-2")
