"""Reads the parts of a recipe row by row, so that one bad row does not hide the others.

Training reads what `TaskKind.load` gives, and that stops at the first bad row. Here each row is
handed to the same functions by itself; where both succeed they give the same examples (a test holds
them together).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_keras.checks.records import Data, Example, Part, Refused
from llama_keras.data import dialogues, files, pair_files, sources, squad, tagged
from llama_keras.data.parts import SourcePart, split_source
from llama_keras.errors import InputError
from llama_keras.kinds import get_kind
from llama_keras.runner import _load_part
from llama_keras.tasks.entity_data import join_words
from llama_keras.tasks.recipe import Recipe
from llama_keras.tasks.tagging import spans_of_tags

# A row with its place, or why there is none.
Rows = Iterator[tuple[str, Any] | Refused]
Examples = Iterator[Example | Refused]


def read_data(recipe: Recipe) -> Data:
    """Gives all parts that a recipe names.

    Raises:
        InputError: it names no training data.
    """
    named = {name: getattr(recipe.data, name) for name in ("train", "validation", "test")}
    if named["train"] is None:
        raise InputError(
            f"Recipe {recipe.name} has no training data; add --set data.train=FILE (or "
            "tfds:NAME/SPLIT)."
        )
    parts = {name: _read_part(recipe, name, source) for name, source in named.items() if source}
    return Data(recipe, parts)


def _read_part(recipe: Recipe, name: str, source: str) -> Part:
    loaded, error, found = None, "", []
    try:
        loaded = _load_part(recipe, get_kind(recipe.task), source)
    except InputError as refusal:
        error = " ".join(str(refusal).split())
    place, split = source, None
    if source.startswith("tfds:"):
        place, _, split = source.rpartition("/")
    try:
        for item in READERS[recipe.task](recipe, place, split):
            found.append(item)
    except InputError:  # the whole file; `error` tells why
        found = []
    examples = [replace(item, part=name) for item in found if isinstance(item, Example)]
    refused = [item for item in found if isinstance(item, Refused)]
    if error and not refused:
        refused = [Refused(source, error)]
    return Part(name, source, examples[: recipe.data.limit], refused, loaded)


def _labelled(recipe: Recipe, source: str, split: str | None) -> Examples:
    """As `data.load_classification`, for labels and for responses."""
    data, is_response = recipe.data, recipe.task == "causal_lm"
    columns = [data.text_column] if isinstance(data.text_column, str) else data.text_column
    is_pair = recipe.model.pairs and not is_response
    has_list = recipe.model.multi_label and not is_response
    to_label = sources._label_list if has_list else sources._label

    def make(row, place):
        texts = tuple(sources._text(row, column, place) for column in columns)
        texts = texts if is_pair else ("\n".join(texts),)
        if data.names_column is not None and not is_response:
            name = sources._name(row, data.label_column, data.names_column, place)
            row = {**row, data.label_column: name}
        target: Any = to_label(row, data.label_column, place)
        if is_response:
            return Example("", place, (*texts, target), asked=1)
        labels = tuple(target) if has_list else (target,)
        return Example("", place, texts, labels, target)

    source, part = split_source(source)
    rows = _any_rows(source, split, [*columns, data.label_column], data.data_dir)
    return _taken(part, _converted(rows, make))


def _prompts(recipe: Recipe, source: str, split: str | None) -> Examples:
    """Prompts with responses, or conversations as `data.dialogues.load_dialogues`."""
    column = recipe.data.turns_column
    if column is None:
        return _labelled(recipe, source, split)

    def make(row, place):
        messages = dialogues.conversation_of(row, column, place)
        texts = tuple(message["content"] for message in messages)
        return Example("", place, texts, target=messages)

    source, part = split_source(source)
    return _taken(part, _converted(_file_rows(files.find_file(source, split)), make))


def _any_rows(source: str, split: str | None, columns, data_dir) -> Rows:
    scheme, _, rest = source.partition(":")
    if scheme == "tfds":
        from llama_keras.data.tfds_rows import tfds_rows

        return _until_refused(tfds_rows(rest, split, columns, files.tfds_folders(data_dir)))
    return _file_rows(files.find_file(source, split))


def _pairs(recipe: Recipe, source: str, split: str | None) -> Examples:
    """As `data.pair_files.load_pairs`."""

    def make(row, place):
        return Example("", place, pair_files._row(row, place))

    source, part = split_source(source)
    return _taken(part, _converted(_file_rows(files.find_file(source, split)), make))


def _questions(recipe: Recipe, source: str, split: str | None) -> Examples:
    """As `data.load_question_answering`."""
    seen: dict[str, str] = {}

    def make(row, place):
        found = squad._checked({"id": place, **row}, place)
        if (before := seen.setdefault(found["id"], place)) != place:
            raise InputError(f"{place}: the id {found['id']!r} is that of {before} too.")
        return Example("", place, (found["question"], found["context"]), target=found["answers"])

    source, part = split_source(source)
    if not source.startswith("tfds:"):
        file = files.find_file(source, split, suffixes=squad.SUFFIXES)
        if files.suffix_of(file, known=squad.SUFFIXES) == ".jsonl":
            return _taken(part, _converted(_file_rows(file), make))
    rows = _until_refused(squad._rows(source, split, recipe.data.data_dir))
    return _taken(part, _converted(rows, make))


def _sentences(recipe: Recipe, source: str, split: str | None) -> Examples:
    """As `data.tagged.load_tagged`."""
    data = recipe.data
    spans_column = "spans" if data.label_column == "label" else data.label_column
    text_column: Any = data.text_column

    def make(row, place):
        if isinstance(row, dict):
            row = tagged._record(row, text_column, spans_column, place)[:2]
        words, target = row
        if isinstance(words, str):
            types = (str(span.get("label", "")) for span in target if isinstance(span, dict))
            return Example("", place, (words,), tuple(types), target)
        try:
            text, _ = join_words(words, separator=data.word_separator)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        types = _entity_types(target, data.tag_scheme)
        return Example("", place, (text,), types, target, words=words)

    source, part = split_source(source)
    if source.startswith("tfds:"):
        rows = _any_rows(source, split, [text_column, spans_column], data.data_dir)
        return _taken(part, _converted(rows, make))
    file = files.find_file(source, split, suffixes=tagged.SUFFIXES)
    is_lines = files.suffix_of(file, known=tagged.SUFFIXES) == ".jsonl"
    return _taken(part, _converted(_file_rows(file) if is_lines else _conll_rows(file), make))


def _entity_types(tags: list, scheme: str) -> tuple[str, ...]:
    try:
        return tuple(span.label for span in spans_of_tags(tags, scheme=scheme))
    except InputError:  # told by the check of tags
        return ()


READERS: dict[str, Callable[[Recipe, str, str | None], Examples]] = {
    "causal_lm": _prompts,
    "embedding": _pairs,
    "question_answering": _questions,
    "text_classification": _labelled,
    "token_classification": _sentences,
}


def _taken(part: SourcePart, found: Examples) -> Examples:
    """Gives the examples of a part of a source, and all that is refused."""
    rows = list(found)
    taken = part.indices(len(rows))
    return (row for n, row in enumerate(rows) if n in taken or isinstance(row, Refused))


def _converted(rows: Rows, make: Callable[[Any, str], Example]) -> Examples:
    for row in rows:
        if isinstance(row, Refused):
            yield row
            continue
        place, values = row
        try:
            yield make(values, place)
        except InputError as error:
            yield Refused(place, str(error).removeprefix(f"{place}: "))


def _until_refused(rows: Iterable[tuple[str, Any]]) -> Rows:
    """Gives rows until their reader stops at one."""
    place, rows = "the beginning", iter(rows)
    while True:
        try:
            place, row = next(rows)
        except StopIteration:
            return
        except InputError as error:
            yield Refused(f"after {place}", f"{error} What follows was not read.")
            return
        yield place, row


def _file_rows(file: Path) -> Rows:
    if files.suffix_of(file, known=files.READERS) != ".jsonl":
        yield from _until_refused(files.file_rows(file))
        return
    for number, line in enumerate(files.read_text(file).split("\n"), start=1):
        try:
            for _, row in files.jsonl_rows(line, file):
                yield f"line {number}", row
        except InputError as error:
            yield Refused(f"line {number}", str(error).removeprefix(f"{file}, line 1 "))


def _conll_rows(file: Path) -> Rows:
    """Gives the sentences of a file; one with a bad line is refused, and the next one read."""
    lines = files.read_text(file).split("\n")
    start = 0
    for number, line in enumerate([*lines, ""]):
        if line.strip(" \t\r"):
            continue
        block, first = lines[start:number], start + 1
        start = number + 1
        try:
            for words, tags, place in tagged._conll_sentences("\n".join(block), file):
                yield f"line {first - 1 + int(place.split()[1])}", (words, tags)
        except InputError:
            yield _bad_line(block, first, file)


def _bad_line(block: list[str], first: int, file: Path) -> Refused:
    for number, line in enumerate(block, start=first):
        try:
            list(tagged._conll_sentences(line, file))
        except InputError as error:
            return Refused(f"line {number}", str(error).removeprefix(f"{file}, line 1 "))
    return Refused(f"line {first}", "begins a sentence whose lines differ in their columns.")


def same_answer(example: Example) -> str:
    """Gives a string that is equal for examples to which the same is to be learnt."""
    target = sorted(example.labels) if example.words is None and example.labels else example.target
    return json.dumps(target, sort_keys=True, ensure_ascii=False, default=str)
