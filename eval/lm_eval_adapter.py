"""lm-evaluation-harness on models of this project: `--model llama_keras`.

Releases of lm-evaluation-harness after 0.4.13 find `LlamaKerasLM` by the entry point
`lm_eval.models` of this package:

    lm_eval --model llama_keras --model_args preset=smollm2-135m-instruct,dtype=float32 --tasks …

Up to 0.4.13 models are found only in its own table; there `llama-keras evaluate lm-eval` takes the
place of `lm_eval`: it adds the model and runs the same command line.
"""

import sys
from collections.abc import Sequence
from typing import Any

from llama_keras.errors import InputError, MissingDependencyError
from llama_keras.eval.progress import progress_bar
from llama_keras.eval.requests import Answer, Request
from llama_keras.eval.targets import open_target

LM: Any
try:
    from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
except ImportError:
    LM = object  # so that its documentation can be read

NAME = "llama_keras"
# Requests asked for at once: what the progress bar moves by.
_CHUNK = 256
# Of an answer, where a task does not say; lm-evaluation-harness's own default.
_MAX_NEW_TOKENS = 256
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class LlamaKerasLM(LM):
    """A model of this project, or one that it serves, for lm-evaluation-harness.

    Args:
        preset: what `eval.targets.open_target` takes: a preset's name or folder, a `.gguf` file, a
            run directory, an export's folder, a server's URL.
        dtype: of a checkpoint.
        batch_size, max_batch_size, device: not used, and taken because the harness gives them:
            batches are put together by tokens, and TensorFlow takes the devices that it sees.

    Raises:
        InputError: there is no such model, it neither scores nor writes text, or an argument is
            not known.
        MissingDependencyError: lm-evaluation-harness is not installed.

    Example:
    ```python
    import lm_eval  # doctest: skip
    from llama_keras.eval.lm_eval_adapter import LlamaKerasLM  # doctest: skip

    model = LlamaKerasLM(preset="smollm2-135m-instruct")  # doctest: skip
    results = lm_eval.simple_evaluate(model=model, tasks=["arc_easy"])  # doctest: skip
    ```
    """

    def __init__(
        self,
        preset: str | None = None,
        *,
        dtype: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: Any,
    ):
        check_installed()
        super().__init__()
        if preset is None or unknown:
            raise InputError(
                f"--model {NAME} takes --model_args preset=NAME_OR_PATH and perhaps dtype=…; "
                f"received {sorted(unknown) or 'no preset'}."
            )
        self.target = open_target(preset, **({"dtype": dtype} if dtype else {}))
        if not self.target.requests & {"loglikelihood", "generate_until"}:
            raise InputError(
                f"{preset} answers {sorted(self.target.requests)}; lm-evaluation-harness asks for "
                "likelihoods and continuations of text."
            )
        # What the chat template has made, and of what.
        self._conversations: dict[str, list[dict[str, str]]] = {}

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False):
        """Gives (log-probability, whether greedy decoding gives it) of each continuation."""
        pairs = [request.args for request in requests]
        asked: list[Request] = [{"context": a, "continuation": b} for a, b in pairs]
        ask = self._score_rendered if self._conversations else self._ask
        answers = self._in_chunks("loglikelihood", asked, ask, disable_tqdm)
        found = [(answer["logprob"], answer["is_greedy"]) for answer in answers]
        return self._kept("loglikelihood", requests, found)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False):
        """Gives the log-probability of each whole text."""
        asked = [{"text": request.args[0]} for request in requests]
        answers = self._in_chunks("loglikelihood_rolling", asked, self._ask, disable_tqdm)
        found = [answer["logprob"] for answer in answers]
        return self._kept("loglikelihood_rolling", requests, found)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False):
        """Gives each prompt's likeliest continuation, token by token, up to a stop string."""
        asked = [_generation(*request.args) for request in requests]
        ask = self._chat if self._conversations else self._ask
        answers = self._in_chunks("generate_until", asked, ask, disable_tqdm)
        return self._kept("generate_until", requests, [answer["text"] for answer in answers])

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Gives a conversation as text; what is asked from now on is read with control tokens."""
        text = self._causal_lm.tokenizer.apply_chat_template(
            chat_history, add_generation_prompt=add_generation_prompt
        )
        self._conversations[text] = [dict(turn) for turn in chat_history]
        return text

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Gives the checkpoint's template, or None where it is not asked for."""
        if isinstance(chat_template, str) and chat_template != "default":
            raise InputError(f"There is no chat template {chat_template!r}; a checkpoint has one.")
        return self._causal_lm.tokenizer.chat_template if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """The name under which lm-evaluation-harness keeps rendered requests."""
        return self.target.location.replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Gives what the results say of the model."""
        from llama_keras.eval.results import versions

        return {"model_sha": self.target.fingerprint(), "versions": versions()}

    @property
    def _causal_lm(self) -> Any:
        model = getattr(self.target, "model", None)
        if model is None:
            raise InputError(
                f"{self.target.location} has no chat template in this process; leave "
                "--apply_chat_template out, or name a checkpoint."
            )
        return model

    def _in_chunks(self, kind: str, asked: list[Request], ask, quiet: bool) -> list[Answer]:
        """Asks in order of length, in which equal contexts are neighbours and few shapes occur."""
        if kind not in self.target.requests:
            raise InputError(
                f"{self.target.location} answers {sorted(self.target.requests)}, not {kind!r}."
            )
        order = sorted(range(len(asked)), key=lambda n: _length_and_texts(asked[n]))
        answers: dict[int, Answer] = {}
        with progress_bar(kind, total=len(asked), visible=not quiet) as advance:
            for start in range(0, len(order), _CHUNK):
                chunk = order[start : start + _CHUNK]
                given = ask(kind, [asked[number] for number in chunk])
                answers |= dict(zip(chunk, given, strict=True))
                advance(len(chunk))
        return [answers[number] for number in range(len(asked))]

    def _ask(self, kind: str, requests: list[Request]) -> list[Answer]:
        return self.target.ask(kind, requests)

    def _score_rendered(self, kind: str, requests: list[Request]) -> list[Answer]:
        """Scores texts in which the chat template's control tokens are to be seen."""
        from llama_keras.tasks.likelihood import ScoredPair, encode_pairs

        model, tokenizer = self._causal_lm, _WithControlTokens(self._causal_lm.tokenizer)
        texts = [(request["context"], request["continuation"]) for request in requests]
        pairs: list[Any] = encode_pairs(tokenizer, texts)  # pyright: ignore[reportArgumentType]
        limit = model.backbone.config.max_sequence_length
        # What is too long loses its beginning; what is too long without a context is refused.
        kept = [
            ScoredPair(
                pair.context[min(max(len(pair.inputs) - limit, 0), len(pair.context) - 1) :],
                pair.continuation,
            )
            for pair in pairs
        ]
        return [
            {"logprob": logprob, "is_greedy": greedy} for logprob, greedy in model.score_pairs(kept)
        ]

    def _chat(self, kind: str, requests: list[Request]) -> list[Answer]:
        missing = [r["prompt"] for r in requests if r["prompt"] not in self._conversations]
        if missing:
            raise InputError(
                f"The prompt {missing[0][:80]!r} is more than the chat template made of messages; "
                "tasks that begin the answer (gen_prefix) cannot be asked."
            )
        return [
            {
                "text": self._causal_lm.chat(
                    self._conversations[request["prompt"]],
                    max_new_tokens=request["max_new_tokens"],
                    stop=request["until"],
                ).text
            }
            for request in requests
        ]

    def _kept(self, kind: str, requests: Sequence[Any], found: list[Any]) -> list[Any]:
        """Hands answers to the harness's cache, where it has one."""
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial(kind, request.args, answer)
        return found


