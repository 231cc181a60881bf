"""Batches for training objectives: clean token ids in, corrupted inputs, targets and weights out.

What a batch holds is a pure function of the texts, the corruption's seed and epoch · N + example,
so a resumed run sees the same noise.

Axes: N texts, B batch, T tokens of the batch's longest row.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from llama_keras.data.bucketing import TokenRows, inference_batches, training_batches
from llama_keras.data.packing import Field, Packing, packed_batches, text_tokens
from llama_keras.data.shares import WHOLE, Share
from llama_keras.data.streams import read_ahead
from llama_keras.errors import InputError
from llama_keras.text.corruption import RandomMasking
from llama_keras.text.corruption_rows import NoiseVocabulary

# Layouts of which several texts can lie in one row.
PACKED_LAYOUTS = ("clean", "corrupted")


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How clean rows become the inputs of an objective.

    Attributes:
        layout: of `objectives.TokenObjective`: "clean", "corrupted" or "prefix"; or "views", clean
            tokens alone.
        corruption: of `text.corruption`; needed by "corrupted" and "prefix".
        vocabulary: says which ids are protected and which one is the mask.
        separator_id: stands between corrupted and clean text; needed by "prefix".
        end_id: ends the clean text; needed by "prefix".

    Raises:
        InputError: a part that the layout needs is missing, or does not suit it.
    """

    layout: str
    corruption: Any = None
    vocabulary: NoiseVocabulary | None = None
    separator_id: int | None = None
    end_id: int | None = None

    def __post_init__(self):
        if self.layout not in _LAYOUTS:
            raise InputError(
                f"There is no layout {self.layout!r}; expected one of {list(_LAYOUTS)}."
            )
        if self.layout in ("corrupted", "prefix"):
            self._check(corruption=self.corruption, vocabulary=self.vocabulary)
        if self.layout == "prefix":
            self._check(separator_id=self.separator_id, end_id=self.end_id)
        check_corruption(self.corruption, layout=self.layout)

    def _check(self, **needed):
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise InputError(f"The layout {self.layout!r} needs {missing[0]}.")

    def __call__(self, features, *, index) -> dict[str, Any]:
        """Gives the inputs of an objective.

        Args:
            features: clean rows: `token_ids` int32 `(B, T)` and `padding_mask` int32 `(B, T)`,
                padded on the right.
            index: int64 `(B,)`, the number of each row's noise.

        Returns:
            `token_ids`, `padding_mask`, `targets` int32 and `weights` float32, all of one shape;
            with "prefix" `(B, up to 2 T + 2)` and `prefix_mask` int32; with "views" the features.
        """
        return _LAYOUTS[self.layout](self, features, index)


def check_corruption(corruption, *, layout: str) -> None:
    """Raises `InputError` where the layout needs tokens in place and the corruption moves them."""
    if layout == "corrupted" and not isinstance(corruption, RandomMasking):
        raise InputError(
            f"{corruption.name} moves tokens, so there is no place left to predict the clean ones "
            "in: take 'random_masking', or the objective 'denoising', which writes the clean text "
            "anew."
        )


def _views(noise, features, index):
    return features


def _clean(noise, features, index):
    weights = tf.cast(features["padding_mask"], tf.float32)
    return {**features, "targets": features["token_ids"], "weights": weights}


def _corrupted(noise, features, index):
    found = noise.corruption(
        features["token_ids"],
        padding_mask=features["padding_mask"],
        index=index,
        vocabulary=noise.vocabulary,
    )
    return {
        "token_ids": found.token_ids,
        "padding_mask": features["padding_mask"],
        "targets": features["token_ids"],
        "weights": tf.cast(found.prediction_mask, tf.float32),
    }


def _prefix(noise, features, index):
    clean = _ragged(features["token_ids"], features["padding_mask"])
    corrupted = noise.corruption(clean, index=index, vocabulary=noise.vocabulary).token_ids
    one = tf.ones_like(clean.row_lengths(), tf.int32)[:, tf.newaxis]
    parts = [corrupted, noise.separator_id * one, clean, noise.end_id * one]
    token_ids = tf.concat(parts, axis=1)
    padded = token_ids.to_tensor(noise.vocabulary.pad_id)
    lengths, width = token_ids.row_lengths(), tf.shape(padded)[1]
    # The separator is read with the corrupted text; the first clean token is predicted there.
    prefix = tf.sequence_mask(corrupted.row_lengths() + 1, width)
    real = tf.sequence_mask(lengths, width)
    return {
        "token_ids": padded,
        "padding_mask": tf.cast(real, tf.int32),
        "prefix_mask": tf.cast(prefix, tf.int32),
        "targets": padded,
        "weights": tf.cast(real & ~prefix, tf.float32),
    }


def _ragged(dense, mask) -> Any:
    make: Any = tf.RaggedTensor  # TensorFlow's type stubs lack its constructors
    return make.from_tensor(dense, lengths=tf.reduce_sum(tf.cast(mask, tf.int64), axis=1))


