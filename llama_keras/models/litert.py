"""Decoding through LiteRT: the step of one row as a file of CPU kernels, the cache in its inputs.

TensorFlow multiplies one row of float32 by a matrix at the speed of memory; LiteRT (XNNPACK) does
it with int8 weights, a quarter of the bytes. `serving.litert` writes the file; here it is run, with
the same contract as `models.generation.decode`, and nothing of TensorFlow is needed.

The file's inputs are `hidden` `(1, 1, E)`, `index` and `padding` `()`, and for each layer `key_0`,
`value_0` … `(1, K, S, D)` with any S. Its outputs are `logits` `(1, V)` and `rows`
`(2 L, K, D)`: the new key and value of each layer, which go to slot `index` of the inputs.

Axes: B batch, L layers, K key-value heads, S cache length, D head size, N new tokens of a chunk.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from keras import ops

from llama_keras.errors import InputError, MissingDependencyError
from llama_keras.models.generation import CHUNK
from llama_keras.models.sampling import choose
from llama_keras.serving.litert_step import LiteRTStep

# Those of `SamplingSettings` that say how a token is drawn.
SAMPLERS = ("temperature", "top_k", "top_p", "seed")


def draw(logits, step, settings):
    """Gives a token of logits float32 `(1, V)` and its log-probability; see `sampling.choose`."""
    return choose(logits, step=step, **settings)


class HostCache:
    """Keys and values of all rows in NumPy: what the interpreter's inputs are filled from.

    Args:
        cache: for each layer keys and values `(B, K, S, D)`, tensors of any backend.
    """

    def __init__(self, cache):
        pairs = [ops.convert_to_numpy(ops.cast(x, "float32")) for pair in cache for x in pair]
        self.entries = np.stack(pairs)  # (2 L, B, K, S, D): key 0, value 0, key 1, …


class LiteRTDecoder:
    """Runs a decoding file; rows go one after the other.

    Several texts may be decoded in turns: each brings its own cache, and the interpreter is filled
    anew where another one was last. Calls from several threads wait for each other.

    Args:
        path: the `.tflite` file.
        embed: gives the vector float32 `(E,)` of a token; `token_id` for a file that embeds by
            itself, as `serving.litert_export` writes it.
        choose: `draw`, compiled or not.
        num_threads: of the interpreter; `None` takes OMP_NUM_THREADS, or one for each core.

    Raises:
        InputError: the file is missing or no decoding step.
        MissingDependencyError: `ai-edge-litert` is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        embed: Callable[[int], np.ndarray],
        choose: Callable = draw,
        num_threads: int | None = None,
    ):
        self._embed, self._choose = embed, choose
        self._step = LiteRTStep(_interpreter(Path(path), num_threads), Path(path))
        self._filled: tuple[HostCache | None, int] = (None, -1)  # whose row the inputs hold
        self._lock = threading.Lock()

    def decode(self, state, settings, end_ids, stopped, *, chunk: int = CHUNK):
        """Continues all rows by up to `chunk` tokens; see `generation.decode`.

        The cache in the state that comes back is a `HostCache`, which later calls change in place.
        """
        cache = state["cache"]
        cache = cache if isinstance(cache, HostCache) else HostCache(cache)
        token, done, padding = (_array(state[name]) for name in ("token", "done", "padding"))
        token, done = token.copy(), np.logical_or(done, _array(stopped))
        index, step = int(_array(state["index"])), int(_array(state["step"]))
        tokens = np.full((len(token), chunk), -1, "int32")
        log_probabilities = np.zeros((len(token), chunk), "float32")
        ends = set(_array(end_ids).tolist())
        with self._lock:
            for row in np.flatnonzero(~done).tolist():
                self._fill(cache, row)
                choose = self._chooser(settings, row)
                last = int(_array(settings["max_new_tokens"])[row])
                for place in range(chunk):
                    logits = self._advance(cache, row, token[row], index + place, padding[row])
                    token[row], log_probabilities[row, place] = choose(logits, step + place)
                    tokens[row, place] = token[row]
                    done[row] = int(token[row]) in ends or step + place + 1 >= last
                    if done[row]:
                        break
        state = {
            "cache": cache,
            "padding": padding,
            "token": token,
            "done": done,
            "index": index + chunk,
            "step": step + chunk,
        }
        return state, tokens, log_probabilities

    def _chooser(self, settings, row: int) -> Callable:
        own = {name: settings[name][row : row + 1] for name in SAMPLERS}
        if float(_array(own["temperature"])[0]) == 0.0:
            return lambda logits, step: greedy(logits[0])

        def choose(logits, step):
            step = ops.convert_to_tensor(np.int32(step))
            chosen = self._choose(ops.convert_to_tensor(logits), step, own)
            return [_array(x)[0] for x in chosen]

        return choose

    def _fill(self, cache: HostCache, row: int) -> None:
        if self._filled[0] is cache and self._filled[1] == row:
            return
        self._filled = (None, -1)
        self._step.fill(cache.entries[:, row])
        self._filled = (cache, row)

    def _advance(self, cache: HostCache, row: int, token: int, index: int, padding: int):
        """Runs one step, keeps its key and value, and gives the logits `(1, V)`."""
        vector = self._embed(int(token))
        logits, rows = self._step.advance(vector, index=index, padding=padding)
        cache.entries[:, row, :, index] = rows
        return logits


def greedy(logits: np.ndarray) -> tuple[int, float]:
    """Gives the likeliest token of logits float32 `(V,)` and its log-probability.

    Ten times as fast as a call of a compiled function, where one is made for each token.
    """
    best = int(np.argmax(logits))
    return best, -float(np.log(np.exp(logits - logits[best]).sum()))


def token_id(token: int) -> np.ndarray:
    """Gives a token as a file takes it that has the table of embeddings itself."""
    return np.asarray(token, "int32")


def embedding_rows(backbone) -> Callable[[int], np.ndarray]:
    """Gives a function from a token id to its float32 vector `(E,)`."""
    table = ops.convert_to_numpy(ops.convert_to_tensor(backbone.token_embedding.embeddings))
    return lambda token_id: table[token_id].astype("float32")


def _array(value) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else np.asarray(ops.convert_to_numpy(value))


def _interpreter(path: Path, num_threads: int | None):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingDependencyError(
            "Decoding with LiteRT needs a package: pip install ai-edge-litert"
        ) from error
    if not path.is_file():
        raise InputError(f"There is no LiteRT file at '{path}'.")
    try:
        return Interpreter(str(path), num_threads=num_threads or _cores())
    except (ValueError, RuntimeError) as error:
        raise InputError(f"'{path}' is no LiteRT file: {error}. Remove or replace it.") from error


def _cores() -> int:
    if (wanted := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        return max(1, int(wanted))
    free = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(free(0)) if free else os.cpu_count() or 1
