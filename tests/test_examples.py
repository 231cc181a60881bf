import runpy


def test_classify_and_serve(repository, tmp_path):
    example = runpy.run_path(str(repository / "examples/classify_and_serve.py"))
    answers = example["main"](str(tmp_path), "llama-tiny")
    assert [answer["label"] in ("negative", "positive") for answer in answers] == [True] * 3
    assert (tmp_path / "sentiment/1/saved_model.pb").is_file()
