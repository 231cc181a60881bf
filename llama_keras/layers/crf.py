"""Linear-chain conditional random field: scores of whole tag sequences, and the best legal one.

Axes: B batch, T tokens, C tags.
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
from keras import ops

from llama_keras.errors import InputError

# Score of what is not allowed: far below any sum of real scores between two legal paths, and
# finite, so that no gradient is NaN.
FORBIDDEN = -1e6


class ChainScores(NamedTuple):
    """What a chain adds to the emissions, all float32."""

    transitions: keras.KerasTensor  # (C, C), from the row's tag to the column's
    start: keras.KerasTensor  # (C,)
    end: keras.KerasTensor  # (C,)


@keras.saving.register_keras_serializable(package="llama_keras")
class LinearChainCRF(keras.layers.Layer):
    """Gives the best tag sequence; its methods give likelihoods of tags.

    The score of a sequence is the sum of its emissions, of a transition score for each pair of
    neighbours, and of a start and an end score (Lafferty et al., 2001). Tokens that the mask leaves
    out are skipped: those on their two sides are neighbours. All sums are in float32, and scores
    are shifted at each step, so that a text of any length loses no precision.

    Args:
        num_tags: C.
        allowed_transitions: C lists of C bools, from the row's tag to the column's; all by default.
        allowed_starts: C bools, which tags a sequence may begin with.
        allowed_ends: C bools, which tags a sequence may end with.
        learned: whether there are transition, start and end weights. Without them the layer only
            keeps sequences legal, for the emissions of a classifier of single tokens.
        scale: the scores are the weights times this. Under Adam that multiplies their learning
            rate: what suits a pretrained model leaves three small tables where they were.

    Call arguments:
        emissions: float `(B, T, C)`.
        padding_mask: bool or int `(B, T)`, true for tokens that have a tag; all by default.

    Returns:
        int32 `(B, T)`: the tags of the best legal sequence (Viterbi), 0 where the mask is false.

    Example:
    ```python
    import numpy as np
    crf = LinearChainCRF(2, allowed_transitions=[[True, True], [False, True]])
    emissions = np.array([[[0.0, 1.0], [2.0, 0.0], [0.0, 1.0]]], "float32")
    assert np.array(crf(emissions)).tolist() == [[0, 0, 1]]
    ```
    """

    def __init__(
        self,
        num_tags: int,
        *,
        allowed_transitions: Sequence[Sequence[bool]] | None = None,
        allowed_starts: Sequence[bool] | None = None,
        allowed_ends: Sequence[bool] | None = None,
        learned: bool = True,
        scale: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_tags < 1:
            raise InputError(f"num_tags must be positive; received {num_tags}.")
        self.num_tags = num_tags
        self.learned = learned
        self.scale = scale
        every = [True] * num_tags
        self.allowed = {
            "allowed_transitions": [list(r) for r in allowed_transitions or [every] * num_tags],
            "allowed_starts": list(allowed_starts or every),
            "allowed_ends": list(allowed_ends or every),
        }
        for name, value in self.allowed.items():
            rows = value if name == "allowed_transitions" else [value]
            if len(value) != num_tags or any(len(row) != num_tags for row in rows):
                raise InputError(f"{name} must have num_tags={num_tags} entries on each axis.")
        self._names = ("transitions", "start", "end")
        for name, shape in zip(
            self._names, [(num_tags,) * 2, (num_tags,), (num_tags,)], strict=True
        ):
            weight = (
                self.add_weight(shape=shape, initializer="zeros", name=name) if learned else None
            )
            setattr(self, f"{name}_weight", weight)
        self.built = True

    def scores(self) -> ChainScores:
        """Gives what the chain adds to the emissions, `FORBIDDEN` where that is not allowed."""
        found = []
        for name, allowed in zip(self._names, self.allowed.values(), strict=True):
            forbidden = ops.where(ops.convert_to_tensor(allowed, dtype="bool"), 0.0, FORBIDDEN)
            weight = getattr(self, f"{name}_weight")
            if weight is not None:
                forbidden = forbidden + ops.cast(weight, "float32") * self.scale
            found.append(ops.cast(forbidden, "float32"))
        return ChainScores(*found)

    def call(self, emissions, padding_mask=None):
        """Gives the best tags; see the class."""
        emissions, mask, order = _packed(emissions, padding_mask)
        scores = self.scores()
        best = _forward(emissions, mask, scores=scores, reduce=_max)[0][:, :-1]

        def step(carry, given):
            tag, later = carry
            score, real = given[:, :-1], given[:, -1] > 0.0
            follow = ops.take(ops.transpose(scores.transitions), tag, axis=0)  # (B, C)
            score = score + ops.where(later[:, None], follow, scores.end[None])
            found = ops.cast(ops.argmax(score, axis=-1), "int32")
            carry = ops.where(real, found, tag), ops.logical_or(real, later)
            return carry, carry

        nothing = ops.zeros((ops.shape(mask)[0],), dtype="int32")
        first = (nothing, ops.cast(nothing, "bool"))
        _, (tags, _) = ops.scan(step, first, _by_step(best, mask), reverse=True)
        tags = ops.where(mask, ops.transpose(tags[:-1]), 0)
        return _in_order(tags, ops.argsort(order, axis=1))

    def log_likelihood(self, emissions, tags, padding_mask=None):
        """Gives how likely whole tag sequences are.

        Args:
            emissions: float `(B, T, C)`.
            tags: int `(B, T)`; of no meaning where the mask is false.
            padding_mask: see the class.

        Returns:
            float32 `(B,)`, the natural logarithm; 0 for a row without tags.
        """
        emissions, mask, order = _packed(emissions, padding_mask)
        tags = ops.where(mask, _in_order(ops.cast(tags, "int32"), order), 0)
        scores, real = self.scores(), ops.cast(mask, "float32")
        path = ops.take_along_axis(emissions, tags[..., None], axis=-1)[..., 0] * real
        pairs = tags[:, :-1] * self.num_tags + tags[:, 1:]
        moves = ops.take(ops.reshape(scores.transitions, (-1,)), pairs) * real[:, 1:]
        last = ops.maximum(ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True) - 1, 0)
        ends = ops.take(scores.end, ops.take_along_axis(tags, last, axis=1)[:, 0])
        score = ops.sum(path, axis=1) + ops.sum(moves, axis=1)
        score = score + ops.take(scores.start, tags[:, 0]) + ends
        return ops.where(mask[:, 0], score - _log_partition(emissions, mask, scores), 0.0)

    def log_partition(self, emissions, padding_mask=None):
        """Gives the logarithm of the sum over all sequences of e to their score, float32 `(B,)`."""
        emissions, mask, _ = _packed(emissions, padding_mask)
        return ops.where(mask[:, 0], _log_partition(emissions, mask, self.scores()), 0.0)

    def marginals(self, emissions, padding_mask=None):
        """Gives the probability of each tag at each token, float32 `(B, T, C)`, over all sequences.

        Where the mask is false the probabilities are 0.
        """
        emissions, mask, order = _packed(emissions, padding_mask)
        scores = self.scores()
        before = _forward(emissions, mask, scores=scores, reduce=_log_sum_exp)[0][:, :-1]
        # From the end: the same sums over the mirrored chain, each row turned at its own length.
        steps = ops.arange(ops.shape(mask)[1], dtype="int32")[None]
        counts = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
        turned = ops.where(mask, counts - 1 - steps, steps)
        mirror = ChainScores(ops.transpose(scores.transitions), scores.end, scores.start)
        mirrored = _in_order(emissions, turned)
        after = _forward(mirrored, mask, scores=mirror, reduce=_log_sum_exp)[0][:, :-1]
        after = _in_order(after, turned)
        # Both hold the token's own emission.
        found = ops.softmax(before + after - emissions, axis=-1)
        found = ops.where(mask[..., None], found, 0.0)
        return _in_order(found, ops.argsort(order, axis=1))

    def compute_output_spec(self, emissions, padding_mask=None):
        """Gives int32 `(B, T)`."""
        return keras.KerasTensor(emissions.shape[:2], dtype="int32")

    def get_config(self):
        """Gives the arguments of the constructor."""
        own = {"num_tags": self.num_tags, "learned": self.learned, "scale": self.scale}
        return {**super().get_config(), **own, **self.allowed}


def _packed(emissions, padding_mask):
    """Moves the tokens that count to the front; gives float32 emissions, the mask, the order."""
    emissions = ops.cast(emissions, "float32")
    if padding_mask is None:
        padding_mask = ops.ones_like(emissions[..., 0], dtype="bool")
    mask = ops.cast(padding_mask, "bool")
    length = ops.shape(mask)[1]
    steps = ops.arange(length, dtype="int32")[None]
    order = ops.argsort(ops.where(mask, steps, steps + length), axis=1)
    return _in_order(emissions, order), _in_order(mask, order), order


def _in_order(values, order):
    """Gives `values` `(B, T)` or `(B, T, C)` with each row's tokens in the order of `(B, T)`."""
    index = order if len(values.shape) == 2 else order[..., None]
    # The reshape tells the graph the shape, which the look-up loses.
    return ops.reshape(ops.take_along_axis(values, index, axis=1), ops.shape(values))


