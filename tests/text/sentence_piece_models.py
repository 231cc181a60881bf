"""Small SentencePiece models, trained on the spot."""

import io
import json

import sentencepiece

from llama_keras.text import TokenizerSpec
from llama_keras.text import sentence_piece_proto as sp

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "A tokenizer cuts text into pieces, and joins the pieces into text.",
    "今天天气很好，我们去公园吧。",
    "Bücher, Bäume und 1234 Äpfel.",
]


def train(repository, **options) -> bytes:
    files = sorted((repository / "llama_keras" / "data" / "sentiment").glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    lines = [row["text"] for row in rows]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3 + lines),
        model_writer=model,
        vocab_size=1800,
        hard_vocab_limit=False,
        num_threads=2,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def spec_of(data: bytes, **changes) -> TokenizerSpec:
    model = sp.read_model(data)
    special = {
        piece.text: id_ for id_, piece in enumerate(model.pieces) if piece.kind == sp.CONTROL
    }
    values = {
        "kind": "sentence_piece",
        "tokens": tuple(piece.text for piece in model.pieces),
        "sentence_piece": data,
        "special_tokens": special,
        "bos_id": model.bos_id,
        "eos_id": model.eos_id,
        "add_bos": True,
    }
    return TokenizerSpec(**{**values, **changes})


# As Llama 1 and 2; as a Gemma; and a unigram model with its own normalization.
KINDS = {
    "llama": {
        "model_type": "bpe",
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
    "no_prefix": {
        "model_type": "bpe",
        "byte_fallback": True,
        "add_dummy_prefix": False,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "user_defined_symbols": ["<tool>"],
    },
    "unigram": {"model_type": "unigram", "byte_fallback": False},
}
