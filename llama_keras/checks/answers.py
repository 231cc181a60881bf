"""Checks of the answers to questions: where they are, and how long."""

from collections import Counter

import numpy as np

from llama_keras.checks.lengths import AT_MOST, evenly, spread
from llama_keras.checks.records import (
    Data,
    Example,
    Finding,
    first_shown,
    level_of,
    quoted,
    share,
    worst,
)
from llama_keras.errors import InputError
from llama_keras.tasks.answer_labels import locate, token_span
from llama_keras.tasks.question_data import Answer


def check_places(data: Data) -> Finding:
    """Finds answers that are not at their offset, or nowhere in the context."""
    found: list[tuple[str, Example, Answer]] = []
    total, left_out = 0, 0
    for example in data.examples:
        kinds = [(_kind(answer, example.texts[1]), answer) for answer in _answers(example)]
        total += len(kinds)
        left_out += bool(kinds) and all(kind in _GONE for kind, _ in kinds)
        found += [(kind, example, answer) for kind, answer in kinds if kind]
    counts = Counter(kind for kind, *_ in found)
    told = ", ".join(f"{counts[kind]:,} {kind}" for kind in _KINDS if counts[kind])
    asked = sum(bool(example.target) for example in data.examples)
    worst_first = sorted(found, key=lambda row: _KINDS.index(row[0]))
    return Finding(
        worst((level_of(len(found), total), level_of(left_out, asked))),
        f"of {total:,} answers {told or 'all are at their offset'}"
        + (
            f"; {share(left_out, asked)} questions have no answer in their context" * bool(left_out)
        ),
        len(found),
        first_shown((x.where, f"{quoted(a.text)} at {a.start}") for _, x, a in worst_first),
        {**counts, "questions without a found answer": left_out},
    )


_KINDS = ("empty", "not in the context", "elsewhere in the context")
_GONE = ("empty", "not in the context")


def _answers(example: Example) -> list[Answer]:
    return [Answer(answer["text"], answer["answer_start"]) for answer in example.target]


def _kind(answer: Answer, context: str) -> str:
    if not answer.text.strip():
        return "empty"
    at = locate(answer, context)
    if at is None:
        return "not in the context"
    return "" if at == answer.start else "elsewhere in the context"


def check_answer_lengths(data: Data) -> Finding:
    """Finds answers with more tokens than are ever looked for."""
    try:
        tokenizer = data.tokenizer
    except (InputError, ImportError) as error:
        return Finding("warn", f"not measured: {' '.join(str(error).split())}")
    contexts = list(dict.fromkeys(x.texts[1] for x in data.examples if x.target))
    chosen = evenly(contexts)
    encoded = tokenizer.encode(data.clean(chosen), offsets=True, add_bos=False, add_eos=False)
    offsets = {
        text: np.array(found.offsets, "int64").reshape(-1, 2)
        for text, found in zip(chosen, encoded, strict=True)
    }
    limit, lengths, long = data.recipe.answers.max_answer_tokens, [], []
    for example in data.examples:
        context = example.texts[1]
        for answer in dict.fromkeys(_answers(example)) if context in offsets else ():
            span = token_span([answer], context, offsets[context])
            if span is None:
                continue  # told by `check_places`
            lengths.append(span.last - span.first + 1)
            if lengths[-1] > limit:
                long.append((example.where, f"{quoted(answer.text)} ({lengths[-1]} tokens)"))
    sampled = f", in {AT_MOST:,} of {len(contexts):,} contexts" * (len(chosen) < len(contexts))
    text, details = spread(lengths)
    return Finding(
        level_of(len(long), len(lengths)),
        f"{text} tokens; {share(len(long), len(lengths))} are longer than "
        f"max_answer_tokens={limit}{sampled}",
        len(long),
        first_shown(long),
        details,
    )
