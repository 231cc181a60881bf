"""Cleans raw text before the tokenizer: a chain of steps that travels in saved and served models.

Off by default, for a pretrained model wants text as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llama_keras.errors import InputError
from llama_keras.text.cleaning_steps import (
    CollapseWhitespace,
    Lower,
    Normalize,
    RemovePunctuation,
    RemoveSpecialCharacters,
    RemoveUrls,
    Step,
    StripHtml,
)
from llama_keras.text.named import from_settings, settings_of
from llama_keras.text.offsets import clean_text
from llama_keras.text.stop_words import RemoveStopWords

STEPS: dict[str, type] = {
    step.name: step
    for step in (
        Normalize,
        Lower,
        StripHtml,
        RemoveUrls,
        RemovePunctuation,
        RemoveSpecialCharacters,
        RemoveStopWords,
        CollapseWhitespace,
    )
}
StepLike = Step | str | Mapping[str, Any]
# Texts in one graph call: as many as the tokenizer takes.
_BATCH = 4096


def get_step(step: StepLike) -> Any:
    """Gives the step of a name or of `{"name": NAME, SETTING: VALUE}`, or the given one.

    Raises:
        InputError: there is no such step or setting; the message lists those that there are.
    """
    return from_settings(step, table=STEPS, kind="cleaning step")


def step_config(step: StepLike) -> dict[str, Any]:
    """Gives a step, in any form that `get_step` takes, as its name and all settings."""
    return settings_of(get_step(step))


@dataclass(frozen=True, init=False)
class Cleaning:
    """Cleaning steps, carried out in their order, inside the TensorFlow graph.

    Bytes that are no UTF-8 become U+FFFD first. An empty text stays empty, and a text may become
    empty. Nothing but TensorFlow's and TF-Text's ops is used, so it can be exported.

    Args:
        steps: names of `STEPS`, `{"name": NAME, SETTING: VALUE}`, or step objects.

    Example:

    ```python
    cleaning = Cleaning(["lower", {"name": "normalize", "form": "NFKC"}, "remove_punctuation"])
    assert cleaning.clean(["Ｈello, World!"]) == ["hello  world "]
    assert Cleaning.from_config(cleaning.get_config()) == cleaning
    assert Cleaning(["remove_punctuation"]).preserves_offsets
    zh = Cleaning([{"name": "remove_stop_words", "language": "zh"}])
    assert zh.clean(["我的目的是学习"]) == ["目的学习"]
    ```
    """

    steps: tuple[Step, ...]

    def __init__(self, steps: Sequence[StepLike] = ()) -> None:
        if isinstance(steps, str) or not isinstance(steps, Sequence):
            raise InputError(
                f"Cleaning takes a list of steps; received {steps!r}. The steps are {list(STEPS)}."
            )
        object.__setattr__(self, "steps", tuple(get_step(step) for step in steps))

    @property
    def preserves_offsets(self) -> bool:
        """Whether character n of a cleaned text always stands for character n of the text.

        Characters are Unicode code points, as `Tokenizer.encode(…, offsets=True)` counts them. True
        for `lower`, and for `remove_punctuation` and `remove_special_characters` that put one
        character in the place of one. Other steps move what follows, and no map back is kept:
        tasks that answer with places in the text (entities, answers) take such cleanings only.
        """
        return all(step.keeps_characters for step in self.steps)

    def __call__(self, texts: Any) -> Any:
        """Gives the cleaned texts of a string tensor of any shape, ragged ones too."""
        import tensorflow as tf

        from llama_keras.text.graph import valid_utf8

        if isinstance(texts, tf.RaggedTensor):
            return texts.with_flat_values(self(texts.flat_values))
        texts = tf.convert_to_tensor(texts, tf.string)
        if not self.steps:
            return texts
        cleaned = valid_utf8(texts)
        for step in self.steps:
            cleaned = step(cleaned)
        return tf.ensure_shape(cleaned, texts.shape)

    def clean(self, texts: Sequence[str]) -> list[str]:
        """Gives the cleaned texts of Python strings."""
        run, found = _graph(self), []
        for at in range(0, len(texts), _BATCH):
            batch = [clean_text(text) for text in texts[at : at + _BATCH]]
            found += [text.decode() for text in run(batch).numpy()]
        return found

    def get_config(self) -> dict[str, Any]:
        """Gives the steps with all their settings, as values that JSON and YAML hold."""
        return {"steps": [settings_of(step) for step in self.steps]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Cleaning:
        """Gives the cleaning that `get_config` described.

        Raises:
            InputError: `config` is no such description.
        """
        if not isinstance(config, Mapping) or set(config) != {"steps"}:
            raise InputError(f"A cleaning is described by {{'steps': […]}}; received {config!r}.")
        return cls(config["steps"])


@lru_cache(maxsize=32)
def _graph(cleaning: Cleaning) -> Any:
    import tensorflow as tf

    return tf.function(cleaning, input_signature=[tf.TensorSpec([None], tf.string)])


def get_cleaning(
    cleaning: Cleaning | Mapping[str, Any] | Sequence[StepLike] | None,
) -> Cleaning | None:
    """Gives the cleaning of a list of steps or of `get_config`, or the given one; None for none.

    Raises:
        InputError: there is no such step or setting.
    """
    if cleaning is None or isinstance(cleaning, Cleaning):
        return cleaning
    if isinstance(cleaning, Mapping):
        return Cleaning.from_config(cleaning)
    return Cleaning(cleaning)
