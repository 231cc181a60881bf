"""Draws what `benchmarks.task_table` measured as `docs/quality.md`."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.report import aligned
from benchmarks.task_jobs import PEER

Row = dict[str, Any]
NONE = "–"
# Of the metrics of a part, those that are shown, with their names; the first set that is there.
_SHOWN = (
    {"exact_match": "exact match", "f1": "F1"},
    {"precision": "", "f1": "entity F1"},
    {"accuracy": "accuracy"},
)
_TASK_HEADS = (
    "recipe",
    "train / test",
    "mask",
    "llama-keras",
    "Hugging Face",
    "weights that learn",
    "CPU minutes",
    "peak GB",
)
_HEAD = """# Quality of the heads

What the heads reach on real data, beside Hugging Face's heads (`LlamaForSequenceClassification`,
`LlamaForTokenClassification`, `LlamaForQuestionAnswering`, LoRA by PEFT) from the same checkpoint,
SmolLM2-135M-Instruct in 4 bits, with the same data, batches, epochs, learning rate, schedule,
weight decay, clipping and precision, scored by the same code. Budgets are small (1,000 to 2,000
examples to learn, one or two epochs, one seed), so all of it is far from what a full training
reaches; the intervals are 95 % and cover the choice of the examples, not that of the seed.

Where the libraries differ by design each does as it does: Hugging Face's Llamas are causal only,
tag the first sub-token of a word, and read tags and answers off the logits as its examples do
(`benchmarks/task_peers.py` says how); ours tag the last sub-token of a causal model's words and
take the best legal sequence, and weigh the windows of a context against each other. PEFT begins the
updates at a smaller scale than Keras does.

