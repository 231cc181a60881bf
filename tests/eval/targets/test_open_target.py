import keras
import pytest

from llama_keras.errors import InputError
from llama_keras.eval import evaluate
from llama_keras.eval.precision import graph_precision
from llama_keras.eval.requests import described
from llama_keras.eval.targets import open_target
from llama_keras.eval.targets.fingerprints import model_fingerprint
from llama_keras.eval.targets.grpc import GrpcTarget
from llama_keras.eval.targets.rest import RestTarget
from llama_keras.eval.targets.saved_model import SavedModelTarget
from llama_keras.eval.targets.task import CheckpointTarget, KerasTarget, TaskTarget


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    from llama_keras.tasks import TextClassifier

    folder = tmp_path_factory.mktemp("runs") / "toy"
    model = TextClassifier.from_preset("llama-tiny", labels=["negative", "positive"])
    model.save(folder / "model.keras")
    return folder


def test_saved_model_answers_and_tells_its_labels(toy_suite, toy_export):
    target = open_target(toy_export)
    assert isinstance(target, SavedModelTarget)
    assert target.labels == ["negative", "positive"]
    assert target.location == str(toy_export / "1")
    answers = target.ask("classify", [{"text": "good"}, {"text": "坏"}])
    assert answers == [
        {"label": "positive", "score": 0.75, "scores": {"negative": 0.25, "positive": 0.75}},
        {"label": "negative", "score": 0.75, "scores": {"negative": 0.75, "positive": 0.25}},
    ]
    result = evaluate(toy_suite, model=toy_export / "1")
    assert result.metrics["accuracy"].value == 0.75
    assert result.model["sha256"] == target.fingerprint()


def test_fingerprint_of_an_export_covers_its_labels(tmp_path, toy_export):
    import shutil

    copy = shutil.copytree(toy_export, tmp_path / "copy")
    first = SavedModelTarget(copy).fingerprint()
    assert first == SavedModelTarget(toy_export).fingerprint()
    (copy / "1" / "signature.json").write_text('{"labels": ["positive", "negative"]}')
    assert SavedModelTarget(copy).fingerprint() != first


def test_run_directory_is_measured_as_its_model_predicts(toy_suite, run_directory):
    from llama_keras.tasks import TextClassifier

    target = open_target(run_directory)
    assert isinstance(target, TaskTarget)
    assert target.labels == ["negative", "positive"]
    texts = ["A good film.", "不好看"]
    predicted = TextClassifier.load(run_directory / "model.keras").predict(texts)
    for answer, row in zip(
        target.ask("classify", [{"text": text} for text in texts]), predicted, strict=True
    ):
        assert (answer["label"], answer["score"]) == (row["label"], pytest.approx(row["score"]))
    result = evaluate(toy_suite, model=run_directory / "model.keras")
    assert (result.n, result.model["kind"]) == (4, "keras")
    assert result.model["sha256"] == target.fingerprint()
    assert result.first_tokens == target.first_tokens("classify", {"text": "a good film"})


def test_fingerprint_of_a_model_covers_all_that_shapes_its_answers():
    from llama_keras.tasks import CausalLM

    keras.utils.set_random_seed(0)
    first, second = (CausalLM.from_preset("llama-tiny", jit_generate=False) for _ in range(2))
    second.set_weights(first.get_weights())
    sha = model_fingerprint(first)
    assert KerasTarget(first).fingerprint() == sha == model_fingerprint(second)
    mixed = CausalLM.from_preset("llama-tiny", dtype="mixed_bfloat16", jit_generate=False)
    mixed.set_weights(first.get_weights())
    assert model_fingerprint(mixed) != sha  # the same weights, computed otherwise
    half = CausalLM.from_preset("llama-tiny", dtype="bfloat16", jit_generate=False)
    half.set_weights(first.get_weights())
    assert model_fingerprint(half) not in (sha, model_fingerprint(mixed))
    assert [KerasTarget(m).precision for m in (first, mixed, half)] == [
        "float32",
        "bfloat16",
        "bfloat16",
    ]
    weight = second.weights[0]
    weight.assign(weight + 1e-3)
    assert model_fingerprint(second) != sha


def test_checkpoints_and_their_settings():
    target = open_target("llama-tiny", dtype="bfloat16")
    assert isinstance(target, CheckpointTarget)
    assert target.model.backbone.dtype_policy.name == "bfloat16"
    assert described(target)["settings"] == {"dtype": "bfloat16"}
    assert target.requests == {"loglikelihood", "loglikelihood_rolling", "generate_until"}
    assert len(target.fingerprint()) == 64


def test_what_is_no_model_is_refused(tmp_path, run_directory):
    with pytest.raises(InputError, match="no model at .*absent"):
        open_target(tmp_path / "absent")
    with pytest.raises(InputError, match="takes no setting 'dtype'"):
        open_target(run_directory, dtype="bfloat16")
    with pytest.raises(InputError, match="NAME"):
        open_target("http://127.0.0.1:9/v2/toy")


def test_an_export_that_is_no_classifier_is_refused(tmp_path, toy_suite):
    import tensorflow as tf

    class Lower(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def lower(self, text):
            return {"lowered": tf.strings.lower(text)}

    module = Lower()
    folder = str(tmp_path / "lower" / "1")
    tf.saved_model.save(module, folder, signatures={"serving_default": module.lower})
    with pytest.raises(InputError, match="does not answer 'classify'.*'lowered': 4"):
        evaluate(toy_suite, model=folder)


@pytest.mark.parametrize("kinds", [("float32",), ("float32", "bfloat16"), ("float16",), ()])
def test_the_precision_of_an_export_is_that_of_its_coarsest_product(tmp_path, kinds):
    import tensorflow as tf

    class Products(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
        def products(self, x):
            for kind in kinds:
                x = tf.cast(tf.matmul(tf.cast(x, kind), tf.ones([2, 2], kind)), tf.float32)
            return {"y": x + 1}

    module = Products()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.products})
    assert graph_precision(tmp_path) == (kinds[-1] if kinds else None)


def test_servers_take_their_settings():
    rest = open_target("http://127.0.0.1:9/v1/models/toy", retries=0, timeout=1.0)
    grpc = open_target("grpc://127.0.0.1:9/toy", retries=0)
    assert isinstance(rest, RestTarget) and isinstance(grpc, GrpcTarget)
    for target in (rest, grpc):
        target.close()
