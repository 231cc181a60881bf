import json
import re
import unicodedata
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "llama_keras" / "data" / "sentiment"
COUNTS = {"train": 320, "validation": 80, "test": 100}
LABELS = ("negative", "positive")
LANGUAGES = ("en", "zh")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# Same idea, other words, stays under 0.3; one word changed in a sentence of ten gives 0.6.
NEAR_DUPLICATE = 0.45


def read(split: str) -> list[dict[str, str]]:
    lines = (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def normalized(text: str) -> str:
    """Gives the text's letters and digits alone, so that punctuation cannot hide a duplicate."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


def ngrams(example: dict[str, str]) -> set[str]:
    size = 3 if example["language"] == "en" else 2
    text = normalized(example["text"])
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


@pytest.mark.parametrize("split", COUNTS)
def test_file_is_plain_utf8_with_unix_line_ends(split: str) -> None:
    data = (FOLDER / f"{split}.jsonl").read_bytes()
    text = data.decode("utf-8")
    assert not data.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in data and b"\\u" not in data
    assert data.endswith(b"}\n") and b"\n\n" not in data
    assert "\ufffd" not in text and unicodedata.is_normalized("NFC", text)


@pytest.mark.parametrize("split", COUNTS)
def test_every_line_has_exactly_the_three_fields(split: str) -> None:
    for example in read(split):
        assert list(example) == ["text", "label", "language"], example
        assert example["label"] in LABELS and example["language"] in LANGUAGES, example
        assert example["text"] and example["text"] == example["text"].strip(), example


@pytest.mark.parametrize(("split", "count"), COUNTS.items())
def test_labels_are_balanced_in_every_language(split: str, count: int) -> None:
    cells = Counter((e["language"], e["label"]) for e in read(split))
    assert cells == dict.fromkeys(product(LANGUAGES, LABELS), count // 4)


@pytest.mark.parametrize("split", COUNTS)
def test_order_mixes_labels_and_languages(split: str) -> None:
    head = read(split)[:32]
    assert {(e["language"], e["label"]) for e in head} == set(product(LANGUAGES, LABELS))


@pytest.mark.parametrize("split", COUNTS)
def test_text_is_in_the_language_it_names(split: str) -> None:
    for example in read(split):
        text = example["text"]
        if example["language"] == "en":
            assert not CHINESE.search(text), text
            assert 3 <= len(text.split()) <= 30, text
        else:
            characters = "".join(CHINESE.findall(text))
            assert 4 <= len(characters) <= 50, text
            assert not re.search("[A-Za-z]", text), text
            characters.encode("gb2312")  # holds the simplified forms only


@pytest.mark.parametrize("split", COUNTS)
def test_text_carries_no_addresses_or_long_numbers(split: str) -> None:
    for example in read(split):
        assert not re.search(r"@|https?:|www\.|\d{3,}", example["text"]), example


def test_no_text_occurs_twice() -> None:
    seen = Counter(normalized(e["text"]) for split in COUNTS for e in read(split))
    assert [text for text, times in seen.items() if times > 1] == []


@pytest.mark.parametrize(
    ("one", "other"), [("train", "validation"), ("train", "test"), ("validation", "test")]
)
def test_no_near_duplicates_across_splits(one: str, other: str) -> None:
    right = [(e, ngrams(e)) for e in read(other)]
    for example in read(one):
        grams = ngrams(example)
        for candidate, others in right:
            overlap = len(grams & others) / len(grams | others)
            assert overlap < NEAR_DUPLICATE, (overlap, example["text"], candidate["text"])


def test_emoji_and_exclamation_marks_do_not_give_the_label_away() -> None:
    for sign in (r"[\U0001f300-\U0001faff]", "[!\uff01]"):
        marked = Counter(
            e["label"] for split in COUNTS for e in read(split) if re.search(sign, e["text"])
        )
        assert min(marked[label] for label in LABELS) >= 0.5 * max(marked.values()), (sign, marked)


def test_readme_states_the_counts() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for split, count in COUNTS.items():
        assert f"`{split}.jsonl` {count}" in readme
