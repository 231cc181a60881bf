import pytest

from llama_keras.checks import check_recipe, lengths
from llama_keras.checks.documents import read_documents
from llama_keras.data.documents import load_documents
from llama_keras.errors import InputError
from llama_keras.pretrainer import build_model
from llama_keras.tasks.pretraining_recipe import load_pretraining_recipe

TINY = ["tokenizer.preset=llama-tiny", "tokenizer.vocabulary_size=261"]
LINES = [f"document number {number}" for number in range(30)]


@pytest.fixture
def recipe(tmp_path):
    """Makes a recipe of parts that are given as lines."""

    def make(*overrides, **parts):
        settings = [*TINY]
        for name, lines in parts.items():
            file = tmp_path / f"{name}.txt"
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            settings.append(f"data.{name}={file}")
        return load_pretraining_recipe("article_small", overrides=[*settings, *overrides])

    return make


@pytest.fixture
def check(recipe):
    defaults = {"validation": ["held out"]}
    return lambda *overrides, **parts: (
        check_recipe(recipe(*overrides, **{**defaults, **parts})).findings
    )


def test_good_documents(check):
    found = check(train=[*LINES, "", "  "])
    assert {name: finding.level for name, finding in found.items()} == dict.fromkeys(
        ("rows", "counts", "empty", "duplicates", "overlap", "lengths", "characters"), "good"
    )
    assert found["counts"].details["train"] == {
        "documents": 30,
        "characters": sum(map(len, LINES)),
        "blank lines": 2,
    }
    assert ", 2 blank lines left out; validation 1 documents of 8 char" in found["counts"].message


def test_repeats_and_overlap_are_told_by_line(check):
    found = check(train=[*LINES, "", LINES[3]], validation=[LINES[5], "  document number  6"])
    assert (found["duplicates"].level, found["duplicates"].count) == ("warn", 1)
    assert found["duplicates"].examples[0][0] == "train, line 32 = line 4"
    assert (found["overlap"].level, found["overlap"].count) == ("fail", 2)
    assert found["overlap"].examples[1][0] == "validation, line 2 = train, line 7"


def test_documents_of_which_cleaning_leaves_nothing(check):
    assert check(train=[*LINES, "!!!"])["empty"].count == 0
    finding = check("clean=[remove_punctuation]", train=[*LINES, "!!!"])["empty"]
    assert (finding.level, finding.count) == ("warn", 1)
    assert finding.message == "1 of 32 (3.1 %) are empty once they are cleaned"
    assert finding.examples == (("train, line 31", "“!!!”"),)
    assert check(train=[*LINES, "\u200b"])["empty"].count == 1


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["objective=denoising", "backbone.attention_mask=prefix", "corruption=random_deletion"],
        ["objective=causal", "backbone.attention_mask=causal", "corruption=null"],
        ["clean=[remove_punctuation]", "max_sequence_length=999"],
    ],
)
def test_lengths_are_those_of_training(recipe, overrides):
    """Rows and tokens as the task makes them, split and cut."""
    small = ["max_sequence_length=24", "backbone.max_sequence_length=48", "backbone.num_layers=1"]
    lines = [*LINES, "long " * 30, "!!!", "a much longer document than all the others"]
    made = recipe(*small, "backbone.hidden_dim=16", *overrides, train=lines, validation=["x"])
    finding = check_recipe(made).findings["lengths"]
    texts = load_documents([*made.data.train, *made.data.validation]).texts
    rows = build_model(made).token_rows(texts).token_ids
    assert finding.details["rows if split"] == len(rows)
    assert finding.details["tokens"] == sum(map(len, rows))
    cut = made.model_copy(update={"long_texts": "cut"})
    kept = sum(map(len, build_model(cut).token_rows(texts).token_ids))
    assert finding.details["tokens lost if cut"] == sum(map(len, rows)) - kept > 0
    assert (finding.level, finding.count) == ("good", 0)
    told = check_recipe(cut).findings["lengths"]
    assert told.level != "good" and told.count == finding.details["long"] > 0
    assert told.examples[0] == ("train, line 31", f"{finding.details['max']} tokens")


def test_rows_that_lose_half_of_the_tokens_fail(check):
    finding = check("long_texts=cut", "max_sequence_length=5", train=LINES)["lengths"]
    assert finding.level == "fail" and "long_texts=cut loses" in finding.message


def test_many_documents_are_sampled_and_a_missing_preset_is_told(check, monkeypatch):
    monkeypatch.setattr("llama_keras.checks.documents.AT_MOST", 10)
    monkeypatch.setattr(lengths, "AT_MOST", 10)
    finding = check(train=LINES)["lengths"]
    assert finding.message.endswith("; measured on 10 of 31, evenly taken")
    found = check("preset=/nowhere/at-all", train=LINES)
    assert found["lengths"].level == "warn"
    assert found["lengths"].message.startswith("not measured: ")
    assert found["empty"].level == "good"


def test_several_sources_and_those_that_cannot_be_read(recipe, tmp_path):
    made = recipe(train=LINES)
    sources = [made.data.train[0], f"{tmp_path}/none.txt", "package:sentiment/train.jsonl"]
    data = {"train": sources, "validation": ["package:sentiment/test.jsonl"], "limit": 2}
    made = made.model_copy(update={"data": type(made.data)(**data)})
    corpus = read_documents(made)
    assert [x.place for x in corpus.train.examples] == [
        f"{sources[0]}, line 1",
        f"{sources[0]}, line 2",
        f"{sources[2]}, text 1",
        f"{sources[2]}, text 2",
    ]
    texts = load_documents([sources[0], sources[2]], limit=2).texts
    assert [x.texts[0] for x in corpus.train.examples] == texts
    finding = check_recipe(made).findings["rows"]
    assert (finding.level, finding.count) == ("fail", 1)
    assert "There is no data file" in finding.examples[0][1]


def test_nothing_to_read(recipe):
    found = check_recipe(recipe(train=["", " "], validation=[])).findings
    assert list(found) == ["rows", "counts"]
    assert found["rows"].level == found["counts"].level == "fail"
    with pytest.raises(InputError, match="no training data; add --set data.train=FILE.txt"):
        check_recipe(load_pretraining_recipe("plain_text"))


def test_the_preset_s_cleaning_counts_unless_the_recipe_has_its_own(recipe, tmp_path):
    from llama_keras.tasks import MaskedLM

    MaskedLM.from_preset("llama-tiny", cleaning=["remove_punctuation"]).save_to_preset(
        tmp_path / "preset"
    )
    goes_on = [f"preset={tmp_path / 'preset'}", "backbone={}"]
    for clean, count in (("null", 1), ("[]", 0)):
        made = recipe(*goes_on, f"clean={clean}", train=[*LINES, "!!!"], validation=["x"])
        assert check_recipe(made).findings["empty"].count == count
        assert (build_model(made).cleaning is None) == (count == 0)
