"""Recipes: a fine-tuning run as one checked record, read from YAML and overridden by name."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from llama_keras.errors import InputError
from llama_keras.records import Record, load_record, shipped_names
from llama_keras.text.cleaning import step_config
from llama_keras.training.fine_tuning import get_strategy, strategy_config

RECIPES = Path(__file__).parent / "recipes"


class RecipeData(Record):
    """Where texts and labels come from; each source is one of `data.load_classification`."""

    train: str | None = None
    """A file, folder, `tfds:NAME/SPLIT`, `package:FILE` or `shared:FILE`; needed."""
    validation: str | None = None
    """Measured after each epoch and at the end; `train.early_stopping` needs it. `linear_probe`
    chooses its layer and penalty by it, or else by a tenth of `train` that it sets aside."""
    test: str | None = None
    """Measured once at the end; without it only the validation scores are reported."""
    text_column: str | list[str] = "text"
    """Column of the texts; of several columns the texts are joined by line breaks, or are the two
    of a pair (`model.pairs`)."""
    label_column: str = "label"
    """Column of the labels; for `causal_lm`, of the responses."""
    names_column: str | None = None
    """For `text_classification`, a JSON key with the list of names that a label counts in."""
    prompt: str = "{text}"
    """For `causal_lm`, what stands round each text."""
    response: str = "{label}"
    """For `causal_lm`, what stands round each response."""
    turns_column: str | None = None
    """For `causal_lm`, the key of conversations' turns, see `data.dialogues`; there are no texts
    and labels then."""
    tag_scheme: Literal["IOB1", "IOB2", "IOBES"] = "IOB2"
    """For `token_classification`, how the tags of the files are written."""
    word_separator: str | None = None
    """For `token_classification`, stands between words; by default as the script has it."""
    data_dir: str | None = None
    """Where `tfds:` sets are prepared."""
    limit: int | None = Field(default=None, ge=1)
    """Take the first examples of each part only."""


class RecipeModel(Record):
    """The backbone's changes and the head."""

    attention_mask: Literal["causal", "bidirectional"] | None = None
    """Who sees whom; by default as the preset's model has it."""
    pooling: Literal["last", "mean"] | None = None
    """By default last for causal, mean for bidirectional models."""
    pairs: bool = False
    """For `text_classification`: each example is two texts, of the two `data.text_column`."""
    multi_label: bool = False
    """For `text_classification`: a text has a list of labels, in CSV with `|` between them."""
    threshold: float = Field(default=0.5, gt=0.0, lt=1.0)
    """With `multi_label`, probability above which a label is given."""
    tag_head: Literal["dense", "crf"] = "dense"
    """For `token_classification`: each tag by itself, or whole sequences."""
    tag_scheme: Literal["IOB2", "IOBES"] = "IOB2"
    """For `token_classification`: how the head spells entities."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of pooled features dropped in training."""
    max_sequence_length: int = Field(default=256, ge=1)
    """Tokens after which a text is cut."""
    dtype: Literal["float32", "bfloat16", "mixed_bfloat16"] = "float32"
    """Precision; `mixed_bfloat16` trains about 1.6 times as fast on CPUs with AVX512-BF16."""
    rematerialize: bool = False
    """Whether activations inside of blocks are computed again for the gradients, not kept: less
    memory, a third more time."""


class RecipeAnswers(Record):
    """Of `task: question_answering` alone: what answers may be, and how they are scored."""

    null_answers: bool = False
    """Whether a question may have no answer (SQuAD 2.0)."""
    max_answer_tokens: int = Field(default=30, ge=1)
    """Tokens of the longest answer that is looked for."""
    max_question_tokens: int = Field(default=64, ge=1)
    """Tokens after which a question is cut."""
    window_overlap: int = Field(default=64, ge=2)
    """Tokens that windows of a long context share; at least twice `max_answer_tokens`."""
    rule: Literal["squad", "cmrc"] = "squad"
    """How answers are compared: by words, or by Chinese characters."""


