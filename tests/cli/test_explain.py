import json

import pytest
from typer.testing import CliRunner

from llama_keras.cli import build_app
from llama_keras.cli.explain import _steps
from llama_keras.errors import InputError
from llama_keras.explain.guide import STAGES
from tests.cli.test_cli import llama_keras


def test_explain_prints_every_stage_and_writes_the_page(tmp_path):
    page = tmp_path / "page.html"
    arguments = ("--preset", "llama-tiny", "--layer", "2", "--clean", "collapse_whitespace")
    done = llama_keras("explain", "今天天气很好", *arguments, "--html", str(page))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for number, stage in enumerate(STAGES.values(), start=1):
        assert f"{number}. {stage.title}  [{stage.source}]" in lines
    assert f"wrote {page}" in lines
    assert "天·1" in page.read_text(encoding="utf-8")


def test_json_is_one_object_on_standard_output():
    command = ["explain", "שלום", "--preset", "llama-tiny", "--json", "--seed", "5"]
    done = CliRunner().invoke(build_app(), command)
    found = json.loads(done.stdout)
    assert found["text"] == "שלום"
    assert [corruption["seed"] for corruption in found["corruptions"]] == [5, 5]
    assert [layer["number"] for layer in found["layers"]] == [1, 2]


def test_the_articles_kernel_and_chinese_stop_words_are_within_reach():
    step = "remove_stop_words:language=zh,add=[很, 气]"
    options = ["--kernel", "gaussian", "--unnormalized", "--temperature", "0.5", "--clean", step]
    command = ["explain", "我的天气很好", "--preset", "llama-tiny", "--json", *options]
    found = json.loads(CliRunner().invoke(build_app(), command).stdout)
    assert [step["text"] for step in found["cleaned"]] == ["天好"]
    (own,) = [kernel for kernel in found["layers"][0]["attention"] if kernel["in_use"]]
    assert (own["kernel"], own["normalized"], own["temperature"]) == ("gaussian", False, 0.5)
    assert own["formula"] == "exp(−‖q_i − k_j‖² / (d'α))"


@pytest.mark.parametrize(
    ("texts", "steps"),
    [
        (None, None),
        (["none"], ()),
        (["lower"], ({"name": "lower"},)),
        (
            ["remove_punctuation:replacement='',keep='-", "normalize:form=NFKC"],
            (
                {"name": "remove_punctuation", "replacement": "", "keep": "'-"},
                {"name": "normalize", "form": "NFKC"},
            ),
        ),
        (
            ["remove_punctuation:replacement=,keep=#", "remove_punctuation:keep=-"],
            (
                {"name": "remove_punctuation", "replacement": "", "keep": "#"},
                {"name": "remove_punctuation", "keep": "-"},
            ),
        ),
    ],
)
def test_steps_of_the_command_line(texts, steps):
    assert _steps(texts) == steps


def test_an_empty_text_is_one_paragraph():
    done = llama_keras("explain", "")
    assert done.returncode == 2
    assert done.stderr == "llama-keras: There is nothing to explain in ''; give a sentence.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "9"], "no layer 9"),
        (["--kernel", "cosine"], "cosine"),
        (["--temperature", "-1"], "positive number"),
        (["--clean", "polish"], "polish"),
        (["--clean", "remove_stop_words:zh"], "STEP:SETTING=VALUE"),
        (["--clean", "remove_stop_words:language=xx"], "'xx'"),
        (["--unnormalized"], "attention_kernel='gaussian'"),
        (["--html", "/nowhere/page.html"], "cannot be written"),
        (["--preset", "lama-tiny"], "Did you mean 'llama-tiny'"),
    ],
)
def test_wrong_options_are_told(arguments, message):
    command = ["explain", "好", "--preset", "llama-tiny", *arguments]
    done = CliRunner().invoke(build_app(), command)
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
