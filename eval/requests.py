"""What the harness asks of a target, and what it gets back: plain values, ready for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Doc = dict[str, Any]
"""One example of a suite."""
Request = dict[str, Any]
"""One question to a target; its keys are those of `REQUESTS`."""
Answer = dict[str, Any]
"""What the target says; its keys are those of `ANSWERS`."""

# Kind of request -> what each request holds. Characters are Unicode code points, logprobs nats.
REQUESTS: Mapping[str, tuple[str, ...]] = {
    "classify": ("text",),  # a string, or two of a pair
    "tag": ("text",),
    "answer": ("question", "context"),
    "loglikelihood": ("context", "continuation"),
    "loglikelihood_rolling": ("text",),
    "generate_until": ("prompt", "until", "max_new_tokens"),
    "embed": ("text",),
}
# Kind of request -> what each answer holds at least.
ANSWERS: Mapping[str, tuple[str, ...]] = {
    "classify": ("label", "score"),  # or "labels" and "scores" where a text has several
    "tag": ("entities",),  # dicts of start, end, label
    "answer": ("text", "score"),  # "" where there is no answer
    "loglikelihood": ("logprob", "is_greedy", "num_tokens"),
    "loglikelihood_rolling": ("logprob", "num_tokens"),
    "generate_until": ("text",),
    "embed": ("embedding",),
}


class Target(Protocol):
    """What the harness needs of a model.

    Some have more, where they know it: `precision` (what they compute in, such as `bfloat16`),
    `used_settings` (what `open_target` has to be told to make the same again), `bos_id` and
    `adds_bos` (see `harness`), `close`.
    """

    @property
    def kind(self) -> str:
        """`keras`, `saved_model`, `rest`, `grpc` or `openai`."""
        ...

    @property
    def location(self) -> str:
        """The path or URL."""
        ...

    @property
    def requests(self) -> frozenset[str]:
        """The keys of `REQUESTS` that it can answer."""
        ...

    @property
    def labels(self) -> list[str] | None:
        """The labels that it can give; None where it has none or does not tell."""
        ...

    def ask(self, kind: str, requests: Sequence[Request], *, batch_size: int = 32) -> list[Answer]:
        """Gives one answer a request, in order.

        Raises:
            InputError: a request is beyond the model, such as a text longer than its context.
            UnavailableError: the target failed and may come back, such as a server that died.
        """
        ...

    def fingerprint(self) -> str | None:
        """Gives the SHA-256 of its weights or files, or None for a server."""
        ...

    def first_tokens(self, kind: str, request: Request) -> list[int] | None:
        """Gives the first ids that the model reads for a request; None where it does not tell."""
        ...


def described(target: Target) -> dict[str, Any]:
    """Gives what a record says of a target: kind, place, SHA-256, precision, settings."""
    return {
        "kind": target.kind,
        "location": target.location,
        "sha256": target.fingerprint(),
        "precision": getattr(target, "precision", None),
        "settings": dict(getattr(target, "used_settings", {})),
    }
