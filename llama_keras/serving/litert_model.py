"""Run a folder that `serving.litert_export` wrote, with `ai-edge-litert` and NumPy alone.

Axes: N texts, R rows of the file, T tokens, C classes or tags, E vector.
"""

import contextlib
import importlib.util
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependencyError
from .litert_step import LiteRTStep
from .manifest import MANIFEST_FILE


class LiteRTModel:
    """A task in LiteRT: ids in, logits, vectors or tags out; and for some heads texts in.

    Args:
        path: the folder.
        num_threads: of the interpreter; by default one for each core.

    Raises:
        InputError: the folder or a file of it is missing or damaged.
        MissingDependencyError: `ai-edge-litert` is not installed.
    """

    def __init__(self, path: str | Path, *, num_threads: int | None = None):
        self.path = Path(path)
        self.manifest = _manifest(self.path)
        self._interpreter = _interpreter(self.path / self.manifest["file"], num_threads)
        wanted = ("decode", "prefill") if self.task == "generation" else ("tokens",)
        found = self._interpreter.get_signature_list()
        if missing := [name for name in wanted if name not in found]:
            raise InputError(f"'{self.path}' has no signature {missing[0]!r}; export it again.")
        if self.task == "generation":  # `decode` is the file's main function
            self._step = LiteRTStep(self._interpreter, self.path)
            wanted = ()
        self._runners = {name: self._interpreter.get_signature_runner(name) for name in wanted}
        self._tokenizer = None
        self._lock = threading.Lock()

    @property
    def task(self) -> str:
        """What the model does, such as `"text_classification"`."""
        return self.manifest["task"]

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of the logits."""
        return self.manifest["labels"]

    def run(self, token_ids: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Gives what the head computes for N rows of ids, each of its own length.

        Returns:
            N arrays float32: `(C,)` or `(E,)`, or `(T, …)` of heads that tell of each token.

        Raises:
            InputError: a row is longer than the model takes, or the model generates.
        """
        self._only_heads()
        rows = [self._checked(number, row) for number, row in enumerate(token_ids)]
        size = self.manifest["rows"]
        outputs = []
        for at in range(0, len(rows), size):
            outputs += self._run_rows(rows[at : at + size])
        return outputs

    def tag(self, token_ids: Sequence[Sequence[int]]) -> list[list[str]]:
        """Gives of a token classifier the tag of each token: the best legal sequence of each row.

        Raises:
            InputError: see `run`; or the model gives no tags.
        """
        if "tags" not in self.manifest:
            raise InputError(f"This model gives no tags; it is for {self.task}.")
        chain = {name: np.array(part) for name, part in self.manifest["chain"].items()}
        names = self.manifest["tags"]
        return [[names[tag] for tag in best_path(rows, **chain)] for rows in self.run(token_ids)]

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Gives the answers to N texts, as the task itself gives them.

        Returns:
            N dicts: of a classifier `label`, `score`, `scores`, or `labels`, `scores`; of an
            embedder `embedding`.

        Raises:
            InputError: this kind of task takes ids, or cleans text in TensorFlow.
            MissingDependencyError: the package that reads the tokenizer is not installed.
        """
        if self.task not in ("text_classification", "embedding") or self.manifest.get("pairs"):
            raise InputError(f"A model for {self.task} takes token ids here; use run or tag.")
        outputs = self.run(self.encode(texts))
        if self.task == "embedding":
            return [{"embedding": row} for row in outputs]
        return [self._answer(row) for row in outputs]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Gives the ids of texts, cut to the model's limit.

        Raises:
            InputError, MissingDependencyError: see `predict`.
        """
        if steps := [step["name"] for step in self.manifest["cleaning"]]:
            raise InputError(f"This model's text is cleaned first ({steps}); clean it, give ids.")
        if self._tokenizer is None:
            about = self.manifest["tokenizer"]
            self._tokenizer = _TOKENIZERS[about["kind"]](self.path / about["file"], about)
        limit, pad = self.manifest["max_length"], self.manifest["pad_id"]
        return [self._tokenizer(text)[:limit] or [pad] for text in texts]

    def generate(self, token_ids: Sequence[int], *, max_new_tokens: int = 64) -> list[int]:
        """Gives the likeliest continuation of a prompt, up to a token that ends it.

        Raises:
            InputError: the model does not generate, or the prompt leaves no room.
        """
        if self.task != "generation":
            raise InputError(f"A model for {self.task} does not continue text; use run.")
        prompt = self._checked(0, token_ids)
        room = min(max_new_tokens, self.manifest["max_length"] - len(prompt))
        if room < 1:
            raise InputError("The prompt leaves no room for an answer; shorten it.")
        with self._lock:
            return self._continue(prompt, room)

    def _continue(self, prompt: list[int], room: int) -> list[int]:
        # Made for each call: while there is one, no input of the interpreter can be resized.
        found = self._interpreter.get_signature_runner("prefill")(
            token_ids=np.array([prompt], "int32")
        )
        rows = found["rows"]  # (2 L, K, T, D)
        slots = [(0, 0), (0, 0), (0, room), (0, 0)]
        self._step.fill(np.pad(rows, slots))
        logits = found["logits"]
        made: list[int] = []
        for index in range(len(prompt), len(prompt) + room):
            made.append(int(np.argmax(logits[0])))
            if made[-1] in self.manifest["end_ids"] or len(made) == room:
                break
            logits, _ = self._step.advance(np.array(made[-1], "int32"), index=index)
        return made

    def _only_heads(self) -> None:
        if self.task == "generation":
            raise InputError("This model continues text; use generate.")

    def _checked(self, number: int, row: Sequence[int]) -> list[int]:
        limit = self.manifest["max_length"]
        if not 1 <= len(row) <= limit:
            raise InputError(f"Row {number} has {len(row)} tokens; the model takes 1 to {limit}.")
        return [int(id_) for id_ in row]

    def _run_rows(self, rows: list[list[int]]) -> list[np.ndarray]:
        width = max(map(len, rows))
        ids = np.full((self.manifest["rows"], width), self.manifest["pad_id"], "int32")
        mask = np.zeros_like(ids)
        mask[:, 0] = 1  # of rows without a text
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = row, 1
        with self._lock:
            (found,) = self._runners["tokens"](token_ids=ids, padding_mask=mask).values()
        parts = zip(found, rows, strict=False)
        return [x[: len(row)].copy() if found.ndim == 3 else x.copy() for x, row in parts]

    def _answer(self, logits: np.ndarray) -> dict[str, Any]:
        if self.manifest["multi_label"]:
            values = 0.5 * (1.0 + np.tanh(0.5 * logits))
        else:
            shifted = np.exp(logits - logits.max())
            values = shifted / shifted.sum()
        scores = {name: float(x) for name, x in zip(self.labels, values, strict=True)}
        if self.manifest["multi_label"]:
            limit = self.manifest["threshold"]
            return {"labels": [k for k, x in scores.items() if x > limit], "scores": scores}
        best = int(np.argmax(values))
        return {"label": self.labels[best], "score": float(values[best]), "scores": scores}


