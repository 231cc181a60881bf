"""What a `CausalLM` runs on: the functions of `models`, compiled, or a LiteRT file."""

import dataclasses
import zlib
from collections.abc import Callable
from functools import partial
from typing import Literal

import keras
from keras import ops

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone, generation, scoring
from llama_keras.tasks.compiled import Compiled

EngineName = Literal["keras", "litert", "litert_float32"]


@dataclasses.dataclass(frozen=True)
class Engine:
    """Functions of `models.generation` and `models.scoring`, ready to run."""

    prefill: Callable
    decode: Callable
    hidden_at: Callable
    score_tokens: Callable
    generator: generation.Generator


def default_jit(backbone: LlamaBackbone) -> bool:
    """Gives whether XLA should compile decoding: yes for float32.

    XLA's CPU code for bfloat16 and integer matrices is many times slower than TensorFlow's.
    """
    return backbone.compute_dtype == "float32"


def keras_engine(backbone: LlamaBackbone, *, jit_generate: bool | None = None) -> Engine:
    """Gives a backbone's functions, compiled; nothing is traced before it is called.

    Args:
        backbone: a causal `LlamaBackbone`.
        jit_generate: see `CausalLM`.
    """
    jit = default_jit(backbone) if jit_generate is None else jit_generate
    return _engine(backbone, decode=_compiled(generation.decode, backbone, jit_compile=jit))


def litert_engine(
    backbone: LlamaBackbone, *, quantization: Literal["int8", "none"] = "int8"
) -> Engine:
    """Gives an engine that decodes with LiteRT; prompts and scores go through Keras as ever.

    Args:
        backbone: a causal `LlamaBackbone`.
        quantization: see `serving.litert.convert_decoder`.

    Raises:
        InputError: the backbone cannot be converted.
        MissingDependencyError: `ai-edge-litert` is not installed.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "A LiteRT file is written from the TensorFlow backend; Keras runs on "
            f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow, or take engine='keras'."
        )
    from llama_keras.models.litert import LiteRTDecoder, draw, embedding_rows
    from llama_keras.serving.litert import cached_decoder

    decoder = LiteRTDecoder(
        cached_decoder(backbone, quantization=quantization),
        embed=embedding_rows(backbone),
        choose=Compiled(draw, jit_compile=True),
    )
    return _engine(backbone, decode=decoder.decode)


def _engine(backbone: LlamaBackbone, *, decode: Callable) -> Engine:
    # XLA would compile for seconds and gain nothing where whole texts are multiplied.
    prefill = _compiled(generation.prefill, backbone)
    return Engine(
        prefill=prefill,
        decode=decode,
        hidden_at=_compiled(scoring.hidden_at, backbone),
        score_tokens=_compiled(scoring.score_tokens, backbone),
        generator=generation.Generator(backbone, prefill=prefill, decode=decode),
    )


def _compiled(function, backbone: LlamaBackbone, *, jit_compile: bool = False) -> Compiled:
    return Compiled(
        partial(function, backbone), variables=backbone.variables, jit_compile=jit_compile
    )


class Engines:
    """The engines of one backbone, each made when first asked for, and anew when it must be.

    LoRA and quantization replace variables, and what was traced before would read the old ones. A
    LiteRT file holds copies of the weights: it is made again when they have changed.
    """

    def __init__(self, backbone: LlamaBackbone, *, jit_generate: bool | None):
        self._backbone = backbone
        self._makers: dict[str, Callable[..., Engine]] = {
            "keras": partial(keras_engine, jit_generate=jit_generate),
            "litert": partial(litert_engine, quantization="int8"),
            "litert_float32": partial(litert_engine, quantization="none"),
        }
        self._made: dict[str, tuple[tuple, Engine]] = {}
        self._samples: tuple[tuple, Compiled] | None = None

    def get(self, name: EngineName) -> Engine:
        """Gives the engine of a name.

        Raises:
            InputError: there is none of that name, or it cannot run this backbone.
        """
        if name not in self._makers:
            raise InputError(f"engine={name!r} is not known; expected one of {[*self._makers]}.")
        key = tuple(id(variable) for variable in self._backbone.variables)
        if name != "keras":
            key = (*key, self._checksum(key))
        made = self._made.get(name)
        if made is None or made[0] != key:
            self._made.pop(name, None)  # frees the old one before the new one is built
            made = self._made[name] = (key, self._makers[name](self._backbone))
        return made[1]

    def _checksum(self, key: tuple) -> int:
        if self._samples is None or self._samples[0] != key:
            self._samples = (key, _compiled(weight_samples, self._backbone))
        samples = self._samples[1]()
        return zlib.crc32(ops.convert_to_numpy(samples).tobytes())


def weight_samples(backbone: LlamaBackbone):
    """Gives float32 values that change when weights do: first row and column of each matrix.

    A whole model cannot be read before each text; an optimizer's step changes these.
    """
    parts = [part for v in backbone.weights for part in (v[:1], v[..., :1])]
    return ops.concatenate([ops.reshape(ops.cast(part, "float32"), (-1,)) for part in parts])
