import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_keras.errors import InputError
from llama_keras.tasks.tagging import (
    Span,
    allowed,
    check_tags,
    convert_tags,
    entity_types,
    spans_of_tags,
    tag_names,
    tags_of_spans,
)

SPANS = [Span(0, 2, "PER"), Span(2, 3, "PER"), Span(4, 5, "LOC")]
WRITTEN = {
    "IOB1": "I-PER I-PER B-PER O I-LOC O",
    "IOB2": "B-PER I-PER B-PER O B-LOC O",
    "IOBES": "B-PER E-PER S-PER O S-LOC O",
}


@pytest.mark.parametrize("scheme", WRITTEN)
def test_spans_are_spelled_as_each_scheme_has_it(scheme):
    assert " ".join(tags_of_spans(SPANS[::-1], length=6, scheme=scheme)) == WRITTEN[scheme]
    assert spans_of_tags(WRITTEN[scheme].split(), scheme=scheme) == SPANS


@pytest.mark.parametrize("source", WRITTEN)
@pytest.mark.parametrize("target", WRITTEN)
def test_schemes_are_converted(source, target):
    found = convert_tags(WRITTEN[source].split(), source=source, target=target)
    assert found == WRITTEN[target].split()


def test_iob1_changes_type_without_b():
    assert spans_of_tags(["I-A", "I-B", "B-B"], scheme="IOB1") == [
        Span(0, 1, "A"), Span(1, 2, "B"), Span(2, 3, "B")
    ]  # fmt: skip


@given(st.data(), st.sampled_from(sorted(WRITTEN)))
def test_round_trip(data, scheme):
    spans, at = [], 0
    for _ in range(data.draw(st.integers(0, 4))):
        start = at + data.draw(st.integers(0, 2))
        at = start + data.draw(st.integers(1, 4))
        spans.append(Span(start, at, data.draw(st.sampled_from("AB"))))
    tags = tags_of_spans(spans, length=at + 1, scheme=scheme)
    assert spans_of_tags(tags, scheme=scheme) == spans


@pytest.mark.parametrize("scheme", ["IOB2", "IOBES"])
def test_allowed_agrees_with_check_on_every_short_sequence(scheme):
    tags = tag_names(["A", "B"], scheme=scheme)
    rules = allowed(tags, scheme=scheme)
    for sequence in itertools.product(range(len(tags)), repeat=3):
        legal = (
            rules["allowed_starts"][sequence[0]]
            and rules["allowed_ends"][sequence[-1]]
            and all(rules["allowed_transitions"][a][b] for a, b in itertools.pairwise(sequence))
        )
        try:
            check_tags([tags[number] for number in sequence], scheme=scheme)
            assert legal, sequence
        except InputError:
            assert not legal, sequence


def test_names_and_types():
    assert tag_names(["A"], scheme="IOBES") == ["O", "B-A", "I-A", "E-A", "S-A"]
    # Types may hold a hyphen.
    assert entity_types([["B-creative-work", "O"], ["I-group"]]) == ["creative-work", "group"]


@pytest.mark.parametrize(
    ("tags", "scheme", "message"),
    [
        ("O I-PER", "IOB2", r"Tag 1, 'I-PER', cannot stand after 'O': in IOB2 an entity begins"),
        ("I-PER", "IOB2", "Tag 0, 'I-PER', cannot stand at the beginning"),
        ("B-PER I-LOC", "IOB2", "'I-LOC', cannot stand after 'B-PER'"),
        ("B-PER E-PER", "IOB2", "Tag 1 is 'E-PER'; the tags of IOB2 are O and B-TYPE, I-TYPE"),
        ("PER", "IOB2", "Tag 0 is 'PER'"),
        ("B-", "IOB2", "Tag 0 is 'B-'"),
        ("O-PER", "IOB2", "Tag 0 is 'O-PER'"),
        ("B-PER O", "IOBES", "'O', cannot stand after 'B-PER': in IOBES"),
        ("B-PER", "IOBES", "'B-PER', cannot be the last"),
        ("O B-PER", "IOB1", "'B-PER', cannot stand after 'O': in IOB1"),
        ("O", "BMES", r"scheme='BMES' is not known; expected one of \['IOB1'"),
    ],
)
def test_illegal_tags_are_named_with_the_rule(tags, scheme, message):
    with pytest.raises(InputError, match=message):
        spans_of_tags(tags.split(), scheme=scheme)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([Span(0, 2, "A"), Span(1, 3, "B")], "overlaps"),
        ([Span(1, 1, "A")], "empty"),
        ([Span(2, 4, "A")], "not within the 3 tokens"),
    ],
)
def test_impossible_spans_are_refused(spans, message):
    with pytest.raises(InputError, match=message):
        tags_of_spans(spans, length=3, scheme="IOB2")