def best_path(
    emissions: np.ndarray, *, transitions: np.ndarray, start: np.ndarray, end: np.ndarray
) -> list[int]:
    """Gives the best legal tags of emissions `(T, C)` (Viterbi), as `layers.LinearChainCRF`."""
    best, steps = start + emissions[0], []
    for emission in emissions[1:]:
        ways = best[:, None] + transitions
        steps.append(ways.argmax(axis=0))
        best = ways.max(axis=0) + emission
    tags = [int(np.argmax(best + end))]
    for step in reversed(steps):
        tags.append(int(step[tags[-1]]))
    return tags[::-1]


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{file}' cannot be read ({error}); give a LiteRT export.") from None
    if not isinstance(content, dict) or content.get("format") != "litert":
        raise InputError(f"'{folder}' is no LiteRT export; write one with format='litert'.")
    return content


def check_installed() -> None:
    """Raises `MissingDependencyError` where `ai-edge-litert` is not there, without loading it."""
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise MissingDependencyError("LiteRT files need a package: pip install ai-edge-litert")


def _interpreter(path: Path, num_threads: int | None):
    check_installed()
    from ai_edge_litert.interpreter import Interpreter

    if not path.is_file():
        raise InputError(f"There is no LiteRT file at '{path}'; export the model again.")
    with contextlib.suppress(AttributeError):  # Linux alone has it
        num_threads = num_threads or len(os.sched_getaffinity(0))
    try:
        return Interpreter(str(path), num_threads=num_threads or os.cpu_count())
    except (ValueError, RuntimeError) as error:
        raise InputError(f"'{path}' is damaged ({error}); export the model again.") from error


def _byte_pair(path: Path, about: dict[str, Any]):
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependencyError("Texts need a package: pip install tokenizers") from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare ones
        raise InputError(f"'{path}' cannot be read ({error}); export again.") from error
    tokenizer.encode_special_tokens = True  # no text ends a turn in another's name
    return lambda text: tokenizer.encode(text).ids


def _sentence_piece(path: Path, about: dict[str, Any]):
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise MissingDependencyError("Texts need a package: pip install sentencepiece") from error
    if about["user_tokens"]:
        raise InputError("This tokenizer has tokens outside its SentencePiece model; give ids.")
    processor: Any = SentencePieceProcessor()
    processor.Load(str(path))
    begin = [about["bos_id"]] if about["add_bos"] else []
    end = [about["eos_id"]] if about["add_eos"] else []
    return lambda text: [*begin, *processor.EncodeAsIds(text), *end]


# kind of tokenizer -> what gives a function from text to ids
_TOKENIZERS = {"byte_pair": _byte_pair, "sentence_piece": _sentence_piece}
