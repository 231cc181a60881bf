import keras
import numpy as np
import pytest
import tensorflow as tf

from llama_keras.models import LlamaBackbone, generation
from llama_keras.models.sampling import SamplingSettings
from llama_keras.serving.decoding import Prompts, with_rows
from llama_keras.serving.layerwise import LayerwiseBackbone

ENDS = np.array([-2], "int32")


def backbone(num_layers, **settings):
    keras.utils.set_random_seed(1)
    sizes = {"num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 16}
    return LlamaBackbone(
        vocabulary_size=50, num_layers=num_layers, intermediate_dim=24, **sizes, **settings
    )


def decoded(model, run_on, **given):
    rows = [SamplingSettings(max_new_tokens=9), SamplingSettings(temperature=1.0, seed=3)]
    settings = {k: tf.constant(v) for k, v in SamplingSettings.stack(rows, rows=2).items()}
    ids, padding = tf.constant([[1, 2, 3, 4], [0, 0, 5, 6]]), tf.constant([0, 2])
    cache = model.init_cache(2, 16)
    state, *_ = generation.prefill(model, ids, padding, cache, settings, ENDS)

    @tf.function
    def run(state):
        return generation.decode(run_on, state, settings, ENDS, [False] * 2, chunk=10, **given)[1:]

    return [part.numpy() for part in run(state)]


@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": False, "attention_bias": True}])
def test_one_block_for_all_gives_what_the_whole_gives(settings):
    model = backbone(3, **settings)
    stand_in = LayerwiseBackbone(model)
    assert len({id(run) for _, run in stand_in._blocks}) == 1  # compiled once
    tokens, scores = decoded(model, stand_in, choose_next=stand_in.next_token)
    expected, expected_scores = decoded(model, model)
    assert tokens.tolist() == expected.tolist()
    np.testing.assert_allclose(scores, expected_scores, atol=1e-4)


def test_blocks_that_differ_in_more_than_weights_have_functions_of_their_own():
    model = backbone(3)
    dense = model.transformer_layers[1].attention.query_dense
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape, "float32"))
    stand_in = LayerwiseBackbone(model)
    first, second, third = (run for _, run in stand_in._blocks)
    assert first is third and first is not second
    tokens, _ = decoded(model, stand_in, choose_next=stand_in.next_token)
    assert tokens.tolist() == decoded(model, model)[0].tolist()


def test_rows_that_are_added_get_no_token():
    model = backbone(2)
    rows = [SamplingSettings(max_new_tokens=5)] * 3
    settings = {k: tf.constant(v) for k, v in SamplingSettings.stack(rows, rows=3).items()}
    prompts = Prompts(tf.constant([[1, 2], [3, 4], [5, 6]]), tf.constant([0, 0, 1]))
    longer, more = with_rows(tf.constant(1), prompts, settings)
    assert longer.token_ids.shape == (4, 2) and longer.padding.numpy().tolist() == [0, 0, 1, 1]
    state, tokens, _ = generation.prefill(model, *longer, model.init_cache(4, 8), more, ENDS)
    assert state["done"].numpy().tolist() == [False] * 3 + [True]
    assert tokens.numpy()[3].tolist() == [-1] and (tokens.numpy()[:3] >= 0).all()
