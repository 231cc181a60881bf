"""Run with KERAS_BACKEND=jax: fills backbones with given weights, writes what they give.

    KERAS_BACKEND=jax python -m tests.models.jax_worker IN.npz OUT.npz

IN.npz holds `VARIANT/weight/INDEX` arrays; OUT.npz gets `VARIANT/output` for the suite's toy batch,
`VARIANT/logits`, and `modules`, the modules loaded once ours were imported.
"""

import sys
from typing import Any

OURS = ("llama_keras.layers", "llama_keras.models")


class _Refuse:
    """Hides TensorFlow from every import, as on a machine without it."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_text"):
            raise ModuleNotFoundError(f"No module named {name!r} (hidden by the test)", name=name)


def main(given: str, result: str) -> None:
    import importlib

    for name in OURS:
        importlib.import_module(name)
    modules = sorted(sys.modules)

    import keras
    import numpy as np

    from llama_keras.models import LlamaBackbone
    from tests.models.backbone_suite import SIZES, VARIANTS, numpy, toy_batch

    assert keras.backend.backend() == "jax"
    weights, results = np.load(given), {"modules": np.array(modules)}
    for variant, arguments in VARIANTS.items():
        backbone = LlamaBackbone(**{**SIZES, **arguments})
        for index, variable in enumerate(backbone.weights):
            variable.assign(weights[f"{variant}/weight/{index}"])
        head: Any = backbone.token_embedding
        output = backbone(toy_batch((6, 4), mode=backbone.config.attention_mask))
        results[f"{variant}/output"] = numpy(output)
        results[f"{variant}/logits"] = numpy(head(output, reverse=True))
    np.savez(result, allow_pickle=False, **results)


if __name__ == "__main__":
    if "--hide-tensorflow" in sys.argv:
        sys.argv.remove("--hide-tensorflow")
        sys.meta_path.insert(0, _Refuse())  # pyright: ignore[reportArgumentType]
    main(*sys.argv[1:])