class _WithControlTokens:
    """A tokenizer that reads control tokens in a text, and adds none that the text begins with."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.bos_id, self.eos_id = tokenizer.bos_id, tokenizer.eos_id
        self.pad_id = tokenizer.pad_id

    def encode(self, texts: list[str]) -> list[list[int]]:
        rows = self._tokenizer.encode(texts, parse_special=True)
        doubled = [self.bos_id, self.bos_id]
        return [row[1:] if row[:2] == doubled else row for row in rows]


def _length_and_texts(request: Request) -> tuple[int, list[str]]:
    texts = [text for text in request.values() if isinstance(text, str)]
    return -sum(map(len, texts[:1])), texts


def _generation(prompt: str, settings: dict[str, Any]) -> Request:
    """Gives a request from lm-evaluation-harness's `generation_kwargs`."""
    if settings.get("do_sample") and settings.get("temperature", 1.0) > 0:
        raise InputError(
            f"generation_kwargs={settings}: likeliest continuations alone are given; set "
            "do_sample: false."
        )
    until = settings.get("until") or []
    limits = [settings[name] for name in _LIMITS if settings.get(name) is not None]
    return {
        "prompt": prompt,
        "until": [until] if isinstance(until, str) else [text for text in until if text],
        "max_new_tokens": int([*limits, _MAX_NEW_TOKENS][0]),
    }


def check_installed() -> None:
    """Raises `MissingDependencyError` where lm-evaluation-harness is not installed."""
    if LM is object:
        raise MissingDependencyError(
            "The adapter needs lm-evaluation-harness. Install it: pip install lm_eval"
        )


def register() -> None:
    """Makes the model known to lm-evaluation-harness in this process."""
    check_installed()
    # Its own models first: it reads its table only while there is none.
    import lm_eval.models  # pyright: ignore[reportMissingImports] # noqa: F401
    from lm_eval.api.registry import (  # pyright: ignore[reportMissingImports]
        model_registry,
        register_model,
    )

    if NAME not in model_registry:
        register_model(NAME)(LlamaKerasLM)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line of lm-evaluation-harness with the model added.

    Args:
        arguments: what stands behind `lm_eval`; None takes those of this process.

    Raises:
        MissingDependencyError: lm-evaluation-harness is not installed.
    """
    register()
    from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

    if arguments is not None:
        sys.argv = ["lm-eval", *arguments]  # it reads and changes them there
    cli_evaluate()


if __name__ == "__main__":
    # The module under its own name, not a second copy of the class.
    from llama_keras.eval import lm_eval_adapter

    lm_eval_adapter.main()
