"""Reads questions, contexts and answers: SQuAD JSON (v1.1, v2.0), JSONL, TensorFlow Datasets."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_keras.data.files import find_file, jsonl_rows, read_text, suffix_of, tfds_folders
from llama_keras.data.parts import split_source
from llama_keras.errors import InputError

SUFFIXES = (".json", ".jsonl")
_COLUMNS = ("id", "question", "context", "answers")


@dataclass(frozen=True)
class QuestionAnsweringData:
    """Questions with their contexts and answers, in file order.

    Attributes:
        examples: for each question a dict of `id`, `question`, `context` and `answers`: a list of
            `{"text", "answer_start"}`, empty where the question has no answer. `answer_start`
            counts Unicode code points; -1 says that the place is not known.
        source: what was asked for, for messages and result files.
    """

    examples: list[dict[str, Any]]
    source: str

    def __len__(self) -> int:
        return len(self.examples)

    def head(self, count: int) -> "QuestionAnsweringData":
        """Gives the first `count` questions (all, when there are fewer)."""
        return QuestionAnsweringData(self.examples[:count], self.source)

    @property
    def unanswerable(self) -> int:
        """The number of questions without an answer."""
        return sum(not example["answers"] for example in self.examples)

    def fingerprint(self) -> str:
        """Gives the SHA-256 of all examples in order: equal data, equal fingerprint."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(json.dumps(example, ensure_ascii=False).encode("utf-8", "replace"))
        return digest.hexdigest()


def load_question_answering(
    source: str | Path, *, split: str | None = None, data_dir: str | Path | None = None
) -> QuestionAnsweringData:
    """Gives the questions of a data set.

    Args:
        source: a `.json` file as SQuAD has it, or a `.jsonl` file with an object of `question`,
            `context`, `answers` and perhaps `id` a line, each with `.gz` after it or not; a folder
            that holds such files, one a split; `tfds:NAME`; `package:FILE` or `shared:FILE`, and
            parts such as `x.json[::4]`, see `data.load_classification`.
        split: the split of a `tfds:` set or of a folder.
        data_dir: where `tfds:` sets are prepared.

    Raises:
        InputError: the source is missing, malformed or empty, or a question lacks its id, its
            context is empty, or an answer begins outside of it; the message names the place.
    """
    source, part = split_source(str(source))
    name = source if split is None else f"{source}/{split}"
    examples, seen = [], {}
    for place, row in _rows(source, split, data_dir):
        example = _checked(row, f"{name}, {place}")
        if example["id"] in seen:
            raise InputError(
                f"{name}, {place}: the id {example['id']!r} is that of {seen[example['id']]} too."
            )
        seen[example["id"]] = place
        examples.append(example)
    examples = part.of(examples)
    if not examples:
        raise InputError(f"{name} holds no questions; give a data set with at least one.")
    return QuestionAnsweringData(examples, f"{name}{part}")


def _rows(source: str, split: str | None, data_dir) -> Iterator[tuple[str, Mapping[str, Any]]]:
    scheme, _, rest = source.partition(":")
    if scheme == "tfds":
        from llama_keras.data.tfds_rows import tfds_rows

        yield from map(_from_tfds, tfds_rows(rest, split, _COLUMNS, tfds_folders(data_dir)))
        return
    file = find_file(source, split, suffixes=SUFFIXES)
    suffix, text = suffix_of(file, known=SUFFIXES), read_text(file)
    if suffix == ".jsonl":
        for place, row in jsonl_rows(text, file):
            yield place, {"id": place, **row}
        return
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}.") from None
    yield from _squad_rows(content, file)


def _from_tfds(row: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    place, values = row
    answers = values.get("answers")
    if isinstance(answers, Mapping):
        pairs = zip(answers["text"], answers["answer_start"], strict=True)
        found = [{"text": text.decode(), "answer_start": int(at)} for text, at in pairs]
        values = {**values, "answers": found}
    return place, values


def _squad_rows(content: Any, file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for a, article in enumerate(_list(content, "data", f"{file}")):
        place = f"article {a}"
        for p, paragraph in enumerate(_list(article, "paragraphs", f"{file}, {place}")):
            where = f"{place}, paragraph {p}"
            for q, question in enumerate(_list(paragraph, "qas", f"{file}, {where}")):
                if not isinstance(question, Mapping):
                    raise InputError(f"{file}, {where}, question {q} is no object: {question!r}.")
                yield f"{where}, question {q}", {**question, "context": paragraph.get("context")}


def _list(parent: Any, key: str, place: str) -> list[Any]:
    value = parent.get(key) if isinstance(parent, Mapping) else None
    if not isinstance(value, list):
        raise InputError(
            f"{place}: there is no list {key!r}; SQuAD files are "
            '{"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers"}]}]}]}.'
        )
    return value


def _checked(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    for key in ("id", "question", "context"):
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{place}: {key} is missing or empty; it is {value!r}.")
    context = row["context"]
    answers = [] if row.get("is_impossible") else row.get("answers")
    if not isinstance(answers, list):
        raise InputError(
            f"{place}: answers is not a list but {answers!r}; give an empty one to a question "
            "without an answer."
        )
    found = [_checked_answer(answer, context, place) for answer in answers]
    return {"id": row["id"], "question": row["question"], "context": context, "answers": found}


def _checked_answer(answer: Any, context: str, place: str) -> dict[str, Any]:
    text = answer.get("text") if isinstance(answer, Mapping) else None
    start = answer.get("answer_start") if isinstance(answer, Mapping) else None
    if not isinstance(text, str) or isinstance(start, bool) or not isinstance(start, int):
        raise InputError(
            f'{place}: an answer is {{"text": …, "answer_start": NUMBER}}; received {answer!r}.'
        )
    if not -1 <= start < len(context):
        raise InputError(
            f"{place}: answer_start={start} is outside of the context of {len(context)} "
            "characters; it counts Unicode code points, and -1 stands for an unknown place."
        )
    return {"text": text, "answer_start": start}
