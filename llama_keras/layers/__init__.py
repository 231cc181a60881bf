"""Layers that also stand alone in anybody's functional Keras model."""

from llama_keras.layers.attention import LlamaAttention
from llama_keras.layers.attention_kernels import DotProduct, GaussianKernel
from llama_keras.layers.crf import LinearChainCRF
from llama_keras.layers.feed_forward import MLP, SwiGLU
from llama_keras.layers.masking import AttentionBias, TokenPositions
from llama_keras.layers.pooling import Pooling
from llama_keras.layers.projection import Projection
from llama_keras.layers.rotary import RotaryEmbedding
from llama_keras.layers.transformer_block import TransformerBlock

__all__ = [
    "MLP",
    "AttentionBias",
    "DotProduct",
    "GaussianKernel",
    "LinearChainCRF",
    "LlamaAttention",
    "Pooling",
    "Projection",
    "RotaryEmbedding",
    "SwiGLU",
    "TokenPositions",
    "TransformerBlock",
]