def _by_step(values, mask):
    """Gives `(T + 1, B, C + 1)`: one tensor, for Keras's scan takes no pair of unknown length.

    The last step is one without a token, for its scan on TensorFlow cannot give no steps.
    """
    joined = ops.concatenate([values, ops.cast(mask, "float32")[..., None]], axis=-1)
    return ops.transpose(ops.pad(joined, [[0, 0], [0, 1], [0, 0]]), (1, 0, 2))


def _max(scores):
    return ops.max(scores, axis=1)


def _log_sum_exp(scores):
    return ops.logsumexp(scores, axis=1)


def _forward(emissions, mask, *, scores: ChainScores, reduce):
    """Sums (or maximizes) over all beginnings that end in each tag at each token.

    Returns:
        float32 `(B, T + 1, C)`, each row of C shifted so that its largest is 0, and `(B, T + 1)`,
        what was taken off there, from the beginning on. Past a row's end its last values go on.
    """

    def step(carry, given):
        values, total, begun = carry
        emission, real = given[:, :-1], given[:, -1] > 0.0
        moved = reduce(values[:, :, None] + scores.transitions[None])
        new = ops.where(begun[:, None], moved, scores.start[None]) + emission
        top = ops.stop_gradient(ops.max(new, axis=-1))
        values = ops.where(real[:, None], new - top[:, None], values)
        total = ops.where(real, total + top, total)
        carry = values, total, ops.logical_or(begun, real)
        return carry, carry  # Keras's scan on TensorFlow wants both alike

    rows, tags = ops.shape(emissions)[0], emissions.shape[-1]
    zeros = ops.zeros((rows,), dtype="float32")
    first = ops.zeros((rows, tags), dtype="float32"), zeros, ops.cast(zeros, "bool")
    _, (values, totals, _) = ops.scan(step, first, _by_step(emissions, mask))
    return ops.transpose(values, (1, 0, 2)), ops.transpose(totals)


def _log_partition(emissions, mask, scores: ChainScores):
    values, totals = _forward(emissions, mask, scores=scores, reduce=_log_sum_exp)
    return totals[:, -1] + ops.logsumexp(values[:, -1] + scores.end[None], axis=-1)
