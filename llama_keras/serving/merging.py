"""Put the rows of several requests into one batch, and take the answers apart again.

Axes: B rows of one request, M columns of an output whose width depends on the rows (the entities of
a text, the tokens of an answer).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from .signature_def import Signature

# Integer outputs of open width end with this in rows that are shorter than the longest.
_PAD = -1


def can_merge(signature: Signature, inputs: Mapping[str, np.ndarray]) -> bool:
    """Says whether rows of several requests may run as one batch.

    That is so where all inputs and outputs have an open first axis, and the inputs the same number
    of rows, at least one.
    """
    specs = [*signature.inputs.values(), *signature.outputs.values()]
    if not signature.inputs or any(not spec.shape or spec.shape[0] != -1 for spec in specs):
        return False
    sizes = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    return len(sizes) == 1 and sizes != {0}


def shapes_of(inputs: Mapping[str, np.ndarray]) -> tuple:
    """Gives what two requests need to have in common to be merged: the sizes behind the rows."""
    return tuple((name, inputs[name].shape[1:]) for name in sorted(inputs))


def merge(requests: Sequence[Mapping[str, np.ndarray]], *, fill: int = 0) -> dict[str, np.ndarray]:
    """Gives the inputs of all requests, one below the other.

    Args:
        requests: inputs by name.
        fill: rows that the batch is filled up to with copies of the last request's first.
    """
    merged = {}
    for name in requests[0]:
        parts = [request[name] for request in requests]
        missing = fill - sum(len(part) for part in parts)
        merged[name] = np.concatenate(parts + [parts[-1][:1]] * max(0, missing))
    return merged


def split(
    outputs: Mapping[str, np.ndarray],
    rows: Sequence[int],
    *,
    signature: Signature,
    inputs: Mapping[str, np.ndarray],
    is_ours: bool = False,
) -> list[dict[str, np.ndarray]] | None:
    """Gives each request its rows, as wide as if it had been alone.

    An output of open width (B, M) is as wide as the longest row of all requests needs. Where one of
    that width holds integers, the columns in which they are all -1, this package's filling, are cut
    off for a request. Without such an output nothing is cut.

    Args:
        outputs: of the merged batch.
        rows: of each request; behind them may be filling.
        signature: that ran.
        inputs: the merged inputs.
        is_ours: whether this package made the signature, so that -1 is its filling for sure. Of
            others an output as wide as an input is left so: it may have its width from there, and
            a -1 may be an answer.

    Returns:
        Outputs by name for each request; None where an output has other rows than the inputs.
    """
    total = len(next(iter(inputs.values())))
    if any(array.shape[:1] != (total,) for array in outputs.values()):
        return None
    kept = set() if is_ours else {size for array in inputs.values() for size in array.shape[1:]}
    open_widths = _open_widths(outputs, signature=signature, kept=kept)
    parts = []
    start = 0
    for count in rows:
        part = {name: array[start : start + count] for name, array in outputs.items()}
        for names in open_widths:
            width = _own_width(part, names)
            part |= {name: part[name][:, :width] for name in names}
        parts.append(part)
        start += count
    return parts


def _open_widths(
    outputs: Mapping[str, np.ndarray], *, signature: Signature, kept: Collection[int]
) -> list[list[str]]:
    """Gives the outputs whose width comes from the rows, those of one width together."""
    groups: dict[int, list[str]] = {}
    for name, array in outputs.items():
        spec = signature.outputs.get(name)
        is_open = spec is not None and spec.shape is not None and spec.shape[1:2] == (-1,)
        if is_open and array.ndim > 1 and array.shape[1] not in kept:
            groups.setdefault(array.shape[1], []).append(name)
    return [names for names in groups.values() if any(outputs[n].dtype.kind == "i" for n in names)]


def _own_width(part: Mapping[str, np.ndarray], names: Sequence[str]) -> int:
    width = 0
    for name in names:
        array = part[name]
        if array.dtype.kind == "i":
            others = tuple(axis for axis in range(array.ndim) if axis != 1)
            used = np.flatnonzero((array != _PAD).any(axis=others))
            width = max(width, int(used[-1]) + 1 if used.size else 0)
    return width
