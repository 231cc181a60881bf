"""In which precision a target computes, and so how far its numbers may be from another's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_keras.eval.requests import Target

# Numbers of the same weights, computed in another order: in float32 the rounding of long sums; a
# bfloat16 has 8 bits of mantissa, a float16 11, and a score of theirs moves in the third digit.
FLOAT32_TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2
_HALF = ("bfloat16", "float16")
# What the layers of a model are mostly made of, in a graph.
_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")


@dataclass(frozen=True)
class Tolerance:
    """By how much numbers may differ, and why.

    Attributes:
        value: as a share of the larger of 1 and their size.
        reason: in words, for the report.
    """

    value: float
    reason: str


def tolerance_for(targets: Sequence[Target], asked: float | None = None) -> Tolerance:
    """Gives the tolerance that fits the coarser of two targets, or what is asked for.

    A server does not tell what it computes in; it is taken for the other, which it should equal.
    """
    if asked is not None:
        return Tolerance(asked, "as asked for")
    found = [getattr(target, "precision", None) for target in targets]
    told = ", ".join(
        f"{name} {precision or 'does not tell'}"
        for name, precision in zip("ab", found, strict=True)
    )
    coarse = any(precision in _HALF for precision in found)
    return Tolerance(HALF_TOLERANCE if coarse else FLOAT32_TOLERANCE, f"computed in: {told}")


def graph_precision(folder: Path) -> str | None:
    """Gives what the products of matrices in a SavedModel are computed in, the coarsest of several.

    Args:
        folder: of one version; any export, not only ours.

    Returns:
        `float32`, `bfloat16`, …, or None where the graph has no such product.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    found = set()
    for meta in saved.meta_graphs:
        functions = [function.node_def for function in meta.graph_def.library.function]
        for node in [node for nodes in [meta.graph_def.node, *functions] for node in nodes]:
            if node.op in _PRODUCTS and "T" in node.attr:
                found.add(tf.dtypes.as_dtype(node.attr["T"].type))
    floats = sorted((kind for kind in found if kind.is_floating), key=lambda kind: kind.size)
    return floats[0].name if floats else None
