"""lm-evaluation-harness with our models: its tasks and our suites over the same local file."""

import importlib
import json
import math
import tomllib
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from llama_keras.cli import build_app
from llama_keras.errors import InputError, MissingDependencyError
from llama_keras.eval import evaluate, lm_eval_adapter
from llama_keras.eval.lm_eval_adapter import LlamaKerasLM
from llama_keras.eval.suite import Suite

ROWS = [
    {"question": "Which is warm?", "choices": ["the sun", "ice", "a snowman"], "answer": 0},
    {"question": "Wer bellt?", "choices": ["die Katze", "der Hund", "天"], "answer": 1},
    {"question": "2 + 2", "choices": ["four", "five", "22"], "answer": 2},
]
PROMPT = "Question: {question}\nAnswer:"
TASKS = {
    "multiple_choice": {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "answer",
        "doc_to_choice": "choices",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in ("acc", "acc_norm")
        ],
    },
    "loglikelihood_rolling": {
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "generate_until": {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["e"], "max_gen_toks": 6},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}


def test_the_entry_point_names_the_class(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    place = project["entry-points"]["lm_eval.models"][lm_eval_adapter.NAME]
    module, _, name = place.partition(":")
    assert getattr(importlib.import_module(module), name) is LlamaKerasLM


def test_without_the_package_the_command_to_install_it_is_told(monkeypatch):
    monkeypatch.setattr(lm_eval_adapter, "LM", object)
    for ask in (lambda: LlamaKerasLM("llama-tiny"), lm_eval_adapter.register):
        with pytest.raises(MissingDependencyError, match="pip install lm_eval"):
            ask()


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness: pip install lm_eval")
    return LlamaKerasLM("llama-tiny", batch_size=1, device="cuda:0")


@pytest.fixture
def ask(model, tmp_path, monkeypatch):
    """From an output type, what lm-evaluation-harness finds on ROWS."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lm_eval = importlib.import_module("lm_eval")
    manager = importlib.import_module("lm_eval.tasks").TaskManager
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def run(kind, **settings):
        task = {
            "task": "toy",
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(tmp_path / "rows.jsonl")},
                "cache_dir": str(tmp_path / "cache"),
            },
            "test_split": "test",
            "output_type": kind,
            **TASKS[kind],
        }
        folder = tmp_path / kind
        folder.mkdir(exist_ok=True)
        (folder / "toy.yaml").write_text(yaml.safe_dump(task))
        tasks = manager(include_path=str(folder), include_defaults=False)
        return lm_eval.simple_evaluate(
            model=model, tasks=["toy"], task_manager=tasks, bootstrap_iters=0, **settings
        )

    return run


@pytest.fixture
def suite(tmp_path):
    def make(task, **fields):
        data = {"source": str(tmp_path / "rows.jsonl"), **fields.pop("data", {})}
        return Suite.model_validate({"name": "toy", "task": task, "data": data, **fields})

    return make


def test_the_command_of_released_versions_finds_the_model(ask, suite, model, tmp_path, monkeypatch):
    ask("multiple_choice")  # writes the task
    command = "evaluate lm-eval run --model llama_keras --model_args preset=llama-tiny".split()
    folders = ["--include_path", str(tmp_path / "multiple_choice"), "--output_path", str(tmp_path)]
    monkeypatch.setattr(lm_eval_adapter, "open_target", lambda preset, **_: model.target)
    monkeypatch.setattr("sys.argv", ["llama-keras"])
    done = CliRunner().invoke(build_app(), [*command, "--tasks", "toy", *folders])
    assert done.exit_code == 0, (done.output, done.exception)
    (file,) = tmp_path.rglob("results_*.json")
    found = json.loads(file.read_text())
    ours = evaluate(suite("multiple_choice", prompt={"context": PROMPT}), model=model.target)
    assert of(found, "acc") == [ours.metrics["acc"].value]


def of(results, *names):
    return [results["results"]["toy"][f"{name},none"] for name in names]


def test_choices_are_scored_as_by_our_harness(ask, suite, model, tmp_path):
    found = ask("multiple_choice")
    output = tmp_path / "ours"
    prompt = {"context": PROMPT}
    ours = evaluate(suite("multiple_choice", prompt=prompt), model=model.target, output=output)
    assert of(found, "acc", "acc_norm") == [
        ours.metrics["acc"].value,
        ours.metrics["acc_norm"].value,
    ]
    lines = (output / "samples_toy.jsonl").read_text().splitlines()
    for line, sample in zip(map(json.loads, lines), found["samples"]["toy"], strict=True):
        wanted = [answer["logprob"] for answer in line["resps"]]
        assert [float(one[0][0]) for one in sample["resps"]] == pytest.approx(wanted, abs=1e-5)
        asked = [tuple(request.values()) for request in line["arguments"]]
        assert [tuple(pair) for pair in sample["arguments"]] == asked
    assert found["config"]["model_sha"] == model.target.fingerprint()


def test_documents_are_scored_as_by_our_harness(ask, suite, model):
    found = ask("loglikelihood_rolling")
    ours = evaluate(suite("perplexity", data={"text_column": "question"}), model=model.target)
    wanted = [ours.metrics[name].value for name in ("word_perplexity", "bits_per_byte")]
    assert of(found, "word_perplexity", "bits_per_byte") == pytest.approx(wanted, rel=1e-6)


def test_continuations_are_those_of_generate(ask, model):
    found = ask("generate_until")
    causal_lm = model.target.model
    for sample, row in zip(found["samples"]["toy"], ROWS, strict=True):
        prompt = PROMPT.format_map(row)
        wanted = causal_lm.generate(prompt, max_new_tokens=6, stop=["e"]).text
        assert sample["resps"] == [[wanted]]


def test_the_chat_template_s_tokens_are_read_as_such(ask, model, monkeypatch):
    monkeypatch.setattr(model, "_conversations", {})
    found = ask("multiple_choice", apply_chat_template=True)
    tokenizer, causal_lm = model.target.model.tokenizer, model.target.model
    messages = [{"role": "user", "content": PROMPT.format_map(ROWS[0])}]
    start = tokenizer.encode_chat(messages)
    from llama_keras.tasks.likelihood import ScoredPair

    # The line break that ends the template counts with what is scored, as everywhere in lm_eval.
    (newline,) = tokenizer.encode("\n", add_bos=False)
    assert start[-1] == newline
    pair = ScoredPair(start[:-1], [newline, *tokenizer.encode("the sun", add_bos=False)])
    ((wanted, _),) = causal_lm.score_pairs([pair])
    given = found["samples"]["toy"][0]["resps"][0][0][0]
    assert float(given) == pytest.approx(wanted, abs=1e-4)
    written = ask("generate_until", apply_chat_template=True)["samples"]["toy"][0]["resps"]
    assert written == [[causal_lm.chat(messages, max_new_tokens=6, stop=["e"]).text]]
    assert model.chat_template(True) == tokenizer.chat_template and model.chat_template() is None
    assert model.tokenizer_name == "llama-tiny"
    with pytest.raises(InputError, match="more than the chat template made"):
        model.generate_until([SimpleNamespace(args=("never rendered", {}))])


def test_the_model_is_found_by_its_name_beside_the_others(model):
    lm_eval_adapter.register()
    lm_eval_adapter.register()
    registry = importlib.import_module("lm_eval.api.registry")
    assert registry.get_model("llama_keras") is LlamaKerasLM
    assert "hf" in registry.model_registry
    # As versions with plugins keep it: by its entry point, until it is asked for.
    later = registry.Registry("model")
    value = "llama_keras.eval.lm_eval_adapter:LlamaKerasLM"
    later.register("llama_keras", target=EntryPoint("llama_keras", value, "lm_eval.models"))
    assert later.get("llama_keras") is LlamaKerasLM


def test_answers_go_to_the_harness_s_cache(model, monkeypatch):
    kept = []
    monkeypatch.setattr(model, "cache_hook", SimpleNamespace(add_partial=lambda *x: kept.append(x)))
    requests = [SimpleNamespace(args=(context, " b")) for context in ("", "a longer one", "a")]
    answers = model.loglikelihood(requests, disable_tqdm=True)
    assert all(math.isfinite(logprob) and logprob < 0 for logprob, _ in answers)
    assert kept == [
        ("loglikelihood", request.args, answer)
        for request, answer in zip(requests, answers, strict=True)
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "no preset"),
        ({"preset": "llama-tiny", "pretrained": "x"}, "pretrained"),
        ({"preset": "absent-preset"}, "no model at absent-preset"),
    ],
)
def test_bad_arguments_are_told(model, arguments, reason):
    with pytest.raises(InputError, match=reason):
        LlamaKerasLM(**arguments)


def test_what_cannot_be_asked_is_told(model, monkeypatch):
    with pytest.raises(InputError, match="do_sample: false"):
        model.generate_until([SimpleNamespace(args=("a", {"do_sample": True}))])
    with pytest.raises(InputError, match="a checkpoint has one"):
        model.chat_template("tool_use")
    served = SimpleNamespace(location="http://x", requests=frozenset({"loglikelihood"}))
    monkeypatch.setattr(model, "target", served)
    with pytest.raises(InputError, match="leave --apply_chat_template out"):
        model.apply_chat_template([{"role": "user", "content": "a"}])
    with pytest.raises(InputError, match="not 'loglikelihood_rolling'"):
        model.loglikelihood_rolling([SimpleNamespace(args=("a",))])
