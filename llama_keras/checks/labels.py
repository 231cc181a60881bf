"""Checks of how many examples there are, and of their labels."""

from collections import Counter

from llama_keras.checks.records import Data, Example, Finding, Part, first_shown, fold
from llama_keras.errors import InputError
from llama_keras.kinds import get_kind

_MOST_NAMED = 12
# Of the most frequent to the rarest label, and examples of the rarest.
_IMBALANCE = 10
_FEW = 10


def check_counts(data: Data) -> Finding:
    """Counts the examples of each part, by label where there are labels."""
    details = {name: _counts(part, data) for name, part in data.parts.items()}
    told = "; ".join(f"{name} {_told(counts)}" for name, counts in details.items())
    empty = [name for name, part in data.parts.items() if not part.examples]
    return Finding("fail" if empty else "good", told, len(data.examples), (), details)


def _counts(part: Part, data: Data) -> dict:
    counts: dict = {"examples": len(part.examples)}
    if any(example.labels for example in part.examples):
        counts["labels"] = dict(_label_counts(part).most_common())
    if data.recipe.task == "question_answering":
        counts["contexts"] = len({example.texts[1] for example in part.examples})
        counts["without an answer"] = sum(not example.target for example in part.examples)
    return counts


def _label_counts(part: Part) -> Counter[str]:
    return Counter(label for example in part.examples for label in example.labels)


def _told(counts: dict) -> str:
    labels = counts.get("labels", {})
    parts = [f"{label} {count:,}" for label, count in list(labels.items())[:_MOST_NAMED]]
    if len(labels) > _MOST_NAMED:
        parts.append(f"{len(labels) - _MOST_NAMED} more labels")
    parts += [
        f"{counts[key]:,} {key}" for key in ("contexts", "without an answer") if counts.get(key)
    ]
    return f"{counts['examples']:,}" + (f" ({', '.join(parts)})" if parts else "")


def check_recipe_fits(data: Data) -> Finding | None:
    """Asks the task itself whether the recipe's labels and settings go with the data."""
    parts = {name: part.loaded for name, part in data.parts.items()}
    if any(part is None for part in parts.values()):
        return None
    try:
        get_kind(data.recipe.task).labels(data.recipe, parts)
    except InputError as error:
        return Finding("fail", " ".join(str(error).split()), 1)
    return Finding("good", f"as {data.recipe.task} wants it")


def check_labels(data: Data) -> Finding | None:
    """Finds labels that cannot be learnt, that are not the recipe's, and that look alike."""
    learnt = set(_label_counts(data.train))
    if not learnt:
        return None
    wanted = set(data.recipe.labels or learnt)
    unseen = [x for part in data.held_out for x in part.examples if set(x.labels) - learnt]
    foreign = [x for x in data.examples if set(x.labels) - wanted - {""}]
    messages = []
    if unseen:
        names = sorted({label for x in unseen for label in x.labels} - learnt)
        messages.append(f"{len(unseen):,} held-out examples have {names}, which are not in train")
    if foreign and data.recipe.labels:
        names = sorted({label for x in foreign for label in x.labels} - wanted)
        messages.append(f"{len(foreign):,} examples have {names}, which the recipe does not name")
    idle = sorted(wanted - learnt)
    if idle:
        messages.append(f"train has no example of {idle}")
    if alike := _look_alike(learnt | wanted):
        messages.append(f"{' and '.join(map(repr, alike))} differ in case or white space alone")
    level = "fail" if unseen or (foreign and data.recipe.labels) else "warn" if messages else "good"
    shown = {id(x): x for x in (*unseen, *(foreign if data.recipe.labels else ()))}
    return Finding(
        level,
        "; ".join(messages) or f"all {len(learnt)} are learnt, and no others asked for",
        len(shown) + len(idle) + len(alike),
        first_shown(_labelled(x) for x in shown.values()),
    )


def _labelled(example: Example) -> tuple[str, str]:
    where, text = example.shown()
    return where, f"{', '.join(example.labels)}: {text}"


def _look_alike(labels: set[str]) -> list[str]:
    by_fold: dict[str, list[str]] = {}
    for label in sorted(labels):
        by_fold.setdefault(fold(label).casefold(), []).append(label)
    return next((names for names in by_fold.values() if len(names) > 1), [])


def check_balance(data: Data) -> Finding | None:
    """Compares the most frequent label of the training part with the rarest."""
    counts = _label_counts(data.train).most_common()
    if len(counts) < 2:
        return None
    (most, many), (least, few) = counts[0], counts[-1]
    is_uneven = many >= _IMBALANCE * few
    advice = ""
    if is_uneven and data.recipe.task == "text_classification":
        advice = "; train.class_weights=balanced makes rare ones count"
    return Finding(
        "warn" if is_uneven or few < _FEW else "good",
        f"{most} is {many / few:.1f} times as frequent as {least} ({many:,} to {few:,}){advice}",
        int(is_uneven) + sum(count < _FEW for _, count in counts),
        details={"ratio": many / few, "most": most, "least": least},
    )
