"""Targets in this process: a saved task, or a checkpoint as `CausalLM`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError
from llama_keras.eval.requests import Answer, Request
from llama_keras.eval.targets.fingerprints import file_fingerprint, model_fingerprint

_TOKENS_SHOWN = 8


class KerasTarget:
    """A task of this project.

    Args:
        model: any task but those for pretraining.
        location: where it comes from.
        fingerprint: SHA-256 of its weights; None computes it when it is asked for.
    """

    kind = "keras"

    def __init__(self, model, *, location: str = "memory", fingerprint: str | None = None):
        self.model: Any = model
        self.location = location
        self._fingerprint = fingerprint
        name = type(model).__name__
        if name not in _ANSWERS:
            raise InputError(f"{location} holds a {name}; the harness measures {list(_ANSWERS)}.")
        self._answers = _ANSWERS[name]
        self.requests = frozenset(self._answers)
        spec = model.tokenizer.spec
        self.bos_id: int | None = spec.bos_id
        self.adds_bos: bool = bool(spec.add_bos)
        self.precision: str = model.backbone.compute_dtype
        labels = getattr(model, "labels", None)
        self.labels: list[str] | None = list(labels) if labels else None

    def ask(self, kind: str, requests: Sequence[Request], *, batch_size: int = 32) -> list[Answer]:
        """Gives one answer a request, in order; see `requests.Target`."""
        return self._answers[kind](self.model, list(requests), batch_size) if requests else []

    def fingerprint(self) -> str:
        """Gives the SHA-256 of the file, or of the weights, the configuration and the tokens."""
        if self._fingerprint is None:
            self._fingerprint = model_fingerprint(self.model)
        return self._fingerprint

    def first_tokens(self, kind: str, request: Request) -> list[int] | None:
        """Gives the first ids that the model reads for a request."""
        if kind in ("loglikelihood", "generate_until"):
            text = request.get("context", request.get("prompt", "")) or " "
            ids = self.model.tokenizer.encode(text)
        elif kind == "classify" and isinstance(request["text"], str):
            ids = list(self.model.example_rows([request["text"]], None).token_ids[0])
        else:
            return None
        return [int(token) for token in ids[:_TOKENS_SHOWN]]


class TaskTarget(KerasTarget):
    """A task saved as a `.keras` file."""

    def __init__(self, file: str | Path):
        from llama_keras.tasks.task import Task

        model = Task.load(file)
        super().__init__(model, location=str(file), fingerprint=file_fingerprint([Path(file)]))


class CheckpointTarget(KerasTarget):
    """A checkpoint that continues text: a preset's name or directory, a `.gguf` file."""

    settings = ("dtype",)

    def __init__(self, preset: str | Path, *, dtype: str | None = None):
        from llama_keras.tasks import CausalLM

        try:
            model = CausalLM.from_preset(preset, **({"dtype": dtype} if dtype else {}))
        except InputError as error:
            raise InputError(
                f"There is no model at {preset}: it is no run directory, .keras file, export or "
                f"server's URL, and no checkpoint: {error}"
            ) from None
        super().__init__(model, location=str(preset))
        self.used_settings = {"dtype": model.backbone.dtype_policy.name}


def _classify(model, requests, batch_size) -> list[Answer]:
    texts = [r["text"] if isinstance(r["text"], str) else tuple(r["text"]) for r in requests]
    return model.predict(texts, batch_size=batch_size, verbose=0)


def _tag(model, requests, batch_size) -> list[Answer]:
    texts = [request["text"] for request in requests]
    found = model.predict(texts, batch_size=batch_size, verbose=0)
    return [{"entities": entities} for entities in found]


def _answer(model, requests, batch_size) -> list[Answer]:
    examples = [
        {"id": str(number), "question": r["question"], "context": r["context"]}
        for number, r in enumerate(requests)
    ]
    found = model.predict(examples, batch_size=batch_size, n_best=1, verbose=0)
    return [{key: row[key] for key in ("text", "start", "end", "score")} for row in found]


