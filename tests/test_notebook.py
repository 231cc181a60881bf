import json
import re

import numpy as np
import pytest

PRESET = "PRESET = default_preset()"


@pytest.fixture(scope="module")
def notebook(repository):
    return json.loads((repository / "examples/article.ipynb").read_text(encoding="utf-8"))


def code_of(notebook) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_it_is_a_notebook_without_outputs(notebook):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook.keys() == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert {cell["cell_type"] for cell in notebook["cells"]} == {"markdown", "code"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]{1,64}", id_) for id_ in ids)
    for cell in notebook["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            wanted |= {"execution_count", "outputs"}
            assert cell["outputs"] == [] and cell["execution_count"] is None
        assert cell.keys() == wanted and cell["metadata"] == {}
        assert all(line.endswith("\n") for line in cell["source"][:-1])


def test_its_files_and_commands_exist(notebook, repository):
    text = "".join("".join(cell["source"]) for cell in notebook["cells"])
    assert (repository / "docs/article.md").is_file() and "docs/article.md" in text
    assert (repository / "examples/article.py").is_file() and "article.py" in text
    assert (repository / "tasks/recipes/pretraining/article_small.yaml").is_file()
    assert set(re.findall(r"llama-keras (\w+)", text)) == {"explain", "pretrain", "train"}


@pytest.fixture(scope="module")
def names(notebook, repository):
    """What the cells leave behind, run in their order with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository / "examples")
        patch.syspath_prepend(repository / "examples")
        found: dict = {"__name__": "__main__"}
        cells = code_of(notebook)
        assert cells[0].count(PRESET) == 1
        cells[0] = cells[0].replace(PRESET, 'PRESET = "llama-tiny"')
        for number, source in enumerate(cells):
            exec(compile(source, f"article.ipynb, code cell {number}", "exec"), found)
    return found


def test_text_integers_and_noise(names):
    assert names["sentence"].split() == ["today", "s", "weather", "is", "fine", "isn", "t", "it"]
    assert names["decoded"] == names["text"] == "今天天气很好"
    spans = names["encoding"].offsets
    assert len(spans) > len(names["text"]) and {end - start for start, end in spans} == {1}
    masked, deleted = names["found"].corruptions
    count = len(names["found"].tokens)
    assert masked.hit and deleted.hit
    assert len(masked.tokens) == count and len(deleted.tokens) == count - len(deleted.hit)


def test_attention(names):
    assert names["distances"].tolist() == [[50, 509, 1454], [5, 302, 1085], [14, 149, 770]]
    np.testing.assert_allclose(names["by_layer"], names["by_hand"], rtol=1e-3, atol=1e-12)
    kernels = names["layer"].attention
    assert {attention.kernel for attention in kernels} == {"dot_product", "gaussian"}
    assert {attention.normalized for attention in kernels} == {True, False}
    for attention in kernels:
        if attention.normalized:
            np.testing.assert_allclose(attention.weights.sum(axis=-1), 1.0, atol=1e-4)
        assert not np.triu(attention.weights, k=1).any()
    vectors = names["found"]
    assert vectors.embeddings.values.shape == vectors.contextual.values.shape
    assert (names["FOLDER"] / "explanation.html").is_file()


def test_the_objectives(names):
    first, again, other = (np.array(batch["token_ids"]) for batch in names["batches"])
    assert (first == again).all() and (first != other).any()
    batch = {name: np.array(value)[0] for name, value in names["batches"][0].items()}
    changed = batch["token_ids"] != batch["targets"]
    assert batch["weights"].sum() > 0 and not (changed & (batch["weights"] == 0)).any()
    assert names["after"]["loss"] < 0.5 * names["before"]["loss"]
    assert names["answer"]["text"] == "blue sky"
    row = {name: np.array(value)[0] for name, value in names["row"].items()}
    assert (row["weights"] == 1 - row["prefix_mask"]).all()
    written = row["token_ids"][row["prefix_mask"] == 0]
    assert names["letters"].decode(written[:-1]) == "blue sky"
    assert written[-1] == names["denoiser"].mask_tokens.end_id


def test_fine_tuning(names):
    assert (names["inputs"]["token_ids"][0, 1:8] == names["targets"][0, :7]).all()
    lengths = [len(row) - 1 for row in names["id_rows"][:2]]
    assert names["weights"].sum(axis=1).tolist() == lengths
    script = names["article"]
    assert (script.EPOCHS, script.BATCH, script.RATE) == (3, 32, 1e-5)
    losses = names["results"]["loss"]
    assert len(losses) == 3 and losses[2] < losses[0]
