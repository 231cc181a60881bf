"""Text to token ids and back, cleaning before and noise after, all inside the TensorFlow graph.

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if TYPE_CHECKING:
    from llama_keras.text.chat import render_chat
    from llama_keras.text.cleaning import Cleaning, get_cleaning
    from llama_keras.text.corruption import (
        RandomDeletion,
        RandomMasking,
        SpanCorruption,
        get_corruption,
    )
    from llama_keras.text.corruption_rows import Corrupted, NoiseVocabulary
    from llama_keras.text.engine import Encoding
    from llama_keras.text.spec import TokenizerSpec
    from llama_keras.text.streaming import StreamDecoder
    from llama_keras.text.tokenizer import Tokenizer

__all__ = [
    "Cleaning",
    "Corrupted",
    "Encoding",
    "NoiseVocabulary",
    "RandomDeletion",
    "RandomMasking",
    "SpanCorruption",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerSpec",
    "get_cleaning",
    "get_corruption",
    "render_chat",
]

_HOMES = {
    "Cleaning": "cleaning",
    "Corrupted": "corruption_rows",
    "Encoding": "engine",
    "NoiseVocabulary": "corruption_rows",
    "RandomDeletion": "corruption",
    "RandomMasking": "corruption",
    "SpanCorruption": "corruption",
    "StreamDecoder": "streaming",
    "Tokenizer": "tokenizer",
    "TokenizerSpec": "spec",
    "get_cleaning": "cleaning",
    "get_corruption": "corruption",
    "render_chat": "chat",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