class RecipeGeneration(Record):
    """Of `task: causal_lm` alone: responses that are generated and measured by BLEU and chrF."""

    examples: int = Field(default=0, ge=0)
    """To the first so many prompts of each part."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Of each."""
    stop: list[str] = []
    """Texts that end one."""


class RecipeTrain(Record):
    """How long and how fast to learn; `linear_probe` uses `batch_size` alone."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the data."""
    batch_size: int = Field(default=32, ge=1)
    """Texts in a batch."""
    learning_rate: float | None = Field(default=None, gt=0.0)
    """Peak of the schedule; by default the strategy's."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Parts of a batch that are computed one after the other, in the memory of one, to the same
    update."""
    packing: bool = False
    """For `causal_lm`: several examples in a row of `model.max_sequence_length` tokens, which none
    shares with another in what it sees; `batch_size` counts rows."""
    jit_compile: bool = False
    """Whether XLA compiles the step, for which all batches need one shape: with `packing`."""
    class_weights: Literal["balanced"] | None = None
    """`balanced` makes rare labels count as much as frequent ones (text classification)."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each target spread over all labels (text classification)."""
    early_stopping: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a lower validation loss, and keep the best weights."""
    seed: int = 0
    """Of the head, the order of texts and dropout."""
    checkpoint_minutes: float | None = Field(default=5.0, ge=0.0)
    """Minutes between checkpoints, from which `--resume` goes on; several workers go by steps."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints, besides; for several workers by default 200."""
    keep_checkpoints: bool = False
    """Whether checkpoints stay when the run is finished, the best and the last ones."""


def check_jit(train) -> None:
    """Raises `ValueError` where XLA would compile the step anew for each width of a batch."""
    if train.jit_compile and not train.packing:
        raise ValueError(
            "train.jit_compile needs train.packing=true: without it batches have many widths, and "
            "XLA compiles the step anew for each"
        )
    if train.jit_compile and train.gradient_accumulation_steps > 1:
        raise ValueError(
            "train.jit_compile and train.gradient_accumulation_steps do not go together: XLA needs "
            "the size of each part before it runs"
        )


_USES = (
    (("causal_lm",), ("data.prompt", "data.response", "data.turns_column", "train.packing")),
    (("causal_lm",), [f"generation.{name}" for name in RecipeGeneration.model_fields]),
    (("question_answering",), [f"answers.{name}" for name in RecipeAnswers.model_fields]),
    (("text_classification",), ("model.pairs", "model.multi_label", "model.threshold")),
    (("text_classification",), ("train.class_weights", "train.label_smoothing")),
    (("text_classification",), ("data.names_column",)),
    (("token_classification",), ("data.tag_scheme", "data.word_separator")),
    (("token_classification",), ("model.tag_head", "model.tag_scheme")),
    (("text_classification", "embedding"), ("model.pooling",)),
    (("text_classification", "token_classification", "question_answering"), ("model.dropout",)),
    (
        ("text_classification", "token_classification", "causal_lm"),
        ("data.text_column", "data.label_column"),
    ),
    (
        ("text_classification", "token_classification", "causal_lm", "question_answering"),
        ("data.data_dir",),
    ),
)
# Setting -> the tasks that use it; a setting that is not here is for all.
_TASKS_WITH = {name: tasks for tasks, settings in _USES for name in settings}
# What a solved head has no use for; epochs may stay, so that `--set strategy=…` is enough.
_NOT_FOR_PROBES = (
    "model.dropout",
    "model.rematerialize",
    "train.learning_rate",
    "train.gradient_accumulation_steps",
    "train.packing",
    "train.class_weights",
    "train.label_smoothing",
    "train.early_stopping",
)


