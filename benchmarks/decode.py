"""Decoding: one text, greedy, 64 new tokens after a prompt of 16; compiling is left out.

Ours is `CausalLM.generate` on the real checkpoint, from string to string. KerasHub and Hugging Face
have random weights of the same shape and get ids: their time does not depend on the values.
llama.cpp runs the checkpoint's 4-bit file and stands beside, as does Hugging Face: the aim is set
against KerasHub. LiteRT's int8 weights and llama.cpp's 4-bit ones give other texts than float32.
"""

from itertools import islice
from typing import Any

import numpy as np

from benchmarks import smollm2
from benchmarks.suite import THREADS, Claim, Library, Runs, Suite, limit_tensorflow, limit_torch

PROMPT = "The first people who settled in the valley came over the mountains in spring and"
NEW = 64
NAME = f"decode 1 × {NEW}"


def _runs(runs, **kwargs) -> Runs:
    return Runs(runs={NAME: runs}, amounts={NAME: NEW}, **kwargs)


def ours(options: dict[str, Any]) -> Runs:
    """Builds our runs; tells the others the prompt's ids and the checkpoint's file."""
    limit_tensorflow()
    from llama_keras.tasks import CausalLM
    from llama_keras.weights.presets import resolve

    first = CausalLM.from_preset(smollm2.PRESET)

    def make(engine):
        def run():
            made = first.generate(PROMPT, max_new_tokens=NEW, engine=engine)
            if len(made.token_ids) != NEW:
                raise RuntimeError(f"the text ended after {len(made.token_ids)} tokens")

        return run

    return _runs(
        {"float32 XLA": make("keras"), "LiteRT int8": make("litert")},
        handover={
            "prompt": first.tokenizer.encode(PROMPT),
            "gguf": str(resolve(smollm2.PRESET).path),
        },
    )


def keras_hub(options: dict[str, Any]) -> Runs:
    """Builds KerasHub's runs."""
    limit_tensorflow()
    from keras_hub.models import LlamaCausalLM

    prompt = options["prompt"]
    length = len(prompt) + NEW
    token_ids = np.zeros((1, length), "int32")
    token_ids[0, : len(prompt)] = prompt
    inputs = {"token_ids": token_ids, "padding_mask": np.arange(length)[None] < len(prompt)}

    def make(dtype, jit_compile):
        model = LlamaCausalLM(smollm2.keras_hub_backbone(dtype), preprocessor=None)
        model.compile(sampler="greedy", jit_compile=jit_compile)
        return lambda: model.generate(dict(inputs), stop_token_ids=None)

    return _runs({"float32 XLA": make("float32", True), "bfloat16": make("bfloat16", False)})


def hugging_face(options: dict[str, Any]) -> Runs:
    """Builds the run of Hugging Face's torch model."""
    import torch

    limit_torch()
    model = smollm2.hugging_face_model("bfloat16", head=True)
    inputs = torch.tensor([options["prompt"]])
    mask = torch.ones_like(inputs)

    def run():
        made = model.generate(
            inputs, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0
        )
        assert made.shape[1] == inputs.shape[1] + NEW

    return _runs({"bfloat16": run})


def llama_cpp(options: dict[str, Any]) -> Runs:
    """Builds llama.cpp's run."""
    from llama_cpp import Llama

    model = Llama(
        options["gguf"], n_ctx=256, n_threads=THREADS, n_threads_batch=THREADS, verbose=False
    )

    def run():
        model.reset()  # else the prompt's cache is used again
        made = list(islice(model.generate(options["prompt"], temp=0.0), NEW))
        assert len(made) == NEW

    return _runs({"Q4_1": run})


SUITE = Suite(
    claims=(Claim(NAME, "tokens", aim=2.0, peers=("keras_hub",)),),
    libraries={
        "llama_keras": Library(ours),
        "keras_hub": Library(keras_hub),
        "hugging_face": Library(hugging_face, python="peer"),
        "llama_cpp": Library(llama_cpp, python="peer"),
    },
)
