"""The soak of the server in small: versions swapped, the process killed, answers checked."""

import json
import sys

import pytest

from benchmarks import serving_soak
from benchmarks.serving_load import Lives
from benchmarks.serving_models import is_same


@pytest.mark.slow
def test_a_short_soak_is_clean(tmp_path):
    file = tmp_path / "soak.json"
    arguments = ["--seconds", "3", "--clients", "4", "--compare-seconds", "0"]
    assert serving_soak.main([*arguments, "--json", str(file)]) == 0
    report = json.loads(file.read_text())["soak"]
    assert report["answered"] > 10
    assert len(report["down_seconds"]) == 1 and len(report["starts"]) == 2
    assert (report["wrong"], report["lost"], report["failed"]) == (0, {}, {})
    assert report["memory"] or sys.platform != "linux"


def test_answers_of_versions_that_were_gone_are_wrong():
    lives = Lives({"m": {"a": [{"score": 0.25}], "b": [{"score": 0.5}]}})
    lives.begin("m", "a")
    begun = lives.known["m"][0][1]
    assert lives.may_be("m", [0], [{"score": 0.2500001}], begun)
    assert not lives.may_be("m", [0], [{"score": 0.5}], begun)
    lives.begin("m", "b")
    assert all(lives.may_be("m", [0], [{"score": score}], begun) for score in (0.25, 0.5))
    # A batch is of one version.
    assert not lives.may_be("m", [0, 0], [{"score": 0.25}, {"score": 0.5}], begun)
    lives.end_older("m")
    later = lives.known["m"][0][2] + 1
    assert not lives.may_be("m", [0], [{"score": 0.25}], later)
    assert lives.may_be("m", [0], [{"score": 0.5}], later)


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ({"label": "a", "x_bytes": b""}, {"label": "a"}, True),
        ({}, {"label": "a"}, False),
        ({"count": 1, "label": ["A", ""]}, {"count": 1, "label": ["A"]}, True),
        ({"count": 2, "label": ["A", "B"]}, {"count": 1, "label": ["A"]}, False),
        ({"scores": [0.1, 0.9]}, {"scores": [0.1, 0.91]}, False),
    ],
)
def test_answers_are_compared_by_what_is_their_own(found, wanted, same):
    assert is_same(found, wanted) is same


def test_a_report_with_anything_lost_is_not_clean():
    fine = {"wrong": 0, "lost": {}, "failed": {}, "exit_status": 0}
    assert serving_soak.is_clean(fine)
    for key, value in {"wrong": 1, "lost": {"x": 1}, "failed": {"x": 1}, "exit_status": -9}.items():
        assert not serving_soak.is_clean({**fine, key: value})
