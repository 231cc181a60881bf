"""Run with KERAS_BACKEND=jax: what XLA says of training steps, compiled but not run.

    KERAS_BACKEND=jax python -m tests.planning.xla_worker < CASES.json

Standard input holds a list of cases, each an object: `shape`, arguments of LlamaBackbone;
`batch`, `length`; optional `chunk` (tokens whose logits exist together), `remat`, `lora_rank`.
Standard output gets a list of objects: `flops`, and bytes as `arguments`, `temporary`.
"""

import json
import sys

import jax
import jax.numpy as jnp
import keras

from llama_keras.models import LlamaBackbone
from llama_keras.objectives.cross_entropy import chunked_cross_entropy, head_kernel
from llama_keras.training.fine_tuning import Lora


def checkpointed(call):
    """Gives `call` with its activations computed anew in the backward pass."""

    def checkpointed_call(hidden, training=None, **context):
        run = jax.checkpoint(lambda hidden, context: call(hidden, training=training, **context))
        return run(hidden, {name: x for name, x in context.items() if x is not None})

    return checkpointed_call


class Step:
    """An AdamW step of a causal language model, as a pure function."""

    def __init__(self, shape, *, chunk=None, remat=False, lora_rank=None):
        self.model, self.chunk = LlamaBackbone(**shape), chunk
        if remat:
            for block in self.model.transformer_layers:
                block.call = checkpointed(block.call)
        if lora_rank:
            self.model.enable_lora(lora_rank, target_layer_names=list(Lora().targets))
            self.model.token_embedding.trainable = self.model.layer_norm.trainable = False
            for block in self.model.transformer_layers:
                block.attention_norm.trainable = block.feed_forward_norm.trainable = False
        self.learned = self.model.trainable_variables
        self.fixed = self.model.non_trainable_variables
        self.optimizer = keras.optimizers.AdamW(1e-3)
        self.optimizer.build(self.learned)

    def loss(self, learned, fixed, ids, targets):
        given = [*zip(self.learned, learned, strict=True), *zip(self.fixed, fixed, strict=True)]
        with keras.StatelessScope(state_mapping=given):
            rows = {"token_ids": ids, "padding_mask": jnp.ones_like(ids)}
            hidden, head = self.model(rows, training=True), self.model.token_embedding
            if self.chunk:
                kernel = head_kernel(head)
                return chunked_cross_entropy(hidden, kernel, targets=targets, chunk=self.chunk)
            logits = head(hidden, reverse=True).astype("float32")
        chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return jnp.mean(jax.nn.logsumexp(logits, -1) - chosen)

    def __call__(self, learned, state, fixed, ids, targets):
        loss, gradients = jax.value_and_grad(self.loss)(learned, fixed, ids, targets)
        return loss, *self.optimizer.stateless_apply(state, gradients, learned)


def measure(shape, *, batch, length, **settings):
    step = Step(shape, **settings)
    values = [
        [variable.value for variable in group]
        for group in (step.learned, step.optimizer.variables, step.fixed)
    ]
    ids = jax.ShapeDtypeStruct((batch, length), "int32")
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*values, ids, ids).compile()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    assert memory is not None and cost is not None
    return {
        "flops": cost["flops"],
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
    }


if __name__ == "__main__":
    assert keras.backend.backend() == "jax"
    print(json.dumps([measure(case.pop("shape"), **case) for case in json.load(sys.stdin)]))