def _strategy(value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and "name" not in value:
        raise ValueError("give a strategy by name, or as {name: NAME, SETTING: VALUE}")
    return strategy_config(get_strategy(value))


class Recipe(Record):
    """One fine-tuning run."""

    name: str
    """Its name, and that of the export."""
    description: str = ""
    """One line for people."""
    task: Literal[
        "embedding",
        "question_answering",
        "text_classification",
        "token_classification",
        "causal_lm",
    ] = "text_classification"
    """The kind of head."""
    preset: str = "smollm2-135m-instruct"
    """The checkpoint."""
    strategy: Annotated[dict[str, Any], BeforeValidator(_strategy)] = {"name": "full"}
    """Which weights learn: a name of `training.fine_tuning.STRATEGIES`, or {name: NAME, SETTING:
    VALUE}."""
    labels: list[str] | None = None
    """All labels that there are; by default those of the training data, sorted."""
    data: RecipeData = RecipeData()
    """Texts and labels."""
    clean: list[Annotated[dict[str, Any], BeforeValidator(step_config)]] | None = None
    """Steps of `text.cleaning` in their order, each a name or {name: NAME, SETTING: VALUE}; by
    default what the preset's model learned from, [] for text as it is."""
    model: RecipeModel = RecipeModel()
    """Backbone and head."""
    answers: RecipeAnswers = RecipeAnswers()
    """Question answering."""
    generation: RecipeGeneration = RecipeGeneration()
    """Generated responses."""
    train: RecipeTrain = RecipeTrain()
    """Optimization."""
    measure_before: bool = False
    """Whether to measure the untrained model too, under `before`."""
    export: bool = False
    """Whether to write a SavedModel at the end."""

    @model_validator(mode="after")
    def _can_train_so(self):
        check_jit(self.train)
        for setting in self._changed(_TASKS_WITH):
            if self.task not in (tasks := _TASKS_WITH[setting]):
                raise ValueError(
                    f"{setting} is for task: {' or '.join(tasks)}; a {self.task} recipe does not "
                    "use it, so leave it out"
                )
        if self.train.gradient_accumulation_steps > 1 and self.task == "embedding":
            raise ValueError(
                "train.gradient_accumulation_steps: an embedding compares all texts of a batch "
                "with each other; take smaller batches"
            )
        is_probe = self.strategy["name"] == "linear_probe"
        if is_probe and (changed := self._changed(_NOT_FOR_PROBES)):
            raise ValueError(
                "linear_probe takes no steps and keeps no activations; leave "
                f"{', '.join(changed)} out"
            )
        return self

    def _changed(self, settings: Iterable[str]) -> list[str]:
        """Gives those of the settings, by dotted names, that are not at their defaults."""
        default = Recipe.model_construct(name=self.name)
        return [name for name in settings if attrgetter(name)(self) != attrgetter(name)(default)]

    @field_validator("labels", mode="before")
    @classmethod
    def _are_text(cls, labels):
        if isinstance(labels, list) and any(isinstance(label, bool) for label in labels):
            raise ValueError("YAML reads yes, no, on, off as true and false; put labels in quotes")
        return labels


def recipe_names() -> list[str]:
    """Gives the names of the recipes that come with the package."""
    return shipped_names(RECIPES)


def load_recipe(recipe: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """Gives a recipe by the name of a shipped one, or from a YAML file.

    Args:
        recipe: a name of `recipe_names()`, or a file ending in .yaml.
        overrides: `path.to.field=value` each; the value is read as YAML.

    Raises:
        InputError: there is no such recipe, or a field is wrong; the message names its line.
    """

    def change(content: Any) -> list[str]:
        return set_fields(content, recipe, overrides)

    return load_record(Recipe, recipe, kind="recipe", folder=RECIPES, change=change)


def set_fields(content: Any, recipe: str | Path, overrides: Sequence[str]) -> list[str]:
    """Changes what was read of a recipe and gives the dotted names of the changed fields.

    Raises:
        InputError: what was read is no mapping, or an override is not `path.to.field=value`.
    """
    if not isinstance(content, dict):
        raise InputError(f"The recipe {recipe} must hold the fields of a recipe, such as `name:`.")
    return [_set_field(content, override) for override in overrides]


def _set_field(content: dict[str, Any], override: str) -> str:
    """Changes one field and gives its dotted name."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"--set takes FIELD=VALUE such as train.epochs=1; received {override!r}.")
    *parents, last = path.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise InputError(f"--set {override}: '{parent}' is a value, not a section.")
    try:
        content[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        content[last] = text  # plain text that YAML takes for a broken structure, such as a path
    return path