CPU time is user and system time of the whole process (loading, tracing, training, measuring), for
the machine was shared; memory is the peak of the resident set. A run that was repeated on another
machine keeps the time and memory of the first (`cost_finished` in the results). This file is drawn
by `python -m benchmarks.task_table draw` from the results of `python -m benchmarks.task_table run`.
"""

DAGGER = " †"
_OUT_OF_DATE = """† Measured when a classifier's head still began with Keras's own draw, three times
as wide as the peer's. It begins with N(0, 0.02²) since 2026-11-30 (see [LOG.md](LOG.md)); these
runs were not repeated yet."""


def draw(rows: Sequence[Row]) -> str:
    """Gives the results as Markdown.

    Args:
        rows: of the results file. The last of a command counts, in the place of the first; one
            that is `out_of_date` has a dagger.
    """
    rows = list({row["command"]: row for row in rows}.values())
    tables = {name: [row for row in rows if row["table"] == name] for name in _TABLES}
    parts = [_HEAD.strip()]
    if any(row.get("out_of_date") for row in rows):
        parts.append(_OUT_OF_DATE)
    parts += [_TABLES[name](found) for name, found in tables.items() if found]
    commands = [f"    {row['command']}" for found in tables.values() for row in found]
    parts.append("## Commands\n\n" + "\n".join(commands))
    return "\n\n".join(parts) + "\n"


def _tasks(rows: Sequence[Row]) -> str:
    table: list[Sequence[str]] = [_TASK_HEADS]
    names = dict.fromkeys((row["recipe"], row["mask"]) for row in rows)
    for recipe, mask in names:
        here = [row for row in rows if (row["recipe"], row["mask"]) == (recipe, mask)]
        ours = [row for row in here if row["library"] != PEER]
        peers = [row for row in here if row["library"] == PEER]
        table.append(
            (
                f"`{recipe}`",
                _sizes(here[0]),
                mask,
                _all(ours),
                _all(peers) if mask == "causal" else NONE,
                _share(here[0]),
                _both(ours, peers, _minutes),
                _both(ours, peers, _memory),
            )
        )
    title = "## Each head, causal and bidirectional, with LoRA (rank 8, all projections)"
    note = "Time and memory: ours / Hugging Face's"
    if versions := next((row["versions"] for row in rows if "versions" in row), {}):
        note += f" ({', '.join(f'{name} {number}' for name, number in versions.items())})"
    return f"{title}\n\n{aligned(table)}\n\n{note}."


def _strategies(rows: Sequence[Row]) -> str:
    table = [("strategy", "accuracy", "weights that learn", "CPU minutes", "peak GB")]
    table += [
        (f"`{row['strategy']}`", _score(row), _share(row), _minutes(row), _memory(row))
        for row in rows
    ]
    sizes = _sizes(rows[0])
    return f"## Strategies, on `sst2` ({sizes} sentences, two epochs, causal)\n\n{aligned(table)}"


def _pretraining(rows: Sequence[Row]) -> str:
    table = [("run", "measured", "CPU minutes", "peak GB")]
    scores: dict[str, list[float]] = {}
    for row in rows:
        words = dict(w.split("=", 1) for w in row["command"].split() if "=" in w)
        cost = (_minutes(row), _memory(row))
        if start := words.get("preset"):
            learner = f"`{row['strategy']}` on `{start}`"
            scores.setdefault(learner, []).append(row["metrics"]["test"]["accuracy"])
            name = f"`{row['recipe']}`, {learner}, seed {words['train.seed']}"
            table.append((name, _score(row), *cost))
        elif "train.learning_rate" not in words:
            before, after = (row["metrics"][when]["loss"] for when in ("before", "after"))
            loss = f"masked-token loss {before:.2f} → {after:.2f} nats"
            table.append((f"pretraining `{row['recipe']}`", loss, *cost))
    means = ", ".join(
        f"{sum(found) / len(found):.3f} by {learner}" for learner, found in scores.items()
    )
    return (
        "## What pretraining brings\n\nThe article's small encoder (1.9 M weights), pretrained by "
        "masking on the texts of `ag_news` without their\nlabels and on 1.1 MB of Wikipedia; then "
        "304 labelled texts teach all of it (`full`), or a head on its\nfeatures as they are "
        "(`linear_probe`). Beside it the same from random weights (`runs/random`, pretrained\nat a "
        "rate of nothing).\n\n"
        f"{aligned(table)}\n\nMeans: {means}."
    )


_TABLES = {"tasks": _tasks, "strategies": _strategies, "pretraining": _pretraining}


def _score(row: Row) -> str:
    part = row["metrics"].get("test") or row["metrics"]["validation"]
    shown = next(names for names in _SHOWN if set(names) <= set(part))
    cells = []
    for key, name in shown.items():
        if name:
            low, high = part["intervals"][key]
            cells.append(f"{name} {part[key]:.3f} ({low:.3f} – {high:.3f})")
    return ", ".join(cells) + (DAGGER if row.get("out_of_date") else "")


def _all(rows: Iterable[Row]) -> str:
    cells = [f"{row['note']}: {_score(row)}" if row["note"] else _score(row) for row in rows]
    return "; ".join(cells) or NONE


def _sizes(row: Row) -> str:
    """Gives "2,006 / 1,151" for "2006 train, 1151 test"."""
    return " / ".join(f"{int(part.split()[0]):,}" for part in row["sizes"].split(", "))


def _share(row: Row) -> str:
    count = row["trainable"]
    shown = f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}"
    share = 100 * count / row["weights"]
    return f"{shown} ({share:.0f} %)" if share >= 10 else f"{shown} ({share:.2g} %)"


def _minutes(row: Row) -> str:
    # None: threads that wait by spinning made the count worthless.
    return f"{row['cpu_seconds'] / 60:.1f}" if row["cpu_seconds"] is not None else NONE


def _memory(row: Row) -> str:
    return f"{row['peak_bytes'] / 1e9:.1f}"


def _both(ours: Sequence[Row], peers: Sequence[Row], cell) -> str:
    return " / ".join(cell(rows[0]) if rows else NONE for rows in (ours, peers))
