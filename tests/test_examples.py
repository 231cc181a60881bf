import re
import runpy

import pytest


def test_classify_and_serve(repository, tmp_path):
    example = runpy.run_path(str(repository / "examples/classify_and_serve.py"))
    answers = example["main"](str(tmp_path), "llama-tiny")
    assert [answer["label"] in ("negative", "positive") for answer in answers] == [True] * 3
    assert (tmp_path / "sentiment/1/saved_model.pb").is_file()


@pytest.mark.slow
def test_the_readmes_tour_in_python(repository, tmp_path, monkeypatch):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    (tour,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(tour.replace("smollm2-135m-instruct", "llama-tiny"), names)
    assert (tmp_path / "saved_models/sentiment/1/saved_model.pb").is_file()
    (answer,) = names["model"].predict(["A lovely, moving film."], verbose=0)
    assert set(answer["scores"]) == {"negative", "positive"}
