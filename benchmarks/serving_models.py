"""Tiny exports of several tasks, each in two variants, and what each variant answers.

    python -m benchmarks.serving_models FOLDER

writes FOLDER/NAME/{a,b}/ and FOLDER/expected.json. The answers come from the exported graphs in
that process, one row at a time; who asks a server compares with them and needs no TensorFlow.
"""

import json
import sys
from pathlib import Path
from typing import Any

VARIANTS = ("a", "b")
TEXTS = [
    "A lovely, moving film.",
    "Ada Lovelace was born in London.",
    "今天天气很好",
    "x",
    "",
    "naïve café 🙂 in Rome",
    "Never again: two hours of my life that nobody gives back to me.",
    "The capital of France is Paris, " * 3,
]
# Name of the model -> signature that is asked.
SIGNATURES = {"sentiment": "classify", "entities": "tag", "writer": "generate"}
NEW_TOKENS = 8
_GENERATION = {
    "max_new_tokens": NEW_TOKENS,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "seed": 0,
    "stop": [""],
}


def row_of(name: str, text: str) -> dict[str, Any]:
    """Gives the inputs by name with which a model is asked about a text."""
    return {"prompt": text, **_GENERATION} if name == "writer" else {"text": text}


def prepare(folder: Path) -> None:
    """Exports all models and writes down their answers."""
    import keras

    from llama_keras.serving.local import SavedModel

    expected: dict[str, dict[str, list[Any]]] = {}
    for name, make in _MAKERS.items():
        for seed, variant in enumerate(VARIANTS):
            keras.utils.set_random_seed(seed)
            place = folder / name / variant
            make(seed).export(place)
            saved = SavedModel(place / "1" if (place / "1").is_dir() else place)
            answers = [_answer(saved, name, text) for text in TEXTS]
            expected.setdefault(name, {})[variant] = answers
        if expected[name]["a"] == expected[name]["b"]:
            raise RuntimeError(f"both variants of {name} give the same answers: nothing to tell.")
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


def is_same(found: Any, wanted: Any) -> bool:
    """Whether an answer is the expected one: strings equal, numbers within float error."""
    if isinstance(wanted, dict):
        # Rows beside others are padded to the longest; `count` tells how much is the row's own.
        count = wanted.get("count")
        return found.keys() >= wanted.keys() and all(
            _same_column(found[key], wanted[key], count) for key in wanted
        )
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(is_same, found, wanted))
    if isinstance(wanted, float):
        return abs(found - wanted) <= 1e-3 * max(1.0, abs(wanted))
    return found == wanted


def _same_column(found: Any, wanted: Any, count: int | None) -> bool:
    if not isinstance(found, list) or not isinstance(wanted, list):
        return is_same(found, wanted)
    if count is None:  # token ids: -1 after a row's end, as far as the longest of the request
        return is_same(_until_end(found), _until_end(wanted))
    return is_same(found[:count], wanted[:count])


def _until_end(values: list[Any]) -> list[Any]:
    return values[: len(values) - next((n for n, v in enumerate(reversed(values)) if v != -1), 0)]


def _answer(saved: Any, name: str, text: str) -> Any:
    row = row_of(name, text)
    outputs = saved.run(SIGNATURES[name], **{key: [value] for key, value in row.items()})
    named = {key: array[0] for key, array in outputs.items() if not key.endswith("_bytes")}
    return {key: _plain(value) for key, value in named.items()}


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _sentiment(seed: int) -> Any:
    from llama_keras.tasks import TextClassifier

    return TextClassifier.from_preset("llama-tiny", labels=["negative", "positive"])


def _entities(seed: int) -> Any:
    import numpy as np

    from llama_keras.tasks import TokenClassifier

    model = TokenClassifier.from_preset("llama-tiny", labels=["LOC", "PER"])
    # Random weights, but such that there are entities.
    generator = np.random.default_rng(seed)
    weights = [generator.normal(size=w.shape) * 0.5 for w in model.head.get_weights()]
    model.head.set_weights(weights)
    return model


def _writer(seed: int) -> Any:
    from llama_keras.tasks import CausalLM

    return CausalLM.from_preset("llama-tiny")


_MAKERS = {"sentiment": _sentiment, "entities": _entities, "writer": _writer}


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
