"""Text to token ids and back: tokenizers inside the TensorFlow graph, chat templates, streams.

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if TYPE_CHECKING:
    from llama_keras.text.chat import render_chat
    from llama_keras.text.engine import Encoding
    from llama_keras.text.spec import TokenizerSpec
    from llama_keras.text.streaming import StreamDecoder
    from llama_keras.text.tokenizer import Tokenizer

__all__ = ["Encoding", "StreamDecoder", "Tokenizer", "TokenizerSpec", "render_chat"]

_HOMES = {
    "Encoding": "engine",
    "StreamDecoder": "streaming",
    "Tokenizer": "tokenizer",
    "TokenizerSpec": "spec",
    "render_chat": "chat",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
