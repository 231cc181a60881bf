import json

import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.planning.optimizers import SLOTS, slot_count
from llama_keras.planning.settings import POLICIES, Settings
from llama_keras.planning.shapes import Shape, parameter_count, shape_of, weights_of
from llama_keras.training.fine_tuning import Lora
from llama_keras.weights.presets import PRESETS

SIZES = {
    "vocabulary_size": 96,
    "num_layers": 3,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 48,
}
VARIANTS = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "head_dim": {"head_dim": 24},
    "article": {
        "feed_forward": "mlp",
        "positions": "learned",
        "max_sequence_length": 40,
        "attention_kernel": "gaussian",
        "learned_temperature": True,
        "attention_mask": "bidirectional",
    },
    "mlp_default_width": {"feed_forward": "mlp", "intermediate_dim": None},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_those_of_a_backbone(variant):
    config = {**SIZES, **VARIANTS[variant]}
    backbone = LlamaBackbone(**config)
    shape = Shape.from_config(variant, backbone.config.to_dict())
    assert shape == Shape.from_config(variant, config)
    planned = sorted(w.shape for w in weights_of(shape) for _ in range(w.copies))
    assert planned == sorted(tuple(v.shape) for v in backbone.trainable_variables)


@pytest.mark.parametrize("preset", ["llama-tiny", "smollm2-135m-instruct"])
def test_counts_of_presets_are_those_of_their_backbones(preset):
    backbone = LlamaBackbone(**PRESETS[preset].config)
    assert parameter_count(shape_of(preset)) == backbone.count_params()
    assert backbone.count_params() == PRESETS[preset].parameters


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-2-7b", 6_738_415_616),
    ],
)
def test_counts_are_the_published_ones(preset, count):
    assert parameter_count(shape_of(preset)) == count


def test_a_hugging_face_folder_is_planned_from_its_config_alone(tmp_path):
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = LlamaBackbone(**SIZES).count_params()
    assert parameter_count(shape_of(str(tmp_path))) == expected


def test_an_unknown_preset_is_told_what_there_is():
    with pytest.raises(InputError, match="llama-3.1-8b"):
        shape_of("llama-nonsense")


def test_lora_learns_what_the_strategy_makes_trainable():
    class Task:
        backbone = LlamaBackbone(**SIZES)

    Lora(rank=5).prepare(Task())  # pyright: ignore[reportArgumentType]
    shape = Shape.from_config("x", SIZES)
    planned = [w for w in weights_of(shape, lora_rank=5) if w.learned]
    shapes = sorted(w.shape for w in planned for _ in range(w.copies))
    assert shapes == sorted(tuple(v.shape) for v in Task.backbone.trainable_variables)


@pytest.mark.parametrize("dtype", POLICIES)
@pytest.mark.parametrize("name", SLOTS)
def test_bytes_of_weights_and_moments_are_those_of_keras(name, dtype):
    import keras

    backbone = LlamaBackbone(**SIZES, tie_word_embeddings=True, dtype=dtype)
    shape = Shape.from_config("x", {**SIZES, "tie_word_embeddings": True})
    size = Settings(dtype=dtype).weight_bytes
    weights = weights_of(shape)
    assert size * sum(w.count for w in weights) == _bytes(backbone.trainable_variables)
    classes = {cls.lower(): getattr(keras.optimizers, cls) for cls in dir(keras.optimizers)}
    optimizer = keras.optimizers.SGD(momentum=0.9) if name == "momentum" else classes[name]()
    optimizer.build(backbone.trainable_variables)
    slots = [v for v in optimizer.variables if tuple(v.shape) or v.name == "log_temperature"]
    assert size * sum(slot_count(w, name) for w in weights) == _bytes(slots)


def _bytes(variables):
    return sum(v.numpy().nbytes for v in variables)
