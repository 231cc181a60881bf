import json

import jinja2
import pytest

from benchmarks.lm_eval_parity import compared, documents
from benchmarks.lm_eval_tasks import TASKS, write_tasks
from llama_keras.eval.jobs import first_requests
from llama_keras.eval.suite import load_suite


def rendered(template, doc):
    # As lm_eval: the name of a column is its value.
    if template in doc:
        return doc[template]
    return jinja2.Environment().from_string(template).render(**doc)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "wikitext2"])
def test_the_tasks_ask_what_the_suites_ask(name, shared_dir):
    (doc,) = documents(1, [name])[name]
    task = TASKS[name]
    text, target = (rendered(task[key], doc) for key in ("doc_to_text", "doc_to_target"))
    if name == "winogrande":
        starts = [f"{doc['context']} {option}" for option in doc["options"]]
        assert rendered(task["doc_to_choice"], doc) == str(starts)
        wanted = [(start, f" {target}") for start in starts]
    elif task["output_type"] == "loglikelihood":
        wanted = [(text, target)]
    else:
        before = task.get("target_delimiter", " ")
        choices = rendered(task["doc_to_choice"], doc)
        wanted = [(text, f"{before}{choice}") for choice in choices]
        assert target in range(len(wanted))
    (asked,) = first_requests(load_suite(name), 1)
    assert [tuple(request.values()) for request in asked] == wanted


def test_tasks_are_written_with_their_examples(tmp_path):
    write_tasks(tmp_path, {"wikitext2": [{"text": " = A = \n"}], "copa": [{"context": "天"}]})
    assert json.loads((tmp_path / "wikitext2.jsonl").read_text()) == {"page": " = A = \n"}
    assert "天" in (tmp_path / "copa.jsonl").read_text()
    text = (tmp_path / "parity_wikitext2.yaml").read_text()
    assert "doc_to_target: !function wikitext_functions.wikitext_detokenizer\n" in text
    assert f"test: {tmp_path}/wikitext2.jsonl" in text


def test_what_differs_is_told():
    ours = {
        "metrics": {"acc": 0.5, "acc_norm": 1.0},
        "asked": [[["a", " b"], -1.0], [["a", " c"], -2.0]],
        "examples": [{"acc": 1.0}, {"acc": 0.0}],
    }
    peer = {
        "metrics": {"acc": 1.0, "alias": "x"},
        "asked": [[["a", " b"], -1.0005], [["a", "c"], -2.5]],
        "examples": [{"acc": 1.0}, {"acc": 1.0}],
    }
    found = compared(ours, peer)
    assert (found["requests"], found["same_text"], found["largest_gap"]) == (2, 1, 0.5)
    assert found["examples_that_differ"] == [
        {"example": 1, "ours": {"acc": 0.0}, "peer": {"acc": 1.0}}
    ]
    assert [far["request"] for far in found["requests_beyond"]] == [1]
    assert found["metrics"] == {"acc": {"ours": 0.5, "peer": 1.0}}
