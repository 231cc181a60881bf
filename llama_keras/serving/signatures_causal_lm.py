"""What a `CausalLM` answers to when it is served: the decoding loop is part of the graph.

Axes: B prompts, N new tokens of the longest answer, S stop strings, T tokens, V vocabulary, K
likeliest tokens.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from llama_keras.models.sampling import SamplingSettings
from llama_keras.serving.decoding import SETTINGS, Decoder, Prompts, left_padded, start_id
from llama_keras.serving.decoding_steps import SharedBackbone
from llama_keras.serving.scores import encode_pairs, log_likelihoods
from llama_keras.serving.signature_parts import TOKEN_FEATURES, Signatures
from llama_keras.serving.stepwise import first_step, more_steps, state_specs
from llama_keras.serving.token_scores import next_token_scores
from llama_keras.serving.vocabulary_signatures import vocabulary_settings, vocabulary_signatures
from llama_keras.tasks.completion import check_stop
from llama_keras.tasks.engines import default_jit


def causal_lm_signatures(
    model, *, stop: str | Sequence[str] = (), jit_compile: bool | None = None, **defaults
) -> Signatures:
    """Gives `serving_default`, `generate`, `generate_ids`, `score`, `tokens`, and more for chats.

    Inputs and outputs, all with B first:
        `serving_default`: `prompt` string `(B,)` → `text` and `finish_reason` ("stop" or "length")
        string `(B,)`, `log_probability` float32 `(B,)` (sum over the answer's tokens, in nats),
        `num_prompt_tokens` int32 `(B,)`, `token_ids` int32 `(B, N)` (-1 after an answer's end);
        see `tasks.completion.Generation`.
        `generate`: `prompt`, and of each prompt its settings: `max_new_tokens` and `top_k` int32,
        `temperature` and `top_p` float32, `seed` int64 `(B,)`, `stop` string `(B, S)` ("" is none)
        → as above. Special tokens in a prompt are plain text.
        `generate_ids`: `token_ids` and `padding_mask` int32 `(B, T)` instead of the prompt, for
        conversations: the ids of `Tokenizer.encode_chat`, in which no message can forge a turn.
        `score`: `context`, `continuation` string `(B,)` → `log_probability` float32 `(B,)`,
        `is_greedy` bool `(B,)`; see `CausalLM.loglikelihood`.
        `tokens`: `token_ids`, `padding_mask` int32 `(B, T)` → `logits` float32 `(B, T, V)`.
        `token_scores`: the same → how likely each next token is, see `token_scores`.
        `prefill`, `decode`: an answer a few tokens at a time. `prefill` takes what `generate_ids`
        takes but for `stop`, and gives `token_ids` int32 and `log_probability` float32 `(B, N)` (N
        is 1; the token that ends an answer is among them, -1 comes after it), `num_prompt_tokens`,
        and the state, see `stepwise.state_specs`; `decode` takes state, settings and `steps` int32
        `(B,)`, and gives the next tokens and the new state, until `done`.
        `tokenize`, `vocabulary`: see `vocabulary_signatures`.
    What `CausalLM.generate` and `loglikelihood` refuse fails the request with the same reason.

    Args:
        model: a `CausalLM`.
        stop: stop strings of `serving_default`.
        jit_compile: have XLA compile the decoding steps: twice as fast for one row, but the first
            request of each (rounded) number of rows and of tokens waits for the compiler, some
            seconds. `None` does so where `CausalLM.generate` does, for float32.
        **defaults: its `max_new_tokens`, `temperature`, `top_k`, `top_p`, `seed`.

    Raises:
        InputError: a setting is out of range.
    """
    backbone, tokenizer = model.backbone, model.tokenizer
    chosen = {name: getattr(SamplingSettings(**defaults), name) for name in SETTINGS}
    stops, start = check_stop(stop), start_id(tokenizer)
    jit_compile = default_jit(backbone) if jit_compile is None else jit_compile
    decoder = Decoder(backbone, tokenizer, jit_compile=jit_compile)
    shared = SharedBackbone(backbone)
    prompt = tf.TensorSpec([None], tf.string, name="prompt")
    settings = [tf.TensorSpec([None], dtype, name=n) for n, (dtype, *_) in SETTINGS.items()]
    settings.append(tf.TensorSpec([None, None], tf.string, name="stop"))

    # One function that three others call; what it calls is traced once, too: `decoding_steps`.
    @tf.function(input_signature=[TOKEN_FEATURES[0], tf.TensorSpec([None], tf.int32), *settings])
    def run(token_ids, padding, *values):
        return decoder.run(Prompts(token_ids, padding), _named(settings, values))

    @tf.function(input_signature=[prompt, *settings])
    def generate(prompt, *values):
        return run(*left_padded(tokenizer.graph.tokenize(prompt), start=start), *values)

    @tf.function(input_signature=[*TOKEN_FEATURES, *settings])
    def generate_ids(token_ids, padding_mask, *values):
        rows = tf.ragged.boolean_mask(token_ids, padding_mask != 0)
        return run(*left_padded(rows, start=start), *values)

    @tf.function(input_signature=TOKEN_FEATURES)
    def tokens(token_ids, padding_mask):
        hidden = shared({"token_ids": token_ids, "padding_mask": padding_mask})
        logits = backbone.token_embedding(hidden, reverse=True)
        return {"logits": tf.cast(logits, tf.float32)}

    state = state_specs(backbone)
    sampling = settings[:-1]  # without the stop strings, which are the caller's here

    @tf.function(input_signature=[*TOKEN_FEATURES, *sampling])
    def prefill(token_ids, padding_mask, *values):
        rows = tf.ragged.boolean_mask(token_ids, padding_mask != 0)
        return first_step(decoder, left_padded(rows, start=start), _named(sampling, values))

    steps = tf.TensorSpec([None], tf.int32, name="steps")

    @tf.function(input_signature=[*state, *sampling, steps])
    def decode(*values):
        named = _named([*state, *sampling, steps], values)
        return more_steps(decoder, named, named, named["steps"])

    @tf.function(input_signature=TOKEN_FEATURES)
    def token_scores(token_ids, padding_mask):
        return next_token_scores(shared, token_ids, padding_mask)

    @tf.function(input_signature=[prompt])
    def answer(prompt):
        rows = tf.size(prompt)
        values = [tf.fill([rows], tf.constant(v, SETTINGS[n][0])) for n, v in chosen.items()]
        strings = tf.tile(tf.constant([stops], tf.string, [1, len(stops)]), [rows, 1])
        return generate(prompt, *values, strings)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, n) for n in _PAIR])
    def score(context, continuation):
        return log_likelihoods(shared, *encode_pairs(tokenizer, context, continuation))

    return Signatures(
        task="causal_lm",
        functions={
            "serving_default": answer,
            "generate": generate,
            "generate_ids": generate_ids,
            "score": score,
            "tokens": tokens,
            "token_scores": token_scores,
            "prefill": prefill,
            "decode": decode,
            **vocabulary_signatures(tokenizer),
        },
        trackables={"tokenizer": tokenizer.graph},
        labels=(),
        example_text={"prompt": "The capital of France is"},
        settings={
            "defaults": {**chosen, "stop": list(stops)},
            "jit_compile": jit_compile,
            "chat_template": tokenizer.chat_template,
            "context_length": backbone.config.max_sequence_length,
            "vocabulary": vocabulary_settings(tokenizer, start=start),
        },
    )


_PAIR = ("context", "continuation")


def _named(specs: Sequence[tf.TensorSpec], values) -> Mapping[str, tf.Tensor]:
    return dict(zip((str(spec.name) for spec in specs), values, strict=True))