def _embed(model, requests, batch_size) -> list[Answer]:
    vectors = model.predict([r["text"] for r in requests], batch_size=batch_size, verbose=0)
    return [{"embedding": vector.tolist()} for vector in vectors]


def _loglikelihood(model, requests, batch_size) -> list[Answer]:
    from llama_keras.tasks.likelihood import ScoredPair, encode_pairs

    limit = model.backbone.config.max_sequence_length
    pairs = encode_pairs(model.tokenizer, [(r["context"], r["continuation"]) for r in requests])
    # As lm-evaluation-harness: what is too long loses its beginning.
    cuts = [max(len(pair.inputs) - limit, 0) for pair in pairs]
    for pair, cut, request in zip(pairs, cuts, requests, strict=True):
        if cut >= len(pair.context):
            raise InputError(
                f"The continuation {request['continuation'][:80]!r} has {len(pair.continuation)} "
                f"tokens; the model's context is {limit} tokens. Shorten it, or score it as a "
                "document, in windows (task: perplexity)."
            )
    kept = [
        ScoredPair(pair.context[cut:], pair.continuation)
        for pair, cut in zip(pairs, cuts, strict=True)
    ]
    return [
        {
            "logprob": logprob,
            "is_greedy": is_greedy,
            "num_tokens": len(pair.continuation),
            **({"truncated": cut} if cut else {}),
        }
        for pair, cut, (logprob, is_greedy) in zip(
            pairs, cuts, model.score_pairs(kept), strict=True
        )
    ]


def _loglikelihood_rolling(model, requests, batch_size) -> list[Answer]:
    found = model.loglikelihood_rolling([request["text"] for request in requests])
    return [{"logprob": logprob, "num_tokens": count} for logprob, count in found]


def _generate_until(model, requests, batch_size) -> list[Answer]:
    answers: dict[int, Answer] = {}
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(tuple(request["until"]), []).append(index)
    for until, members in groups.items():
        found = _generated(model, [requests[index] for index in members], until)
        answers |= dict(zip(members, found, strict=True))
    return [answers[index] for index in range(len(requests))]


def _generated(model, requests, until: tuple[str, ...]) -> list[Answer]:
    from llama_keras.models.sampling import SamplingSettings
    from llama_keras.tasks.completion import check_stop

    settings = [SamplingSettings(max_new_tokens=r["max_new_tokens"]) for r in requests]
    rooms = [_room(model, request) for request in requests]
    prompts = [_prompt_ids(model, request) for request in requests]
    # As lm-evaluation-harness: a prompt that leaves no room for the answer loses its beginning.
    kept = [prompt[-room:] for prompt, room in zip(prompts, rooms, strict=True)]
    found = model._generate(kept, settings, check_stop(until), "keras")
    return [
        {
            "text": answer.text,
            "finish_reason": answer.finish_reason,
            **({"truncated": len(prompt) - room} if len(prompt) > room else {}),
        }
        for answer, prompt, room in zip(found, prompts, rooms, strict=True)
    ]


def _prompt_ids(model, request) -> list[int]:
    if request.get("chat"):
        return model.tokenizer.encode_chat([{"role": "user", "content": request["prompt"]}])
    return model._encode([request["prompt"]])[0]


def _room(model, request) -> int:
    """Gives the tokens that a prompt may have."""
    limit, wanted = model.backbone.config.max_sequence_length, request["max_new_tokens"]
    # An answer of any length may fill the context: it ends there.
    return limit - wanted if wanted < limit else limit - 1


# Task class name -> kind of request -> what answers it.
_ANSWERS: dict[str, dict[str, Callable[..., list[Answer]]]] = {
    "TextClassifier": {"classify": _classify},
    "TokenClassifier": {"tag": _tag},
    "QuestionAnswerer": {"answer": _answer},
    "Embedder": {"embed": _embed},
    "CausalLM": {
        "loglikelihood": _loglikelihood,
        "loglikelihood_rolling": _loglikelihood_rolling,
        "generate_until": _generate_until,
    },
}
