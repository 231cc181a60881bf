"""The suites that come with the package, over the data that they were made for."""

import pytest

from llama_keras.data.parts import split_source
from llama_keras.errors import InputError
from llama_keras.eval.jobs import first_requests
from llama_keras.eval.kinds import get_kind
from llama_keras.eval.requests import REQUESTS
from llama_keras.eval.suite import load_suite, suite_names

SHARED = [name for name in suite_names() if load_suite(name).data.source.startswith("shared:")]


@pytest.mark.parametrize("name", SHARED)
def test_first_examples_become_requests(name, shared_dir):
    suite = load_suite(name)
    assert suite.data.sha256 is not None and suite.metrics
    found = first_requests(suite, 3)
    assert len(found) == 3
    for requests in found:
        assert requests
        for request in requests:
            assert set(REQUESTS[get_kind(suite.task).request]) <= set(request)


def test_every_data_set_has_a_suite(shared_dir):
    sources = [split_source(load_suite(name).data.source)[0] for name in SHARED]
    measured = {source.removeprefix("shared:data/").partition("/")[0] for source in sources}
    there = {folder.name for folder in (shared_dir / "data").iterdir() if folder.is_dir()}
    assert there - measured == set()


# The texts that lm-evaluation-harness's tasks of the same names ask, by their templates.
ASKED = {
    "winogrande": [
        ("Sarah was a much better surgeon than Maria so Sarah", " always got the easier cases."),
        ("Sarah was a much better surgeon than Maria so Maria", " always got the easier cases."),
    ],
    "piqa": [
        (
            "Question: How do I ready a guinea pig cage for it's new occupants?\nAnswer:",
            " Provide the guinea pig with a cage full of a few inches of bedding made of ripped "
            f"{stuff}, you will also need to supply it with a water bottle and a food dish.",
        )
        for stuff in ("paper strips", "jeans material")
    ],
    "copa": [
        ("The man turned on the faucet therefore", "  the toilet filled with water."),
        ("The man turned on the faucet therefore", "  water flowed from the spout."),
    ],
    "sst2_prompted": [
        (
            "no movement , no yuks , not much of anything .\n"
            "Question: Is this sentence positive or negative?\nAnswer:",
            f" {label}",
        )
        for label in ("negative", "positive")
    ],
}


@pytest.mark.parametrize("name", ASKED)
def test_prompts_are_those_of_lm_evaluation_harness(name, shared_dir):
    (asked,) = first_requests(load_suite(name), 1)
    assert [tuple(request.values()) for request in asked] == ASKED[name]


def test_boolq_asks_without_the_word_that_its_file_has_before(shared_dir):
    (asked,) = first_requests(load_suite("boolq"), 1)
    assert asked[0]["context"].startswith("All biomass goes through")
    assert asked[0]["context"].endswith("?\nAnswer:")
    assert [request["continuation"] for request in asked] == [" no", " yes"]


def test_wikitext_has_its_articles(shared_dir):
    suite = load_suite("wikitext2")
    docs = get_kind(suite.task).load(suite, suite.data.source, None)
    assert len(docs) == 62
    # No line is lost but the blank one before the first article.
    assert docs[0]["text"].startswith(" = Robert <unk> = \n")
    assert sum(doc["text"].count("\n") for doc in docs) + len(docs) - 1 == 4358 - 1


def test_a_part_of_a_file_is_checked_and_taken(shared_dir):
    suite = load_suite("boolq_pairs")
    assert len(get_kind(suite.task).load(suite, suite.data.source, None)) == 654
    source = "shared:data/copa/validation.jsonl[::50]"
    copa = load_suite("copa")
    data = copa.data.model_copy(update={"source": source})
    assert len(first_requests(copa.model_copy(update={"data": data}), 9)) == 2
    damaged = copa.data.model_copy(update={"source": source, "sha256": "0" * 64})
    with pytest.raises(InputError, match="not the file that copa was made for"):
        first_requests(copa.model_copy(update={"data": damaged}), 1)
