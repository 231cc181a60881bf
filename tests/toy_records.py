"""Folders of small finished evaluations, one suite a task, for tests of what reads them."""

import json
import random
import re
from pathlib import Path
from unittest import mock

from llama_keras.eval import evaluate_suites
from llama_keras.eval.suite import Suite

COUNT = 24
# Bootstrap draws of the records' intervals: scikit-learn's metrics are slow, and nothing here
# depends on how good the intervals are.
DRAWS = 20
EVIL = '<script>alert("x")</script> & <b>bold</b>'
_TITLES = ("good", "bad", "odd")


class ScriptedTarget:
    """Answers most requests rightly, by reading what the toy data say.

    Args:
        skill: share of right answers, drawn by request, so that it is the same in any order.
        sha256: of the weights that it does not have.
    """

    kind = "toy"
    location = "runs/toy model"
    labels = None
    requests = frozenset(
        {
            "classify",
            "tag",
            "answer",
            "loglikelihood",
            "loglikelihood_rolling",
            "generate_until",
            "embed",
        }
    )

    def __init__(self, skill: float, sha256: str | None = "a" * 64):
        self.skill, self.sha256 = skill, sha256

    def ask(self, kind, requests, *, batch_size=32):
        return [getattr(self, f"_{kind}")(request) for request in requests]

    def fingerprint(self):
        return self.sha256

    def first_tokens(self, kind, request):
        return None

    def _draw(self, request):
        # The same number whatever the skill is: the better one is right wherever the worse one is.
        return random.Random(json.dumps(request, sort_keys=True)).random()

    def _classify(self, request):
        right = next(word for word in _TITLES if f" {word}" in request["text"])
        draw = self._draw(request)
        wrong = _TITLES[(_TITLES.index(right) + 1) % 3]
        score = 0.35 + 0.6 * abs(draw - self.skill)
        return {"label": right if draw < self.skill else wrong, "score": score}

    def _tag(self, request):
        found = [
            {"start": m.start(), "end": m.end(), "label": "PER" if m[0] == "Ada" else "LOC"}
            for m in re.finditer("Ada|Paris|Rom", request["text"])
        ]
        if self._draw(request) >= self.skill:
            found[-1]["label"] = "PER"
            found = found[1:]
        return {"entities": found}

    def _answer(self, request):
        draw = self._draw(request)
        found = re.search(r"is (\w+ town \d+)", request["context"])
        if found is None:
            return {"text": "" if draw < self.skill else "here", "score": draw}
        start, end = found.span(1)
        start -= 3 * (draw >= self.skill)
        return {
            "text": request["context"][start:end],
            "start": start,
            "end": end,
            "score": draw,
        }

    def _loglikelihood(self, request):
        noise = 3 * max(0.0, self._draw(request) - self.skill)
        right = "right" in request["continuation"]
        return {
            "logprob": -1.0 - noise if right else -1.5 + noise,
            "is_greedy": right and noise == 0,
            "num_tokens": 2,
        }

    def _loglikelihood_rolling(self, request):
        text = request["text"]
        return {
            "logprob": -len(text) * (1.5 - self.skill + self._draw(request)),
            "num_tokens": len(text) // 4,
        }

    def _generate_until(self, request):
        words = request["prompt"].split(": ")[1].split()
        return {"text": " ".join(words if self._draw(request) < self.skill else words[:-2])}

    def _embed(self, request):
        vector = [0.0] * COUNT
        vector[int(request["text"].split()[-1])] = 1.0
        at = (vector.index(1.0) + 1) % COUNT
        vector[at] += 8 * max(0.0, self._draw(request) - self.skill)
        return {"embedding": vector}


def _texts():
    for n in range(COUNT):
        text = (
            f"{EVIL if n % 5 == 0 else 'A film'} was {_TITLES[n % 3]}{', so it was' * (n % 7)} {n}"
        )
        yield {"text": text, "label": _TITLES[n % 3]}


def _tagged():
    for n in range(COUNT):
        text = f"In {n}, Ada went to {'Paris' if n % 2 else 'Rom'} 今天 & stayed{' on' * (n % 5)}."
        spans = [
            {"start": m.start(), "end": m.end(), "label": "PER" if m[0] == "Ada" else "LOC"}
            for m in re.finditer("Ada|Paris|Rom", text)
        ]
        yield {"text": text, "spans": spans}


def _questions():
    for n in range(COUNT):
        there = n % 4 != 0
        sentence = f"it is old town {n}" if there else "nobody knows it"
        context = f"{EVIL} {'Well, ' * (n % 6)}{sentence}, they say."
        answers = [{"text": f"old town {n}", "answer_start": context.find("old town")}]
        yield {
            "id": str(n),
            "question": f"Which town, {n}?",
            "context": context,
            "answers": answers if there else [],
        }


# Suite -> its fields and the rows of its data.
_SUITES = {
    "films": ({"task": "text_classification"}, _texts),
    "names": ({"task": "token_classification"}, _tagged),
    "towns": ({"task": "question_answering"}, _questions),
    "ends": (
        {"task": "multiple_choice"},
        lambda: (
            {
                "context": f"{EVIL} Choose {n}{' and again' * (n % 6)}:",
                "choices": ["wrong", f"right {n}", "not that"],
                "answer": 1,
            }
            for n in range(COUNT)
        ),
    ),
    "last_words": (
        {"task": "cloze"},
        lambda: ({"context": f"Write {n}", "target": f"right {n}"} for n in range(COUNT)),
    ),
    "papers": (
        {"task": "perplexity"},
        lambda: ({"text": f"Paper {n} of words" + " and more" * (n % 9)} for n in range(COUNT)),
    ),
    "echoes": (
        {"task": "generation"},
        lambda: (
            {"context": f"Say: the cat sat on mat {n}", "target": f"the cat sat on mat {n}"}
            for n in range(COUNT)
        ),
    ),
    "pairs": (
        {"task": "retrieval"},
        lambda: ({"anchor": f"query {n}", "positive": f"document {n}"} for n in range(COUNT)),
    ),
}
NAMES = tuple(_SUITES)


def toy_suites(folder: Path, names=NAMES) -> list[Suite]:
    """Suites whose data are written into a folder."""
    folder.mkdir(exist_ok=True)
    suites = []
    for name in names:
        fields, rows = _SUITES[name]
        file = folder / f"{name}.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) for row in rows()]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        suites.append(Suite.model_validate({"name": name, "data": {"source": str(file)}, **fields}))
    return suites


def write_record(folder: Path, *, skill: float, names=NAMES, **arguments) -> Path:
    """A folder as `evaluate run --output` leaves it, with its data beside it."""
    suites = toy_suites(folder.parent / "data", names)
    target = ScriptedTarget(skill, sha256=f"{round(skill * 100):064d}")
    with mock.patch("llama_keras.eval.metrics.RESAMPLES", DRAWS):
        evaluate_suites(suites, model=target, output=folder, show_progress=False, **arguments)
    return folder
