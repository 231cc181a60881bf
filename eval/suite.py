"""Suites: YAML files that name the data, the prompts and the metrics of an evaluation."""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from llama_keras.records import Record, load_record, shipped_names

SUITES = Path(__file__).parent / "suites"
# The keys of kinds.KINDS, repeated so that reading a suite loads nothing else.
TaskName = Literal[
    "text_classification",
    "token_classification",
    "question_answering",
    "multiple_choice",
    "cloze",
    "perplexity",
    "generation",
    "retrieval",
]


def _no_repeats(names: list) -> list:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"repeated: {repeated}")
    return names


def _patterns(found: dict[str, str]) -> dict[str, str]:
    for pattern, replacement in found.items():
        try:
            re.compile(pattern).sub(replacement, "")
        except (re.error, IndexError) as error:
            raise ValueError(f"{pattern!r} → {replacement!r}: {error}") from None
    return found


class SuiteData(Record):
    """Where a suite's examples are, and what their columns are called."""

    source: str
    """A file, folder, `tfds:`, `package:` or `shared:` name."""
    split: str | None = None
    """The split of a folder or tfds set."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the file as it lies there; another file is refused."""
    text_column: str | list[str] = "text"
    """The column of the texts; of several the texts are joined by line breaks, or are a pair."""
    label_column: str = "label"
    """The column of the labels."""
    names_column: str | None = None
    """A JSON key with the list of names that a label counts in."""
    pairs: bool = False
    """For `text_classification`: each example is two texts."""
    multi_label: bool = False
    """For `text_classification`: a text has a list of labels."""
    tag_scheme: Literal["IOB1", "IOB2", "IOBES"] = "IOB2"
    """For `token_classification`: how the tags are written."""
    word_separator: str | None = None
    """For `token_classification`: stands between words; by default as the script has it."""
    data_dir: str | None = None
    """Where tfds sets are prepared."""
    documents: str | None = None
    """For `perplexity`: a regular expression; a line that it matches begins a new document."""
    detokenize: Literal["wikitext"] | None = None
    """For `perplexity`: score the text as people write it; words and bytes are counted before."""


class SuitePrompt(Record):
    """How an example of a prompted task becomes text; `{key}` stands for the example's value."""

    context: str = "{context}"
    """What comes before what is scored or generated."""
    target: str = "{target}"
    """The right continuation, of `cloze` and `generation` and in worked examples."""
    choices: str | list[str] = "choices"
    """The key of the list of choices, or the choices themselves, the same for all examples."""
    answer: str = "answer"
    """The key of the right choice: its number from 0, or the choice itself."""
    scored: str = "{choice}"
    """For `multiple_choice`: what is scored after the context; both may hold `{choice}`."""
    replace: Annotated[dict[str, str], AfterValidator(_patterns)] = {}
    """Regular expressions and what takes their place in the context, once that is filled in."""
    delimiter: str = " "
    """Stands between context and continuation."""
    separator: str = "\n\n"
    """Stands between worked examples."""
    until: list[str] = ["\n"]
    """For `generation`: texts that end an answer."""
    max_new_tokens: int = Field(default=64, ge=1)
    """For `generation`: of an answer."""
    chat: bool = False
    """For `generation`: the context is a user's message, put through the chat template."""


class SuiteShots(Record):
    """Worked examples that stand before each prompt."""

    count: int = Field(default=0, ge=0)
    """So many."""
    source: str | None = None
    """Where they are drawn from; by default the suite's own examples, never the one asked."""
    split: str | None = None
    """The split of a folder or tfds set."""
    seed: int = 0
    """Of the draw; the same example gets the same shots whatever the limit is."""


class Suite(Record):
    """What is measured and on what."""

    name: str
    """Its name in results."""
    description: str = ""
    """One line for people."""
    version: int = 1
    """Rises when its numbers no longer compare with earlier ones."""
    task: TaskName = "text_classification"
    """The kind of answers."""
    data: SuiteData
    """The examples."""
    labels: Annotated[list[str], AfterValidator(_no_repeats)] | None = None
    """All labels that there are; left out, those of the data."""
    prompt: SuitePrompt = SuitePrompt()
    """Of the prompted tasks: multiple choice, cloze, generation."""
    shots: SuiteShots = SuiteShots()
    """Worked examples."""
    rule: Literal["squad", "cmrc"] = "squad"
    """For `question_answering`: how answers are compared."""
    metrics: Annotated[list[str], AfterValidator(_no_repeats)] = []
    """What to compute; by default all that the task has."""


def suite_names() -> list[str]:
    """Returns the names of the suites that come with the package."""
    return shipped_names(SUITES)


def load_suite(suite: str | Path) -> Suite:
    """Returns a suite by the name of a shipped one, or from a YAML file.

    Raises:
        InputError: There is no such suite, or a field is wrong; the message names its line.
    """
    loaded = load_record(Suite, suite, kind="suite", folder=SUITES)
    from llama_keras.eval.kinds import check_metrics

    check_metrics(loaded)
    return loaded
