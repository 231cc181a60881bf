"""Recipes with `task: embedding`."""

from llama_keras.data.pair_files import PairData, load_pairs
from llama_keras.kinds.kind import Measured, TaskKind, model_arguments, no_labels
from llama_keras.tasks.recipe import Recipe


def _load(recipe: Recipe, source: str, split: str | None) -> PairData:
    return load_pairs(source, split=split)


def _build(recipe: Recipe, labels, strategy):
    from llama_keras.tasks import Embedder

    return Embedder.from_preset(
        recipe.preset,
        pooling=recipe.model.pooling,
        **model_arguments(recipe, strategy),
    )


def _measure(model, part: PairData) -> Measured:
    from llama_keras.eval.retrieval import retrieval_metrics

    # Every anchor searches all the other texts of the part; some have several positives.
    documents = list(dict.fromkeys(text for row in part.rows for text in row[1:]))
    number = {text: index for index, text in enumerate(documents)}
    relevant: dict[str, set[int]] = {}
    for anchor, positive, *_ in part.rows:
        relevant.setdefault(anchor, set()).add(number[positive])
    similarity = model.similarity(list(relevant), documents)
    return Measured(retrieval_metrics(similarity, list(relevant.values())))


KIND = TaskKind(
    noun="pairs",
    load=_load,
    labels=no_labels,
    build=_build,
    examples=lambda part: (part.rows, None),
    measure=_measure,
)
