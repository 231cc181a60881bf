"""Two texts as one row of tokens, made in the graph.

A row is `first, separator, second`, with the ids that begin and end a text around it where the
tokenizer has such a rule. The separator is a control token, which no text spells.

Axes: N pairs, T tokens of a row.
"""

import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.text.graph import valid_utf8
from llama_keras.text.offsets import clean_text

# Pairs that are tokenized at once.
_AT_ONCE = 1024


class PairTokenizer:
    """Makes rows of pairs of texts.

    A pair that is too long loses tokens one by one, each from the end of the longer text (of two
    equally long ones the second), as Hugging Face's `longest_first` and KerasHub's `round_robin`
    do. So a short question stays whole before a long passage.

    Args:
        tokenizer: a `text.Tokenizer` with an end-of-text token, which is the separator.
        limit: tokens of the longest row.

    Raises:
        InputError: there is no separator, or `limit` leaves no room for two texts.

    Example:
    ```python
    from llama_keras.text import Tokenizer

    tokenizer = Tokenizer.from_preset("llama-tiny")
    pairs = PairTokenizer(tokenizer, limit=6)
    rows, cut = pairs.encode(["why?"], ["because"])
    assert tokenizer.decode(rows[0], skip_special_tokens=True) == "whybe" and cut == 1
    ```
    """

    def __init__(self, tokenizer, *, limit: int):
        spec = tokenizer.spec
        if spec.eos_id is None:
            raise InputError("Pairs of texts need a tokenizer with an end-of-text token.")
        self._tokenizer = tokenizer
        self._around = ([spec.bos_id] * spec.add_bos, [spec.eos_id], [spec.eos_id] * spec.add_eos)
        self._room = limit - sum(map(len, self._around))
        if self._room < 2:
            raise InputError(
                f"max_sequence_length={limit} leaves no room for a pair of texts and what stands "
                f"around them; give at least {limit - self._room + 2}."
            )
        self._graph = None  # made with the first rows

    def __call__(self, first, second):
        """Gives rows inside a graph.

        Args:
            first: string `(N,)`.
            second: string `(N,)`.

        Returns:
            Ragged int32 `(N, None)`, and whether a pair was shortened, bool `(N,)`.
        """
        found = [
            self._tokenizer.graph.tokenize(valid_utf8(text), add_bos=False, add_eos=False)
            for text in (first, second)
        ]
        sizes = [tf.cast(part.row_lengths(), tf.int64) for part in found]
        half = (self._room + 1) // 2
        kept = [tf.minimum(sizes[0], tf.maximum(self._room - sizes[1], half))]
        kept.append(tf.minimum(sizes[1], self._room - kept[0]))
        parts = [_beginnings(part, count) for part, count in zip(found, kept, strict=True)]
        begin, separator, end = (_columns(ids, sizes[0]) for ids in self._around)
        rows = tf.concat([begin, parts[0], separator, parts[1], end], axis=1)
        return rows, sum(kept) < sum(sizes)

    def encode(self, first: list[str], second: list[str]) -> tuple[list[list[int]], int]:
        """Gives the rows of Python strings, and how many pairs were shortened."""
        if self._graph is None:
            self._graph = tf.function(self, input_signature=[tf.TensorSpec([None], tf.string)] * 2)
        rows, cut = [], 0
        for at in range(0, len(first), _AT_ONCE):
            part = slice(at, at + _AT_ONCE)
            texts = ([clean_text(text) for text in column[part]] for column in (first, second))
            ids, is_cut = self._graph(*texts)
            rows += ids.to_list()
            cut += int(tf.math.count_nonzero(is_cut))
        return rows, cut


def _beginnings(rows, counts):
    """Gives the first `counts` `(N,)` tokens of each of the ragged `rows` `(N, None)`."""
    starts = tf.cast(rows.row_starts(), tf.int64)
    return tf.gather(rows.values, tf.ragged.range(starts, starts + counts))


def _columns(ids: list[int], rows):
    """Gives `ids` once for each of the `rows` `(N,)`: int32 `(N, len(ids))`."""
    count = tf.size(rows)
    return tf.tile(tf.constant([ids], tf.int32, shape=[1, len(ids)]), [count, 1])
