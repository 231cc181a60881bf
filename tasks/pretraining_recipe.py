"""Pretraining runs as one checked record, read from YAML and overridden by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from llama_keras.records import Record, load_record, shipped_names
from llama_keras.tasks.recipe import RECIPES, Recipe, check_jit, set_fields
from llama_keras.text.cleaning import step_config

PRETRAINING_RECIPES = RECIPES / "pretraining"


class PretrainingData(Record):
    """Where plain text comes from; each source is one of `data.load_documents`."""

    train: list[str] = []
    """Files, `package:FILE` or `shared:FILE`; one at least is needed."""
    validation: list[str] = []
    """Measured before, after and between epochs."""
    text_column: str = "text"
    """Column of the texts, in labelled sets."""
    label_column: str = "label"
    """Column of the labels, in labelled sets; they are not used."""
    limit: int | None = Field(default=None, ge=1)
    """Take the first documents of each source only."""

    @field_validator("train", "validation", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class PretrainingTokenizer(Record):
    """The vocabulary of a model from scratch."""

    preset: str = "smollm2-135m-instruct"
    """Whose tokenizer is taken."""
    vocabulary_size: int | None = Field(default=None, ge=1)
    """Keep the most urgent merges only, and add a mask and a separator."""


class PretrainingTrain(Record):
    """How long and how fast to learn."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the data, each with noise of its own."""
    batch_size: int = Field(default=32, ge=1)
    """Rows in a batch."""
    learning_rate: float = Field(default=5e-4, gt=0.0)
    """Peak of the schedule."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Parts of a batch that are computed one after the other, in the memory of one, to the same
    update."""
    packing: bool = False
    """Several texts in a row of `max_sequence_length` tokens, which none shares with another in
    what it sees; for objectives of clean tokens or of tokens masked in place."""
    jit_compile: bool = False
    """Whether XLA compiles the step, for which all batches need one shape: with `packing`."""
    seed: int = 0
    """Of the weights, the order of texts and dropout."""
    checkpoint_minutes: float | None = Field(default=5.0, ge=0.0)
    """Minutes between checkpoints, from which `--resume` goes on; several workers go by steps."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints, besides; for several workers by default 200."""
    keep_checkpoints: bool = False
    """Whether checkpoints stay when the run is finished, the best and the last ones."""


class PretrainingRecipe(Record):
    """One pretraining run."""

    name: str
    """Its name."""
    description: str = ""
    """One line for people."""
    objective: str | dict[str, Any] = "masked"
    """A name of `objectives.OBJECTIVES`, or {name: NAME, SETTING: VALUE}."""
    corruption: str | dict[str, Any] | None = None
    """A name of `text.corruption.CORRUPTIONS`, or {name: NAME, SETTING: VALUE}."""
    preset: str | None = None
    """A checkpoint to go on from; without it the model begins at random weights."""
    tokenizer: PretrainingTokenizer = PretrainingTokenizer()
    """Of a model from scratch."""
    backbone: dict[str, Any] = {}
    """Arguments of `LlamaBackbone`, `rematerialize` among them; with a preset those that replace
    the checkpoint's."""
    max_sequence_length: int = Field(default=128, ge=1)
    """Tokens of one row."""
    long_texts: Literal["cut", "split"] = "split"
    """Whether what is beyond that is left out or makes further rows."""
    dtype: Literal["float32", "bfloat16", "mixed_bfloat16"] = "float32"
    """Precision."""
    clean: list[Annotated[dict[str, Any], BeforeValidator(step_config)]] | None = None
    """Steps of `text.cleaning` in their order; by default those of the preset, else none."""
    data: PretrainingData = PretrainingData()
    """Plain text."""
    train: PretrainingTrain = PretrainingTrain()
    """Optimization."""
    preset_attention_mask: Literal["causal", "bidirectional", "prefix"] | None = None
    """Of the models that are built on the result; by default that of the training."""

    @model_validator(mode="after")
    def _can_train_so(self):
        check_jit(self.train)
        return self


def pretraining_recipe_names() -> list[str]:
    """Gives the names of the recipes that come with the package."""
    return shipped_names(PRETRAINING_RECIPES)


def is_pretraining_recipe(recipe: str | Path) -> bool:
    """Says whether it is a name of `pretraining_recipe_names()`, or a YAML file of that kind.

    Such a file has a field, as `objective`, that recipes for fine-tuning lack.
    """
    file = Path(recipe).expanduser()
    if file.suffix not in (".yaml", ".yml"):
        return str(recipe) in pretraining_recipe_names()
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False  # told by whoever loads it
    own = PretrainingRecipe.model_fields.keys() - Recipe.model_fields.keys()
    return isinstance(content, dict) and not own.isdisjoint(content)


def load_pretraining_recipe(
    recipe: str | Path, *, overrides: Sequence[str] = ()
) -> PretrainingRecipe:
    """Gives a recipe by the name of a shipped one, or from a YAML file.

    Args:
        recipe: a name of `pretraining_recipe_names()`, or a file ending in .yaml.
        overrides: `path.to.field=value` each; the value is read as YAML.

    Raises:
        InputError: there is no such recipe, or a field is wrong; the message names its line.
    """

    def change(content: Any) -> list[str]:
        return set_fields(content, recipe, overrides)

    return load_record(
        PretrainingRecipe,
        recipe,
        kind="pretraining recipe",
        folder=PRETRAINING_RECIPES,
        change=change,
    )
