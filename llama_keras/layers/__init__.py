"""Layers that also stand alone in anybody's functional Keras model."""

from llama_keras.layers.attention import LlamaAttention
from llama_keras.layers.feed_forward import SwiGLU
from llama_keras.layers.masking import AttentionBias, TokenPositions
from llama_keras.layers.pooling import Pooling
from llama_keras.layers.rotary import RotaryEmbedding
from llama_keras.layers.transformer_block import TransformerBlock

__all__ = [
    "AttentionBias",
    "LlamaAttention",
    "Pooling",
    "RotaryEmbedding",
    "SwiGLU",
    "TokenPositions",
    "TransformerBlock",
]
