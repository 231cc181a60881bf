"""Recipes with `task: question_answering`."""

from collections.abc import Mapping

from llama_keras.data.squad import QuestionAnsweringData, load_question_answering
from llama_keras.errors import InputError
from llama_keras.kinds.kind import Measured, TaskKind, model_arguments, no_labels
from llama_keras.tasks.recipe import Recipe


def _load(recipe: Recipe, source: str, split: str | None) -> QuestionAnsweringData:
    return load_question_answering(source, split=split, data_dir=recipe.data.data_dir)


def _labels(recipe: Recipe, parts: Mapping[str, QuestionAnsweringData]) -> None:
    no_labels(recipe, parts)
    for name, part in parts.items():
        if part.unanswerable and not recipe.answers.null_answers:
            raise InputError(
                f"The {name} data ({part.source}) has {part.unanswerable} questions without an "
                "answer; set answers.null_answers=true, or leave them out."
            )


def _build(recipe: Recipe, labels, strategy):
    from llama_keras.tasks import QuestionAnswerer

    return QuestionAnswerer.from_preset(
        recipe.preset,
        dropout=recipe.model.dropout,
        **recipe.answers.model_dump(),
        **model_arguments(recipe, strategy),
    )


def _measure(model, part: QuestionAnsweringData) -> Measured:
    from llama_keras.eval.qa_metrics import compute_answer_metrics

    found = [answer["text"] for answer in model.predict(part.examples, verbose=0)]
    expected = [[answer["text"] for answer in row["answers"]] for row in part.examples]
    return Measured(compute_answer_metrics(expected, found, rule=model.rule))


KIND = TaskKind(
    noun="questions",
    load=_load,
    labels=_labels,
    build=_build,
    examples=lambda part: (part.examples, None),
    measure=_measure,
)
