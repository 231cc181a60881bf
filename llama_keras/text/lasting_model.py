"""TF-Text's SentencePiece op with a model that lasts: one seam to names that TF-Text hides.

TF-Text lets the op's kernel own the model. TensorFlow drops its kernels in `tf.random.set_seed`
(and so in `keras.utils.set_random_seed`), after which every tokenizer made before fails with "does
not exist". A model with a shared name belongs to the process instead; named by its content, equal
models are one.
"""

import hashlib
from typing import Any

import tensorflow as tf
from tensorflow_text.python.ops import sentencepiece_tokenizer as hidden


class _Model(hidden._SentencepieceModelResource):
    def _create_resource(self):
        name = "sentence_piece_" + hashlib.sha256(self._model).hexdigest()[:32]
        op = hidden.gen_sentencepiece_tokenizer.sentencepiece_op
        return op(model=self._model, shared_name=name)


class _Tokenizer(hidden.SentencepieceTokenizer):
    def __init__(self, model: bytes):
        # Not the direct base's constructor, which would make a model that does not last.
        super(hidden.SentencepieceTokenizer, self).__init__()
        self.nbest_size, self.alpha, self.out_type = 0, 1.0, tf.int32
        self.reverse = self.add_bos = self.add_eos = self.return_nbest = False
        self._model_resource = _Model(model, None)


def sentence_piece_op(model: bytes) -> Any:
    """Gives TF-Text's tokenizer for the bytes of a SentencePiece model, ids int32.

    Typed as Any: TF-Text's annotations name TensorFlow's inner classes.
    """
    return _Tokenizer(model)
