"""Reads the plain text of pretraining recipes line by line, and checks it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llama_keras.checks.lengths import AT_MOST, count_tokens, evenly, spread
from llama_keras.checks.records import (
    Data,
    Example,
    Finding,
    Part,
    Refused,
    first_shown,
    level_of,
    share,
)
from llama_keras.checks.texts import has_ink
from llama_keras.data.documents import document_lines, is_text_file
from llama_keras.errors import InputError
from llama_keras.tasks.pretraining_recipe import PretrainingData, PretrainingRecipe

# Where cutting loses this share of the tokens, rows are too short for the documents.
_FAIL = 0.5


@dataclass(frozen=True)
class Corpus(Data):
    """All documents that a pretraining recipe names."""

    recipe: PretrainingRecipe
    blank: dict[str, int]
    """Of each part, how many blank lines were left out."""

    @cached_property
    def tokenizer(self):
        """The `text.Tokenizer` of the model that learns.

        Raises:
            InputError: there is no such preset here.
        """
        from llama_keras.pretrainer import build_tokenizer

        return build_tokenizer(self.recipe)


def read_documents(recipe: PretrainingRecipe) -> Corpus:
    """Gives the documents that a recipe names, as `data.load_documents` reads them.

    Raises:
        InputError: it names no training data.
    """
    if not recipe.data.train:
        raise InputError(
            f"Recipe {recipe.name} has no training data; add --set data.train=FILE.txt, one "
            "document a line."
        )
    named = {name: getattr(recipe.data, name) for name in ("train", "validation")}
    read = {name: _read_part(name, some, recipe.data) for name, some in named.items() if some}
    parts = {name: part for name, (part, _) in read.items()}
    return Corpus(recipe, parts, {name: blank for name, (_, blank) in read.items()})


def _read_part(name: str, sources: list[str], data: PretrainingData) -> tuple[Part, int]:
    columns = {"text_column": data.text_column, "label_column": data.label_column}
    examples: list[Example] = []
    refused, blank = [], 0
    for source in sources:
        try:
            lines = document_lines(source, **columns)
        except InputError as error:
            refused.append(Refused(source, " ".join(str(error).split())))
            continue
        where = f"{source}, " * (len(sources) > 1) + ("line" if is_text_file(source) else "text")
        found = [
            Example(name, f"{where} {number}", (line.strip(),))
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
        blank += len(lines) - len(found)
        examples += found[: data.limit]
    if not examples and not refused:
        refused = [Refused(", ".join(sources), "holds no text.")]
    return Part(name, ", ".join(sources), examples, refused), blank


def check_documents(data: Corpus) -> Finding:
    """Counts the documents, their characters and the blank lines between them."""
    details = {
        name: {
            "documents": len(part.examples),
            "characters": sum(len(x.texts[0]) for x in part.examples),
            "blank lines": data.blank[name],
        }
        for name, part in data.parts.items()
    }
    told = (
        f"{name} {counts['documents']:,} documents of {counts['characters']:,} characters"
        + f", {counts['blank lines']:,} blank lines left out" * bool(counts["blank lines"])
        for name, counts in details.items()
    )
    empty = [name for name, part in data.parts.items() if not part.examples]
    level = "fail" if empty else "good"
    return Finding(level, "; ".join(told), len(data.examples), (), details)


def check_empty_documents(data: Corpus) -> Finding:
    """Finds documents in which there is nothing to see, or of which cleaning leaves nothing."""
    texts, note = [x.texts[0] for x in data.examples], ""
    try:
        texts, note = data.clean(texts), " once they are cleaned" * bool(data.cleaning)
    except (InputError, ImportError):  # the preset is missing; told by the check of lengths
        pass
    found = [x for x, text in zip(data.examples, texts, strict=True) if not has_ink(text)]
    total = len(data.examples)
    message = f"{share(len(found), total)} are empty{note}"
    shown = first_shown(x.shown() for x in found)
    return Finding(level_of(len(found), total), message, len(found), shown)


def check_document_lengths(data: Corpus) -> Finding:
    """Measures documents in tokens, against the rows that the model learns from."""
    chosen = evenly(data.examples)
    try:  # the preset may be missing here
        tokens, limit = _measured(data, chosen)
    except (InputError, ImportError) as error:
        return Finding("warn", f"not measured: {' '.join(str(error).split())}")
    long = np.flatnonzero(tokens > limit)
    lost, total = int(np.maximum(tokens - limit, 0).sum()), int(tokens.sum())
    rows = int(np.ceil(tokens / limit).sum())
    text, details = spread(tokens)
    cuts = data.recipe.long_texts == "cut"
    counted = f"{lost:,} of the tokens" + f" ({100 * lost / max(total, 1):.2g} %)" * bool(lost)
    effect = (
        f"long_texts=cut loses {counted}, split would make {rows:,} rows"
        if cuts
        else f"long_texts=split makes {rows:,} rows, cut would lose {counted}"
    )
    sampled = f"; measured on {AT_MOST:,} of {len(data.examples):,}, evenly taken"
    longest = long[np.argsort(-tokens[long], kind="stable")]
    worst = "fail" if lost >= _FAIL * total else "warn"
    return Finding(
        worst if cuts and len(long) else "good",
        f"{text} tokens, {total:,} in all; {share(len(long), len(chosen))} are longer than a row "
        f"({limit}): {effect}" + sampled * (len(chosen) < len(data.examples)),
        len(long) if cuts else 0,
        first_shown((chosen[at].where, f"{tokens[at]:,} tokens") for at in longest),
        {
            **details,
            "tokens": total,
            "row": limit,
            "long": len(long),
            "rows if split": rows,
            "tokens lost if cut": lost,
            "measured": len(chosen),
        },
    )


def _measured(data: Corpus, chosen: list[Example]) -> tuple[np.ndarray, int]:
    """Gives the tokens of documents int64 `(N,)`, and those that a row takes of one.

    As `tasks.Pretraining.token_rows`.
    """
    from llama_keras.models.config import LlamaConfig
    from llama_keras.objectives import get_objective
    from llama_keras.tasks.pretraining import room_of, text_rules
    from llama_keras.weights.presets import backbone_config, resolve

    recipe, tokenizer = data.recipe, data.tokenizer
    layout = get_objective(recipe.objective).layout
    own = {} if recipe.preset is None else backbone_config(resolve(recipe.preset))
    context = {**own, **recipe.backbone}.get("max_sequence_length", LlamaConfig.max_sequence_length)
    limit = room_of(layout, min(recipe.max_sequence_length, context))
    texts = data.clean([x.texts[0] for x in chosen])
    tokens = count_tokens(tokenizer, texts, **text_rules(layout, tokenizer))
    return np.where([not text for text in texts], 0, tokens), limit
