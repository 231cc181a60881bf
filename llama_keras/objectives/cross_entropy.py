"""Cross-entropy over a large vocabulary whose logits never exist all at once.

A loop takes C tokens at a time; the backward pass computes their logits anew instead of keeping
them (as Cut Cross-Entropy does, arXiv 2411.09009, there inside one kernel). Tokens that do not
count cost nothing: those that do come first, and the loop ends behind the last of them, so a
masked objective computes logits for its 15 % alone.

Axes: N tokens, C tokens of a chunk, E model width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

from keras import ops

from llama_keras.errors import InputError

# 256 rows keep a matrix product busy on CPUs, and are 50 MB of logits for 49,152 tokens.
CHUNK = 256


def head_kernel(embedding):
    """Gives the matrix from hidden states to logits.

    Args:
        embedding: a `keras.layers.ReversibleEmbedding`, tied or not, such as
            `backbone.token_embedding`; adapters of LoRA are merged in.

    Returns:
        `(E, V)`.

    Raises:
        InputError: the layer is quantized, so that nothing of it can be learned.
    """
    if getattr(embedding, "quantization_mode", None):
        raise InputError(
            f"The embedding is quantized ({embedding.quantization_mode}); train before `quantize`."
        )
    tied = embedding.tie_weights
    return ops.transpose(embedding.embeddings) if tied else embedding.reverse_embeddings


def chunked_cross_entropy(hidden, kernel, *, targets, weights=None, chunk: int = CHUNK):
    """Gives the mean cross-entropy of the targets, without `(N, V)` in memory.

    Args:
        hidden: float `(…, E)`.
        kernel: float `(E, V)`, see `head_kernel`; taken in the dtype of `hidden`.
        targets: int `(…)`, token ids.
        weights: float or bool `(…)`; the mean is weighted by them, and places of weight 0 cost
            nothing. By default all count alike.
        chunk: C, tokens whose logits exist together.

    Returns:
        float32 scalar in nats; 0 where no token counts. Gradients flow to `hidden` and `kernel`.
    """
    if weights is None:
        weights = ops.ones(ops.shape(targets), dtype="float32")
    weights = ops.cast(weights, "float32")
    losses, _ = token_losses(hidden, kernel, targets=targets, mask=weights != 0, chunk=chunk)
    total = ops.sum(weights)
    return ops.sum(losses * weights) / ops.where(total == 0, 1.0, total)


def token_losses(hidden, kernel, *, targets, mask=None, chunk: int = CHUNK):
    """Gives each token's cross-entropy and whether it is the likeliest one.

    Args:
        hidden, kernel, targets, chunk: see `chunked_cross_entropy`.
        mask: bool `(…)`, true for the tokens that count; by default all.

    Returns:
        float32 `(…)` in nats, and float32 `(…)`, 1 where the target has the largest logit; both 0
        where a token does not count.

    Raises:
        InputError: `chunk` is not a positive number.
    """
    if not isinstance(chunk, int) or chunk < 1:
        raise InputError(f"chunk must be a positive integer; received {chunk!r}.")
    shape = ops.shape(targets)
    targets = ops.reshape(ops.cast(targets, "int32"), (-1,))
    hidden = ops.reshape(hidden, (-1, hidden.shape[-1]))
    kernel = ops.cast(ops.convert_to_tensor(kernel), hidden.dtype)
    mask = ops.ones_like(targets) if mask is None else ops.reshape(ops.cast(mask, "int32"), (-1,))
    plan = _Plan.of(targets, mask, chunk=chunk)

    @ops.custom_gradient
    def losses_and_hits(hidden, kernel):
        def gradients(*args, upstream=None):
            given = args[0] if upstream is None else upstream
            return _backward(hidden, kernel, given[0], plan=plan)

        return _forward(hidden, kernel, plan=plan), gradients

    found = losses_and_hits(hidden, kernel)  # (2, N)
    return ops.reshape(found[0], shape), ops.reshape(found[1], shape)


@dataclass(frozen=True)
class _Plan:
    """Which tokens each chunk takes."""

    chunk: int
    targets: Any
    """int32 (N,)."""
    order: Any
    """int32 (N filled up to whole chunks,), the tokens that count first."""
    place: Any
    """int32 (N,), where in the order each token stands."""
    count: Any
    """int32 scalar, how many count."""

    @classmethod
    def of(cls, targets, mask, *, chunk: int) -> "_Plan":
        number = targets.shape[0]
        if number is not None:
            chunk = max(min(chunk, number), 1)
        order = ops.cast(ops.argsort(1 - mask), "int32")
        place = ops.cast(ops.argsort(order), "int32")
        missing = (-ops.shape(targets)[0]) % chunk
        order = ops.concatenate([order, ops.zeros((missing,), dtype="int32")])
        return cls(chunk, targets, order, place, ops.cast(ops.sum(mask), "int32"))

    @property
    def chunks(self):
        return (self.count + self.chunk - 1) // self.chunk

    def zeros(self, *rest):
        return ops.zeros((ops.shape(self.order)[0], *rest), dtype="float32")

    def unsorted(self, values):
        return ops.take(values, self.place, axis=0)

    def logits(self, hidden, kernel, start):
        """Gives the chunk from `start` on: tokens (C,), hidden (C, E), logits (C, V), real (C,)."""
        tokens = ops.slice(self.order, [start], [self.chunk])
        rows = ops.take(hidden, tokens, axis=0)
        logits = ops.cast(ops.matmul(rows, kernel), "float32")
        real = start + ops.arange(self.chunk, dtype="int32") < self.count
        return tokens, rows, logits, ops.cast(real, "float32")


def _forward(hidden, kernel, *, plan: _Plan):
    def step(number, losses, hits):
        start = number * plan.chunk
        tokens, _, logits, real = plan.logits(hidden, kernel, start)
        targets = ops.take(plan.targets, tokens, axis=0)
        chosen = ops.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        hit = ops.cast(ops.argmax(logits, axis=-1), "int32") == targets
        loss = (ops.logsumexp(logits, axis=-1) - chosen) * real
        losses = ops.slice_update(losses, [start], loss)
        return number + 1, losses, ops.slice_update(hits, [start], ops.cast(hit, "float32") * real)

    _, losses, hits = ops.while_loop(
        lambda number, *rest: number < plan.chunks,
        step,
        (ops.zeros((), dtype="int32"), plan.zeros(), plan.zeros()),
    )
    return ops.stack([plan.unsorted(losses), plan.unsorted(hits)])


def _backward(hidden, kernel, upstream, *, plan: _Plan):
    """Gives the gradients (N, E) and (E, V), summed over the chunks in float32."""

    def step(number, d_hidden, d_kernel):
        start = number * plan.chunk
        tokens, rows, logits, real = plan.logits(hidden, kernel, start)
        right = ops.one_hot(ops.take(plan.targets, tokens, axis=0), kernel.shape[1])
        scale = ops.take(upstream, tokens, axis=0) * real
        d_logits = ops.cast((ops.softmax(logits, axis=-1) - right) * scale[:, None], hidden.dtype)
        d_rows = ops.cast(ops.matmul(d_logits, ops.transpose(kernel)), "float32")
        d_hidden = ops.slice_update(d_hidden, [start, 0], d_rows)
        return (
            number + 1,
            d_hidden,
            d_kernel + ops.cast(ops.matmul(ops.transpose(rows), d_logits), "float32"),
        )

    _, d_hidden, d_kernel = ops.while_loop(
        lambda number, *rest: number < plan.chunks,
        step,
        (
            ops.zeros((), dtype="int32"),
            plan.zeros(hidden.shape[-1]),
            ops.zeros(kernel.shape, dtype="float32"),
        ),
    )
    return ops.cast(plan.unsorted(d_hidden), hidden.dtype), ops.cast(d_kernel, kernel.dtype)
