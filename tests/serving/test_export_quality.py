import json

import keras
import pytest
from typer.testing import CliRunner

from llama_keras.cli import build_app
from llama_keras.errors import InputError
from llama_keras.eval.compare import Change
from llama_keras.serving import export_quality
from llama_keras.serving.export_quality import measure_export, suites_for
from llama_keras.serving.manifest import read_manifest
from llama_keras.serving.verify import verify
from llama_keras.tasks import CausalLM, Embedder, TextClassifier

LABELS = ["negative", "positive"]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return TextClassifier.from_preset("llama-tiny", labels=LABELS, max_sequence_length=64)


def manifest_of(folder) -> dict:
    return json.loads((folder / "signature.json").read_text(encoding="utf-8"))


def test_what_was_measured_stands_in_the_manifest(model, tmp_path, toy_suite):
    folder = model.export(tmp_path / "mood", dtype="int8", evaluation={"test": {"n": 7}})
    before = manifest_of(folder)
    found = measure_export(tmp_path / "mood", [toy_suite], model=model, limit=3)
    after = manifest_of(folder)
    assert after["evaluation"] == {"test": {"n": 7}, "measured": found}
    assert {**after, "evaluation": before["evaluation"]} == before
    assert found["bytes"] == sum(before["bytes"].values())
    toy = found["suites"]["toy"]
    assert (toy["n"], toy["original_n"]) == (3, 4)
    assert toy["latency"]["requests"] == 3 and toy["latency"]["p50_ms"] > 0
    right = [row["label"] for row in model.predict(["a good film", "bad", "good, not"], verbose=0)]
    expected = sum(a == b for a, b in zip(right, [LABELS[1], LABELS[0], LABELS[0]], strict=True))
    assert toy["loss"]["accuracy"]["model"] == pytest.approx(expected / 3)
    value = toy["loss"]["accuracy"]["model"] - toy["loss"]["accuracy"]["value"]
    assert toy["metrics"]["accuracy"]["value"] == pytest.approx(value)
    assert 0 <= toy["other_answers"] <= 3
    assert [file.name for file in folder.iterdir() if file.name.startswith(".")] == []


def test_an_export_that_was_measured_is_read_as_before(model, tmp_path, toy_suite):
    folder = model.export(tmp_path / "mood")
    sha256 = export_quality.SavedModelTarget(folder).fingerprint()
    measure_export(folder, [toy_suite])
    assert export_quality.SavedModelTarget(folder).fingerprint() == sha256
    assert verify(folder).level == "good"
    toy = read_manifest(folder).evaluation["measured"]["suites"]["toy"]
    assert "loss" not in toy  # no model to compare with


