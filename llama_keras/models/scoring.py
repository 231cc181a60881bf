"""Log-probabilities of given tokens, with logits only where they are asked for.

Axes: B batch, T tokens, N scored places, E model width, V vocabulary.
"""

from keras import ops


def hidden_at(backbone, token_ids, places, segment_ids=None, positions=None):
    """Gives the backbone's output at some places.

    Args:
        backbone: a causal `LlamaBackbone`.
        token_ids: int32 `(B, T)`, padded on the right, if at all: no token looks there.
        places: int32 `(N,)`, `row * T + column` of each.
        segment_ids, positions: int32 `(B, T)`, see `LlamaBackbone`; both or neither.

    Returns:
        `(N, E)`.
    """
    rows = {"padding_mask": ops.ones_like(token_ids)}
    if segment_ids is not None:
        rows |= {"segment_ids": segment_ids, "positions": positions}
    hidden = backbone({"token_ids": token_ids, **rows}, training=False)
    return ops.take(ops.reshape(hidden, (-1, backbone.config.hidden_dim)), places, axis=0)


def score_tokens(backbone, hidden, targets):
    """Gives how likely each target is as the next token.

    Args:
        backbone: a causal `LlamaBackbone`.
        hidden: `(N, E)`, from `hidden_at`.
        targets: int32 `(N,)`, token ids.

    Returns:
        Log-probabilities, float32 `(N,)`, and bool `(N,)`: whether the target is the likeliest.
    """
    logits = ops.cast(backbone.token_embedding(hidden, reverse=True), "float32")  # (N, V)
    chosen = ops.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    greedy = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), targets)
    return chosen - ops.logsumexp(logits, axis=-1), greedy