_LAYOUTS: dict[str, Callable] = {
    "clean": _clean,
    "corrupted": _corrupted,
    "prefix": _prefix,
    "views": _views,
}


def objective_training_batches(
    rows: TokenRows,
    *,
    noise: Noise,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    share: Share = WHOLE,
) -> tuple:
    """Gives an endless stream of an objective's batches, each epoch in its own order and noise.

    Args:
        rows: the clean texts; labels are not used.
        noise: makes the inputs.
        batch_size: texts in a batch; the last of an epoch may have fewer.
        seed: of the order. That of the noise is the corruption's.
        first_step: the batch to begin with, counted over all epochs; what comes is what an
            uninterrupted stream would give there.
        share: of the replicas whose rows are given.

    Returns:
        A `tf.data.Dataset` of dicts, see `Noise`, and the number of batches in an epoch.
    """
    count = len(rows.token_ids)
    dataset, steps = training_batches(
        _numbered(rows), batch_size=batch_size, seed=seed, first_step=first_step, share=share
    )

    def corrupt(number, batch):
        features, example = batch
        epoch = (first_step + number // share.count) // steps
        return noise(features, index=epoch * count + example)

    dataset = dataset.enumerate().map(corrupt, num_parallel_calls=1)
    return read_ahead(dataset), steps


def packed_objective_batches(
    rows: TokenRows,
    packing: Packing,
    *,
    noise: Noise,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Gives the packed counterpart of `objective_training_batches`: each text has the same noise.

    Args:
        rows, noise: see `objective_training_batches`; the layout is "clean" or "corrupted".
        packing: of the texts' lengths.
        batch_size, seed, first_step, share: see `data.packing.packed_batches`.

    Returns:
        A `tf.data.Dataset` of dicts `(B, T)`: what `Noise` gives, `segment_ids` and `positions`.

    Raises:
        InputError: the layout compares texts or writes them twice, so that none can share a row.
    """
    check_packing(noise.layout)
    tokens, count = text_tokens(rows), len(rows.token_ids)

    def clean(texts, epoch):
        ids = Field(tokens(texts), rows.pad_id)
        return {
            "token_ids": ids,
            "targets": ids,
            "weights": Field(tf.ones_like(ids.values, tf.float32)),
        }

    def corrupted(texts, epoch):
        found = noise.corruption(
            tokens(texts), index=epoch * count + texts, vocabulary=noise.vocabulary
        )
        return {
            "token_ids": Field(found.token_ids, rows.pad_id),
            "targets": Field(found.targets, rows.pad_id),
            "weights": Field(tf.cast(found.prediction_mask, tf.float32)),
        }

    return packed_batches(
        packing,
        clean if noise.layout == "clean" else corrupted,
        batch_size=batch_size,
        seed=seed,
        first_step=first_step,
        share=share,
    )


def objective_stream(
    rows: TokenRows, *, noise: Noise, width: int | None, batch_size: int, seed: int
) -> tuple[Callable, int, Packing | None]:
    """Gives what `fit` learns from.

    Args:
        rows, noise, batch_size, seed: see `objective_training_batches`.
        width: tokens of packed rows; None gives each text a row of its own.

    Returns:
        A function from a share and the number of the first step to a data set, the number of
        batches in an epoch, and the packing, if there is one.
    """
    order = {"noise": noise, "batch_size": batch_size, "seed": seed}
    if width is None:

        def texts(share, first_step):
            return objective_training_batches(rows, first_step=first_step, share=share, **order)[0]

        return texts, -(-len(rows.token_ids) // batch_size), None
    packing = Packing.of(rows.lengths, width=width)

    def packed(share, first_step):
        return packed_objective_batches(rows, packing, first_step=first_step, share=share, **order)

    return packed, packing.steps(batch_size), packing


def check_packing(layout: str) -> None:
    """Raises `InputError` where texts of an objective's layout cannot share a row."""
    if layout not in PACKED_LAYOUTS:
        why = "writes each text twice" if layout == "prefix" else "compares whole rows"
        raise InputError(
            f"packing=True is for objectives of clean or corrupted tokens; the layout {layout!r} "
            f"{why}. Leave packing out: texts of like length then share a batch."
        )


def objective_inference_batches(
    rows: TokenRows, *, noise: Noise, batch_size: int, share: Share = WHOLE
):
    """Gives the texts once, sorted by length, with the same noise each time.

    That noise is none of training's: the numbers count down from -1.

    Args:
        rows, noise, batch_size, share: see `objective_training_batches`.

    Returns:
        A finite `tf.data.Dataset` of dicts, see `Noise`.
    """
    dataset, _ = inference_batches(_numbered(rows), batch_size=batch_size, share=share)
    noisy = dataset.map(
        lambda features, example: noise(features, index=-1 - example), num_parallel_calls=1
    )
    return read_ahead(noisy)


def _numbered(rows: TokenRows) -> TokenRows:
    return replace(rows, labels=np.arange(len(rows.token_ids), dtype="int64"), sample_weights=None)
