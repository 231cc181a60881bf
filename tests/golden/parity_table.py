"""How far our float32 logits lie from the golden ones of `make_logits.py`.

Run from the repository root to print the table:

    python tests/golden/parity_table.py

Errors are relative: the largest |ours - theirs| over the largest |theirs|.
"""

from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
CHECKPOINTS = HERE / "checkpoints"
SMOLLM2 = HERE / "smollm2.npz"
VARIANTS = tuple(sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json")))


def golden(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (B, T) and reference logits (B, T, V) of a variant."""
    with np.load(CHECKPOINTS / name / "logits.npz", allow_pickle=False) as arrays:
        return arrays["token_ids"], arrays["logits"]


def logits(
    backbone: Any, token_ids: np.ndarray, padding_mask: np.ndarray | None = None
) -> np.ndarray:
    """Our logits (B, T, V)."""
    from keras import ops

    mask = np.ones_like(token_ids) if padding_mask is None else padding_mask
    hidden = backbone({"token_ids": token_ids, "padding_mask": mask})
    return np.asarray(ops.convert_to_numpy(backbone.token_embedding(hidden, reverse=True)))


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference over the largest reference value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def load(preset: str | Path, **overrides: Any) -> Any:
    """The backbone of a checkpoint in float32."""
    from llama_keras.models import LlamaBackbone

    return LlamaBackbone.from_preset(preset, dtype="float32", **overrides)


def variant_error(name: str, **overrides: Any) -> float:
    """Error on one tiny checkpoint."""
    token_ids, theirs = golden(name)
    return relative_error(logits(load(CHECKPOINTS / name, **overrides), token_ids), theirs)


def smollm2_rows(backbone: Any) -> list[dict[str, Any]]:
    """For each golden text: errors, and whether the likeliest next tokens agree."""
    rows = []
    with np.load(SMOLLM2, allow_pickle=False) as arrays:
        columns = arrays["columns"]
        for index in range(sum(key.startswith("token_ids_") for key in arrays)):
            ids = arrays[f"token_ids_{index}"]
            ours = logits(backbone, ids[None])[0]
            # The slice holds no extreme logit, so the scale is that of all of them.
            scale = arrays[f"largest_{index}"].max()
            ours_normalizer = np.logaddexp.reduce(ours.astype("float64"), axis=-1)
            top = np.argsort(-ours[-1])[: len(arrays[f"top_ids_{index}"])]
            rows.append(
                {
                    "tokens": len(ids),
                    "logits": np.abs(ours[:, columns] - arrays[f"logits_{index}"]).max() / scale,
                    "top_logits": np.abs(ours[-1, top] - arrays[f"top_logits_{index}"]).max()
                    / scale,
                    "log_normalizer": np.abs(
                        ours_normalizer - arrays[f"log_normalizer_{index}"]
                    ).max(),
                    "same_top": bool(np.array_equal(top, arrays[f"top_ids_{index}"])),
                }
            )
    return rows


def main() -> None:
    """Prints the table."""
    print("| checkpoint | largest relative error |\n|---|---|")
    for name in VARIANTS:
        print(f"| {name} | {variant_error(name):.1e} |")
    for row in smollm2_rows(load("smollm2-135m-instruct")):
        same = "same" if row["same_top"] else "DIFFERENT"
        print(
            f"| smollm2-135m-instruct, {row['tokens']} tokens | {row['logits']:.1e}; {same} 32 "
            f"likeliest next tokens; log-normalizer off by {row['log_normalizer']:.1e} |"
        )


if __name__ == "__main__":
    main()
