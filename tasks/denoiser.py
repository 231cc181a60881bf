"""`Denoiser`: corrupted text in, the clean text that it may have been out.

Axes: N texts, B batch, T tokens.
"""

import logging
from functools import partial

import keras

from llama_keras.errors import InputError
from llama_keras.models import generation
from llama_keras.models.sampling import SamplingSettings
from llama_keras.tasks.compiled import Compiled
from llama_keras.tasks.mask_tokens import encode_masked
from llama_keras.tasks.pretraining import Pretraining
from llama_keras.tasks.text_data import as_texts_and_labels, is_raw_text

logger = logging.getLogger("llama_keras")


@keras.saving.register_keras_serializable(package="llama_keras")
class Denoiser(Pretraining):
    """The denoising autoencoder: learns to write a text anew from a corrupted one.

    Deletion moves the tokens behind it, so corrupted and clean text have no places in common. The
    corrupted text is therefore a prefix whose tokens see each other both ways, and the clean text
    is written after it, token by token; the loss counts every clean token and the end. Arguments:
    see `Pretraining`; the corruption is random deletion by default.

    Example:
    ```python
    model = Denoiser.from_preset("llama-tiny", corruption={"name": "random_deletion", "rate": 0.1})
    model.fit(["Rain falls in May.", "Snow falls in winter."], epochs=1, verbose=0)
    print(model.predict("Rain fals in May.", max_new_tokens=8)[0])  # text and finish_reason
    ```
    """

    default_objective = "denoising"
    layouts = ("prefix",)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._generator = None  # made by the first `predict`

    def predict(
        self,
        x,
        *,
        max_new_tokens: int | None = None,
        batch_size: int = 32,
        verbose="auto",
        **kwargs,
    ):
        """Gives the likeliest clean text, token by token.

        Args:
            x: one string or N, of which nothing is corrupted any further; `<mask>` stands for a
                hidden token, or for a hidden span where the corruption hides spans. Or token
                features, as Keras takes them.
            max_new_tokens: at most so many; by default what the model's context has room for.
            batch_size: texts in a batch, at most 32.
            verbose: of `keras.Model.predict`, for token features.
            **kwargs: of `keras.Model.predict`, for token features.

        Returns:
            For raw text N dicts: `text` and `finish_reason` (`"stop"` at the end of the text,
            `"length"`). For token features logits `(N, T, V)`.

        Raises:
            InputError: a setting is out of range.
        """
        if not is_raw_text(x):
            return super().predict(x, batch_size=batch_size, verbose=verbose, **kwargs)
        if kwargs:
            raise InputError(f"predict takes no {sorted(kwargs)} for raw text.")
        prompts = self._prompts(as_texts_and_labels(x, None)[0])
        answers = [{"text": "", "finish_reason": "stop"} for _ in prompts]
        # An empty text has nothing to be reconstructed from.
        order = [at for at in range(len(prompts)) if len(prompts[at]) > 1]
        order.sort(key=lambda at: len(prompts[at]))
        size = min(batch_size, generation.MAX_ROWS)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            found = self._write([prompts[at] for at in batch], max_new_tokens)
            for at, answer in zip(batch, found, strict=True):
                answers[at] = answer
        return answers

    def _prompts(self, texts) -> list[list[int]]:
        tokens, limit = self.mask_tokens, self.row_limit
        rows = encode_masked(
            self.tokenizer,
            texts,
            mask_id=tokens.mask_id,
            cleaning=self.cleaning,
            add_bos=False,
        )
        if cut := sum(len(row) > limit for row in rows):
            logger.warning("%d of %d texts were cut to %d tokens", cut, len(rows), limit)
        return [[*self._with_sentinels(row[:limit]), tokens.separator_id] for row in rows]

    def _with_sentinels(self, row: list[int]) -> list[int]:
        left, mask_id = iter(self.sentinel_ids), self.mask_tokens.mask_id
        return [next(left, id_) if id_ == mask_id else id_ for id_ in row]

    def _write(self, prompts, max_new_tokens: int | None) -> list[dict]:
        room = [self.max_sequence_length - len(prompt) for prompt in prompts]
        most = [n if max_new_tokens is None else min(n, max_new_tokens) for n in room]
        settings = [SamplingSettings(max_new_tokens=n) for n in most]
        written: list[list[int]] = [[] for _ in prompts]
        end_id = self.mask_tokens.end_id
        for chunk in self._get_generator().run(prompts, settings=settings, end_ids=[end_id]):
            for row, new in zip(written, chunk.token_ids, strict=True):
                row += [int(id_) for id_ in new if id_ >= 0]
        return [
            {
                "text": self.tokenizer.decode(row, skip_special_tokens=True),
                "finish_reason": "stop" if row[-1:] == [end_id] else "length",
            }
            for row in written
        ]

    def _get_generator(self):
        if self._generator is None:
            backbone = self.backbone
            steps = {
                "prefill": partial(generation.prefill, backbone, both_ways=True),
                "decode": partial(generation.decode, backbone),
            }
            compiled = {
                name: Compiled(step, variables=backbone.variables) for name, step in steps.items()
            }
            self._generator = generation.Generator(backbone, **compiled)
        return self._generator