def test_a_failure_leaves_the_manifest_as_it_was(model, tmp_path, toy_suite, monkeypatch):
    folder = model.export(tmp_path / "mood")
    before = (folder / "signature.json").read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("llama_keras.atomic.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        export_quality._write(folder, {"bytes": 1}, None)
    assert (folder / "signature.json").read_bytes() == before
    assert [file.name for file in folder.iterdir() if file.name.startswith(".")] == []


def test_less_is_a_loss_where_more_is_better_and_the_other_way_round():
    shared = {"p_value": 1.0, "test": "bootstrap", "only_a": None, "only_b": None}
    accuracy = Change(0.9, 0.8, -0.1, -0.2, 0.05, higher_is_better=True, **shared)
    error = Change(0.1, 0.3, 0.2, 0.1, 0.3, higher_is_better=False, **shared)
    assert export_quality._loss(accuracy) == {"value": 0.1, "low": -0.05, "high": 0.2, "model": 0.9}
    assert export_quality._loss(error) == {"value": 0.2, "low": 0.1, "high": 0.3, "model": 0.1}


def test_a_file_of_examples_is_a_suite_of_the_models_own_labels(model, toy_suite):
    (suite,) = suites_for([toy_suite.parent / "toy.csv"], model=model)
    assert (suite.name, suite.task, suite.labels) == ("toy", "text_classification", LABELS)
    with pytest.raises(InputError, match="by a Embedder are read; write a suite"):
        suites_for([toy_suite.parent / "toy.csv"], model=Embedder.from_preset("llama-tiny"))
    with pytest.raises(InputError, match="without model"):
        suites_for([toy_suite.parent / "toy.csv"])


@pytest.fixture
def sums(tmp_path):
    """A suite for a generator."""
    (tmp_path / "qa.jsonl").write_text('{"question": "2 + 2", "answer": "4"}\n' * 2)
    suite = tmp_path / "sums.yaml"
    lines = ["name: sums", "task: generation", f"data: {{source: {tmp_path}/qa.jsonl}}"]
    lines += ['prompt: {context: "{question}", target: "{answer}", max_new_tokens: 4}']
    suite.write_text("\n".join(lines))
    return suite


@pytest.mark.slow
def test_a_generator_is_measured_by_what_it_is_asked(tmp_path, sums):
    model = CausalLM.from_preset("llama-tiny")
    folder = model.export(tmp_path / "writer", dtype="bfloat16")
    found = measure_export(folder, [sums], model=model)["suites"]["sums"]
    assert found["latency"]["requests"] == 2
    assert set(found["loss"]) == set(found["metrics"]) >= {"exact_match"}


def invoke(*arguments):
    return CliRunner().invoke(build_app(), ["export", *map(str, arguments)])


def test_the_command_measures_a_run(model, tmp_path, toy_suite):
    run = tmp_path / "run"
    run.mkdir()
    model.save(run / "model.keras")
    folder = tmp_path / "mood"
    options = ["--measure", toy_suite, "--measure-limit", 2, "--dtype", "int8"]
    done = invoke(run, "--output", folder, *options)
    assert done.exit_code == 0, done.output
    assert "toy: accuracy" in done.stdout and "n 2, loss" in done.stdout
    assert manifest_of(folder / "1")["evaluation"]["measured"]["suites"]["toy"]["n"] == 2


def test_a_head_of_several_is_measured_by_its_name(tmp_path, toy_suite):
    small = {"labels": LABELS, "backbone_arguments": {"num_layers": 1}}
    for name in ("first", "mood"):
        keras.utils.set_random_seed(0)
        TextClassifier.from_preset("llama-tiny", **small).save(tmp_path / f"{name}.keras")
    models = [f"{name}={tmp_path / name}.keras" for name in ("first", "mood")]
    options = ["--dtype", "int8", "--measure", f"mood={toy_suite}"]
    done = invoke(*models, "--output", tmp_path / "both", *options)
    assert done.exit_code == 0, done.output
    assert "mood:\n" in done.stdout and "toy: accuracy" in done.stdout
    manifest = manifest_of(tmp_path / "both" / "1")
    toy = manifest["heads"]["mood"]["evaluation"]["measured"]["suites"]["toy"]
    assert toy["n"] == 4 and "accuracy" in toy["loss"]
    assert "evaluation" not in manifest and "evaluation" not in manifest["heads"]["first"]
    with pytest.raises(InputError, match="no such signature"):
        measure_export(tmp_path / "both", [toy_suite], head="mod")


def test_what_does_not_fit_is_told_before_anything_is_written(model, tmp_path, toy_suite, sums):
    model.save(tmp_path / "mood.keras")
    for suite, reason in ((sums, "asks for"), ("nonsense", "no suite 'nonsense'")):
        done = invoke(tmp_path / "mood.keras", "--output", tmp_path / "x", "--measure", suite)
        assert isinstance(done.exception, InputError)
        assert reason in str(done.exception)
    call = [tmp_path / "mood.keras", "--output", tmp_path / "x", "--measure", toy_suite]
    assert "asks a SavedModel" in str(invoke(*call, "--format", "litert").exception)
    assert not (tmp_path / "x").exists()
