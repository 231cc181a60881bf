"""What all tasks that learn from examples share: strategies, and `compile` of one's own."""

import logging

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.tasks import (
    CausalLM,
    Embedder,
    QuestionAnswerer,
    TextClassifier,
    TokenClassifier,
)
from llama_keras.training.fine_tuning import GradualUnfreezing, LayerwiseDecay
from llama_keras.training.optimizers import DepthwiseAdamW

GRADUAL = GradualUnfreezing(complete_at=1.0, learning_rate=1e-3)
FEW = {"batch_size": 16, "verbose": 0}


class Moved(keras.callbacks.Callback):
    """Notes after each step which parts of the model are no longer what they were."""

    def on_train_begin(self, logs=None):
        self.before, self.found = self.values(), []

    def on_train_batch_end(self, batch, logs=None):
        now = self.values()
        self.found.append({name for name in now if (now[name] != self.before[name]).any()})

    def values(self):
        backbone = self.model.backbone
        parts = {"embedding": backbone.token_embedding, "head": self.model.head}
        parts |= {f"block {i}": layer for i, layer in enumerate(backbone.transformer_layers)}
        return {k: np.concatenate([w.ravel() for w in p.get_weights()]) for k, p in parts.items()}


WAKING = [{"head"}, {"head", "block 1"}, {"head", "block 1", "block 0"}]


@pytest.mark.parametrize("way", ["no compile", "own compile", "evaluated", "loss scaling"])
def test_blocks_join_in_one_after_the_other(make_classifier, toy_data, way):
    model = make_classifier(strategy=GRADUAL)
    if way == "own compile":
        model.compile(loss=model.default_loss())
    if way == "evaluated":
        model.evaluate(*(part[:4] for part in toy_data), verbose=0)
    if way == "loss scaling":
        model.compile()
        model.optimizer = keras.optimizers.LossScaleOptimizer(model.optimizer)
    moved = Moved()
    texts, labels = (part[:48] for part in toy_data)
    model.fit(texts, labels, callbacks=[moved], **FEW)
    steps = moved.found
    if way in ("no compile", "evaluated"):  # the first step of a warm-up has the rate 0
        assert steps[0] <= {"head"}
    assert steps[0] <= WAKING[0] and steps[1:] == WAKING[1:]


def test_a_second_fit_goes_on_with_all_weights_after_a_compile_of_ones_own(
    make_classifier, toy_data
):
    model = make_classifier(strategy=GRADUAL)
    model.compile()
    texts, labels = (part[:48] for part in toy_data)
    model.fit(texts, labels, **FEW)
    optimizer, moved = model.optimizer, Moved()
    model.fit(texts, labels, callbacks=[moved], **FEW)
    assert model.optimizer is optimizer
    assert all(len(step) == 4 for step in moved.found)


def test_total_steps_of_ones_own_are_kept(make_classifier, toy_data):
    model = make_classifier(strategy=GRADUAL)
    model.compile(total_steps=300)
    starts = list(model.optimizer.starts)
    model.fit(*toy_data, **FEW)
    assert list(model.optimizer.starts) == starts == [300, 200, 100, 0]


@pytest.mark.parametrize("strategy", [GRADUAL, LayerwiseDecay()])
def test_an_optimizer_that_knows_no_depths_is_refused(make_classifier, strategy):
    model = make_classifier(strategy=strategy)
    for optimizer in ("adam", keras.optimizers.SGD(0.1)):
        with pytest.raises(InputError, match=f"strategy='{strategy.name}' gives each depth"):
            model.compile(optimizer)
    model.compile(DepthwiseAdamW(shares=[1.0] * 4))


def test_fit_tells_how_many_weights_learn(make_classifier, toy_data, caplog):
    model = make_classifier(strategy="lora")
    with caplog.at_level(logging.INFO, "llama_keras"):
        model.fit(*(part[:4] for part in toy_data), **FEW)
    told = [message for message in caplog.messages if "weights learn" in message]
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert len(told) == 1 and told[0].startswith(f"lora; {count:,} of ")


def test_a_fit_that_can_change_nothing_is_refused():
    model = CausalLM.from_preset("llama-tiny", strategy="lora")
    model.backbone._lora_enabled_layers = [0]  # as if there were updates
    model.backbone.trainable = False
    with pytest.raises(InputError, match="strategy='lora' no weight of this CausalLM can learn"):
        model.fit(["a"], ["b"], **FEW)


def test_class_weights_are_for_classes():
    model = CausalLM.from_preset("llama-tiny")
    with pytest.raises(InputError, match="class_weight is not for a CausalLM"):
        model.fit(["a"], ["b"], class_weight={0: 1.0}, **FEW)


def test_targets_that_match_nothing_are_refused_by_fit(make_classifier, toy_data):
    model = make_classifier(strategy={"name": "lora", "targets": ["q_proj", "v_proj"]})
    with pytest.raises(InputError, match="no layer named q_proj, v_proj"):
        model.fit(*toy_data, **FEW)


@pytest.mark.parametrize("kind", [TextClassifier, TokenClassifier, QuestionAnswerer, Embedder])
def test_a_backbone_that_is_given_a_prefix_is_refused(kind):
    labels = {"labels": ["a", "b"]} if kind in (TextClassifier, TokenClassifier) else {}
    with pytest.raises(InputError, match=f"{kind.__name__} needs .*'causal' or 'bidirectional'"):
        kind.from_preset("llama-tiny", backbone_arguments={"attention_mask": "prefix"}, **labels)
