"""Recipes with `task: token_classification`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llama_keras.data.tagged import TaggedData, load_tagged
from llama_keras.errors import InputError
from llama_keras.kinds.kind import Measured, TaskKind, check_labels, model_arguments
from llama_keras.tasks.recipe import Recipe, RecipeData

if TYPE_CHECKING:
    from llama_keras.eval.suite import SuiteData


def load_sentences(fields: "RecipeData | SuiteData", source: str, split: str | None) -> TaggedData:
    """Gives the sentences that the `data` of a recipe or a suite names, tags in IOB2 or IOBES.

    Raises:
        InputError: the source is missing or malformed; the message names the line.
    """
    from llama_keras.tasks.tagging import convert_tags

    column, text_column, scheme = fields.label_column, fields.text_column, fields.tag_scheme
    if not isinstance(text_column, str):
        raise InputError("Token classification reads one text a row; data.text_column names it.")
    data = load_tagged(
        source,
        split=split,
        text_column=text_column,
        # The default name of recipes and suites is for one label a text.
        spans_column="spans" if column == "label" else column,
        data_dir=fields.data_dir,
    )
    for number, (words, tags) in enumerate(zip(data.inputs, data.targets, strict=True)):
        if isinstance(words, list):
            try:
                target = "IOB2" if scheme == "IOB1" else scheme
                data.targets[number] = convert_tags(tags, source=scheme, target=target)
            except InputError as error:
                raise InputError(f"{data.source}, {data.places[number]}: {error}") from None
    return data


def _types(data: TaggedData) -> set[str]:
    from llama_keras.tasks.tagging import split_tag

    return {
        split_tag(item)[1] if isinstance(item, str) else str(item.get("label", ""))
        for row in data.targets
        for item in row
    } - {""}


def _labels(recipe: Recipe, parts: Mapping[str, TaggedData]) -> list[str]:
    labels = recipe.labels or sorted(_types(parts["train"]))
    check_labels(labels, parts, _types, "entities of the type")
    return labels


def _build(recipe: Recipe, labels, strategy):
    from llama_keras.tasks import TokenClassifier

    return TokenClassifier.from_preset(
        recipe.preset,
        labels=labels,
        scheme=recipe.model.tag_scheme,
        head=recipe.model.tag_head,
        word_separator=recipe.data.word_separator,
        dropout=recipe.model.dropout,
        **model_arguments(recipe, strategy),
    )


def _measure(model, part: TaggedData) -> Measured:
    from llama_keras.eval.entity_metrics import entity_metrics

    texts, expected = model.texts_and_spans(part.inputs, part.targets)
    answers = model.predict(texts, verbose=0)
    found = [[(e["start"], e["end"], e["label"]) for e in row] for row in answers]
    return Measured(entity_metrics(expected, found))


KIND = TaskKind(
    noun="sentences",
    load=lambda recipe, source, split: load_sentences(recipe.data, source, split),
    labels=_labels,
    build=_build,
    examples=lambda part: (part.inputs, part.targets),
    measure=_measure,
)
