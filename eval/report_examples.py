"""The examples that a report shows: wrong ones first, with the answers marked in the text.

Texts come from data and models: all of them are escaped, none is markup.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from llama_keras.eval.compare import RIGHT
from llama_keras.eval.kinds.kind import Row
from llama_keras.eval.record import Sample
from llama_keras.eval.suite import Suite

SHOWN = 200  # examples of a suite
_CHARACTERS = 1200  # of a text
_BEFORE = 300  # characters kept before the first mark of a longer text

Span = tuple[int, int, str, str]
"""Start, end, class of the mark, and a word that stands behind it."""


@dataclass(frozen=True)
class Example:
    """One example as the page shows it.

    Attributes:
        number: in the suite.
        note: how sure or how wrong the answer is.
        parts: captions and what stands beside them, already escaped.
        expected: what the filter goes by; empty where there is nothing to choose.
        found: the same of the answer.
    """

    number: int
    note: str
    parts: list[tuple[str, Markup]]
    expected: str = ""
    found: str = ""


@dataclass(frozen=True)
class Examples:
    """The list of a suite.

    Attributes:
        title: what the list holds.
        total: how many there are; `shown` has at most `SHOWN` of them.
        of: how many could be there.
        order: which ones stand first.
        shown: in the order of the page.
        legend: whether marks in the texts need explaining.
    """

    title: str
    total: int
    of: int
    order: str
    shown: list[Example]
    legend: bool = False


def marked(text: str, spans: Iterable[Span]) -> Markup:
    """Gives a text with parts of it in `<mark>`; a part in several spans has all their classes.

    A long text is cut to what stands around the first mark.
    """
    spans = [span for span in spans if 0 <= span[0] < span[1] <= len(text)]
    first = min((start for start, *_ in spans), default=0)
    begin = max(first - _BEFORE, 0) if len(text) > _CHARACTERS else 0
    end = min(begin + _CHARACTERS, len(text))
    inner = {edge for span in spans for edge in span[:2] if begin < edge < end}
    edges = sorted({begin, end, *inner})
    parts = [Markup("… ") if begin else Markup("")]
    for left, right in zip(edges, edges[1:], strict=False):
        over = [span for span in spans if span[0] <= left and right <= span[1]]
        if not over:
            parts.append(Markup("{}").format(text[left:right]))
            continue
        classes = " ".join(sorted({span[2] for span in over}))
        words = " ".join(span[3] for span in over if span[1] == right and span[3])
        tail = Markup("<small>{}</small>").format(words) if words else ""
        parts.append(Markup('<mark class="{}">{}{}</mark>').format(classes, text[left:right], tail))
    if end < len(text):
        parts.append(Markup(" …"))
    return Markup("").join(parts)


def examples_of(suite: Suite, samples: Sequence[Sample], rows: Sequence[Row]) -> Examples:
    """Gives the examples that are wrong, the most telling first; without right and wrong, all."""
    if suite.task == "retrieval":
        return _queries(rows)
    key, view = RIGHT.get(suite.task), _VIEWS[suite.task]
    pairs = [pair for pair in zip(samples, rows, strict=True) if key is None or not pair[1][key]]
    pairs.sort(key=lambda pair: view.rank(pair[1]))
    title = "Wrong answers" if key else "Documents"
    shown = [view.draw(sample, row, suite) for sample, row in pairs[:SHOWN]]
    return Examples(title, len(pairs), len(rows), view.order, shown, view.legend)


def _plain(text: Any) -> Markup:
    return marked(str(text), ())


def _end_of(text: str) -> Markup:
    """What a model continues stands at the end."""
    short = text[-_CHARACTERS:]
    return Markup("{}{}").format("… " if len(short) < len(text) else "", short)


def _named(label: Any) -> str:
    if isinstance(label, list):
        return ", ".join(map(str, label)) or "(none)"
    return str(label)


def _classified(sample: Sample, row: Row, suite: Suite) -> Example:
    texts = sample["doc"]["text"]
    parts = [("text", _plain(text)) for text in ([texts] if isinstance(texts, str) else texts)]
    expected, found = _named(row["expected"]), _named(row["predicted"])
    parts += [("expected", _plain(expected)), ("found", _plain(found))]
    scores = sample["resps"][0].get("scores")
    if isinstance(scores, dict):
        best = sorted(scores.items(), key=lambda item: -item[1])[:4]
        parts.append(("scores", _plain(", ".join(f"{name} {score:.3f}" for name, score in best))))
    note = f"confidence {row['confidence']:.3f}" if "confidence" in row else ""
    # Lists of labels are too many to choose from.
    keys = ("", "") if suite.data.multi_label else (expected, found)
    return Example(sample["doc_id"], note, parts, *keys)


def _tagged(sample: Sample, row: Row, suite: Suite) -> Example:
    text, (missed, extra) = sample["doc"]["text"], _entity_errors(row)

    def spans(entities, wrong, name):
        return [
            (s, e, name if [s, e, label] in wrong else "right", label) for s, e, label in entities
        ]

    parts = [
        ("expected", marked(text, spans(row["expected"], missed, "missed"))),
        ("found", marked(text, spans(row["predicted"], extra, "extra"))),
    ]
    return Example(sample["doc_id"], f"{len(missed)} missed, {len(extra)} too many", parts)


def _entity_errors(row: Row) -> tuple[list, list]:
    """Gives the entities that were missed, and those that were found wrongly."""
    right, found = row["expected"], row["predicted"]
    return [e for e in right if e not in found], [e for e in found if e not in right]


def _answered(sample: Sample, row: Row, suite: Suite) -> Example:
    doc, answer = sample["doc"], sample["resps"][0]
    spans: list[Span] = []
    for text in dict.fromkeys(row["expected"]):
        # The record keeps the texts of right answers, not their places.
        if text and (start := doc["context"].find(text)) >= 0:
            spans.append((start, start + len(text), "missed", ""))
    if row["predicted"]:
        start = answer.get("start", doc["context"].find(row["predicted"]))
        if start is not None and start >= 0:
            spans.append((start, start + len(row["predicted"]), "extra", ""))
    expected = " | ".join(dict.fromkeys(row["expected"])) or "(no answer)"
    parts = [
        ("question", _plain(doc["question"])),
        ("context", marked(doc["context"], spans)),
        ("expected", _plain(expected)),
        ("found", _plain(row["predicted"] or "(no answer)")),
    ]
    note = f"F1 {row['f1']:.3f}, confidence {row['confidence']:.3f}"
    return Example(sample["doc_id"], note, parts)


def _chosen(sample: Sample, row: Row, suite: Suite) -> Example:
    from llama_keras.eval.kinds.multiple_choice import choices_of

    lines, requests = [], sample["arguments"]
    contexts = {request["context"] for request in requests}
    choices = choices_of(sample["doc"], suite)
    for choice, asked, answer in zip(choices, requests, sample["resps"], strict=True):
        names = (("expected", row["expected"]), ("found", row["predicted"]))
        told = ", ".join(name for name, text in names if text == choice)
        kind = {"expected": "missed", "found": "extra"}.get(told, "")
        # Where the choice stands in the context, each is shown whole.
        shown = choice if len(contexts) == 1 else asked["context"] + asked["continuation"]
        text = marked(shown, [(0, len(shown), kind, told)] if kind else ())
        lines.append(Markup("<div>{} {}</div>").format(f"{answer['logprob']:.2f}", text))
    parts = [("context", _end_of(requests[0]["context"]))] if len(contexts) == 1 else []
    parts.append(("choices", Markup("").join(lines)))
    return Example(sample["doc_id"], f"confidence {row['confidence']:.3f}", parts)


def _continued(sample: Sample, row: Row, suite: Suite) -> Example:
    parts = [
        ("context", _end_of(sample["arguments"][0]["context"])),
        ("expected", _plain(row["expected"])),
    ]
    return Example(sample["doc_id"], f"log-probability {-row['nats']:.3f}", parts)


def _written(sample: Sample, row: Row, suite: Suite) -> Example:
    parts = [
        ("prompt", _end_of(sample["arguments"][0]["prompt"])),
        ("expected", _plain(row["expected"])),
        ("found", _plain(row["predicted"] or "(nothing)")),
    ]
    return Example(sample["doc_id"], "", parts)


def _read(sample: Sample, row: Row, suite: Suite) -> Example:
    note = f"{_nats_per_byte(row):.3f} nats a byte, {row['bytes']:,} bytes"
    return Example(sample["doc_id"], note, [("text", _plain(sample["doc"]["text"]))])


def _nats_per_byte(row: Row) -> float:
    return row["nats"] / max(row["bytes"], 1)


def _queries(rows: Sequence[Row]) -> Examples:
    """Gives the queries that do not find their document first, the worst first."""
    from llama_keras.eval.kinds.retrieval import search
    from llama_keras.eval.retrieval import ranks

    made = search(rows)
    queries, documents, places = made.queries, made.documents, ranks(made.cosines, made.relevant)
    own: dict[str, list[str]] = {}
    for row in rows:
        own.setdefault(row["texts"][0], []).append(row["texts"][1])
    wrong = [number for number, found in enumerate(places) if found[0] > 1]
    wrong.sort(key=lambda number: -places[number][0])
    shown = []
    for number in wrong[:SHOWN]:
        right = dict.fromkeys(own[queries[number]])
        order = made.cosines[number].argsort()[::-1]
        first = next(documents[at] for at in order if documents[at] not in right)
        parts = [
            ("query", _plain(queries[number])),
            ("expected", _plain(" | ".join(right))),
            ("found first", _plain(first)),
        ]
        shown.append(Example(number, f"rank {places[number][0]}", parts))
    title = "Queries that find another document"
    return Examples(title, len(wrong), len(queries), "the worst", shown)


@dataclass(frozen=True)
class _View:
    """How a task's examples are shown.

    Attributes:
        draw: gives one of them.
        rank: sorts them, the least first.
        order: what is first, in words.
        legend: whether marks in the text need explaining.
    """

    draw: Callable[[Sample, Row, Suite], Example]
    rank: Callable[[Row], float]
    order: str
    legend: bool = False


_VIEWS = {
    "text_classification": _View(
        _classified, lambda row: -row.get("confidence", 0.0), "the surest"
    ),
    "token_classification": _View(
        _tagged, lambda row: -sum(map(len, _entity_errors(row))), "those with most errors", True
    ),
    "question_answering": _View(
        _answered, lambda row: row["f1"] - row["confidence"], "the surest and most wrong", True
    ),
    "multiple_choice": _View(_chosen, lambda row: -row["confidence"], "the surest"),
    "cloze": _View(_continued, lambda row: -row["nats"], "the least likely"),
    "generation": _View(_written, lambda row: 0.0, "those that come"),
    "perplexity": _View(_read, lambda row: -_nats_per_byte(row), "the hardest"),
}
