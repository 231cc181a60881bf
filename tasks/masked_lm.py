"""`MaskedLM`: text with `<mask>` in, likely fillings out.

Axes: N texts, B batch, T tokens, M masks of a text, K fillings, E model width, V vocabulary.
"""

import keras
import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.tasks.mask_tokens import MASK_TEXT, encode_masked
from llama_keras.tasks.pretraining import Pretraining
from llama_keras.tasks.text_data import as_texts_and_labels, is_raw_text


@keras.saving.register_keras_serializable(package="llama_keras")
class MaskedLM(Pretraining):
    """Learns to fill in hidden tokens, and fills them in.

    The objective is `"masked"` (BERT) or, for causal checkpoints made bidirectional,
    `"masked_next_token"` (LLM2Vec). `<mask>` in a text stands for one token; `mask_tokens` tells
    which id it becomes. Arguments: see `Pretraining`.

    Example:
    ```python
    model = MaskedLM.from_preset("llama-tiny")
    model.fit(["Rain falls in May.", "Snow falls in winter."], epochs=1, verbose=0)
    answer = model.predict("Rain <mask> in May.", top_k=3)[0]
    print(answer["text"], answer["fills"][0])  # the likeliest text; token, token_id and score
    ```
    """

    default_objective = "masked"
    layouts = ("corrupted",)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._graphs = {}  # number of masks and of fillings -> what `predict` runs

    def predict(self, x, *, top_k: int = 5, batch_size: int = 32, verbose="auto", **kwargs):
        """Gives the likeliest tokens for each `<mask>`, each mask filled by itself.

        Args:
            x: one string or N, each with one `<mask>` or several; or token features, as Keras
                takes them.
            top_k: fillings of each mask; control tokens are never among them.
            batch_size: texts in a batch.
            verbose: 0 shows no progress bar.
            **kwargs: of `keras.Model.predict`, for token features.

        Returns:
            For raw text N dicts: `text`, with the likeliest filling of each mask, and `fills`, for
            each mask `top_k` dicts of `token` (its text), `token_id` and `score` (its probability
            among all tokens). For token features logits `(N, T, V)`.

        Raises:
            InputError: a text has no mask, or one where nothing can be predicted, or is too long.
        """
        if not is_raw_text(x):
            return super().predict(x, batch_size=batch_size, verbose=verbose, **kwargs)
        if kwargs:
            raise InputError(f"predict takes no {sorted(kwargs)} for raw text.")
        texts = as_texts_and_labels(x, None)[0]
        if not texts:
            return []
        rows, places = self._masked_rows(texts)
        scores, ids = self._fill(
            rows, masks=max(map(len, places)), top_k=top_k, batch_size=batch_size, verbose=verbose
        )
        return [
            self._answer(row, at, scores[number], ids[number].astype(int))
            for number, (row, at) in enumerate(zip(rows, places, strict=True))
        ]

    def _masked_rows(self, texts):
        """Gives ids, and where the masks are, for checked texts."""
        mask_id, limit = self.mask_tokens.mask_id, self.max_sequence_length
        rows = encode_masked(self.tokenizer, texts, mask_id=mask_id, cleaning=self.cleaning)
        places = [[at for at, id_ in enumerate(row) if id_ == mask_id] for row in rows]
        for number, (row, at) in enumerate(zip(rows, places, strict=True)):
            if not at:
                raise InputError(f"Text {number} has no {MASK_TEXT}; write it where to fill in.")
            if len(row) > limit:
                raise InputError(
                    f"Text {number} has {len(row)} tokens, the model takes {limit}; shorten it."
                )
            if at[0] < self.objective.shift:
                raise InputError(
                    f"Text {number} begins with {MASK_TEXT}, but {self.objective.name!r} predicts "
                    "a token from the one before it; put a word first."
                )
        return rows, places

    def _fill(self, rows, *, masks: int, top_k: int, batch_size: int, verbose):
        from llama_keras.data.bucketing import TokenRows
        from llama_keras.data.inference import graph_of, run_rows

        self.check_top_k(top_k)
        key = f"{masks} {top_k}"
        if key not in self._graphs:
            self._graphs[key] = graph_of(
                lambda features: self.fillings(features, masks=masks, top_k=top_k)
            )
        return run_rows(
            self._graphs[key],
            TokenRows(rows, self.tokenizer.pad_id),
            batch_size=batch_size,
            title="predict" if verbose else "",
        )

    def check_top_k(self, top_k: int) -> None:
        """Raises `InputError` unless a mask has so many fillings."""
        most = self.tokenizer.vocabulary_size - len(set(self.tokenizer.special_tokens.values()))
        if not isinstance(top_k, int) or not 0 < top_k <= most:
            raise InputError(f"top_k must be a number from 1 to {most}; received {top_k!r}.")

    def fillings(self, features, *, masks, top_k: int):
        """Gives the likeliest tokens at each mask; logits are computed there alone.

        Args:
            features: `token_ids` and `padding_mask`, int32 `(B, T)`.
            masks: M, those of the text that has most, an int or a scalar tensor.
            top_k: K.

        Returns:
            Probabilities float32 and ids int32, `(B, M, K)` each; those of a row with fewer masks
            end with some that mean nothing.
        """
        is_mask = features["token_ids"] == self.mask_tokens.mask_id
        is_mask = ops.logical_and(is_mask, ops.cast(features["padding_mask"], "bool"))
        rows, width = ops.shape(is_mask)
        steps = ops.arange(width, dtype="int32")
        # The places of masks first, in their order.
        order = ops.argsort(steps[None] + ops.where(is_mask, 0, width), axis=-1)
        places = ops.maximum(ops.cast(order[:, :masks], "int32") - self.objective.shift, 0)
        hidden = self.backbone(features, training=False)
        # Of all rows at once: `take_along_axis` does not take a batch of none.
        places += width * ops.arange(rows, dtype="int32")[:, None]
        hidden = ops.take(ops.reshape(hidden, (-1, hidden.shape[-1])), places, axis=0)  # (B, M, E)
        logits = ops.cast(self.backbone.token_embedding(hidden, reverse=True), "float32")
        total = ops.logsumexp(logits, axis=-1, keepdims=True)
        found, ids = ops.top_k(ops.where(self._may_fill(), logits, -1e30), top_k)
        return ops.exp(found - total), ops.cast(ids, "int32")

    def _may_fill(self) -> np.ndarray:
        allowed = np.zeros(self.backbone.config.vocabulary_size, bool)
        allowed[: self.tokenizer.vocabulary_size] = True
        allowed[[*self.tokenizer.special_tokens.values(), self.mask_tokens.mask_id]] = False
        return allowed

    def _answer(self, row, places, scores, ids) -> dict:
        filled = list(row)
        fills = []
        for number, place in enumerate(places):
            filled[place] = int(ids[number, 0])
            fills.append(
                [
                    {"token": self.tokenizer.decode([id_]), "token_id": int(id_), "score": float(p)}
                    for id_, p in zip(ids[number], scores[number], strict=True)
                ]
            )
        text = self.tokenizer.decode(filled, skip_special_tokens=True)
        return {"text": text, "fills": fills}
