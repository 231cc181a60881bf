import pytest
from typer.testing import CliRunner

from llama_keras.cli import build_app
from llama_keras.errors import InputError
from llama_keras.eval.folder import read_evaluation
from llama_keras.eval.report_markdown import markdown_report
from tests.toy_records import write_record


def table(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_figure_has_its_row(records):
    text = markdown_report(records[:1])
    head, rule, *rows = table(text)
    assert head == ["suite", "n", "metric", "toy model"] and rule == ["---"] * 4
    results = read_evaluation(records[0]).results
    assert len(rows) == sum(len(result.metrics) for result in results.values())
    named = [row[0].strip("`") for row in rows if row[0]]
    assert named == list(results)
    accuracy = results["films"].metrics["accuracy"]
    wanted = f"{accuracy.value:.3f} ({accuracy.low:.3f} – {accuracy.high:.3f})"
    assert ["`films`", "24", "accuracy ↑", wanted] in rows
    assert any(row[2] == "word_perplexity ↓" for row in rows)
    assert "- toy model: toy `runs/toy model`; llama-keras" in text


def test_several_stand_side_by_side_and_what_does_not_compare_is_told(records, tmp_path):
    less = write_record(tmp_path / "c|d", skill=0.6, names=["films"], limit=12)
    text = markdown_report([*records, less])
    head, _, *rows = table(text)
    assert head[3:5] == [str(folder) for folder in records]
    assert head[5].endswith("c\\|d")
    assert all(len(row) == 6 for row in rows)
    assert [row[5] for row in rows if row[0] == "`ends`"] == ["–"]
    assert "films: " in text and "was asked 12 examples that are not those of" in text


def test_the_command_prints_it_or_writes_it(records, tmp_path):
    def invoke(*rest):
        return CliRunner().invoke(build_app(), ["evaluate", "report", *map(str, rest)])

    done = invoke(*records, "--format", "markdown")
    assert done.exit_code == 0 and done.stdout == markdown_report(records)
    file = tmp_path / "table.md"
    assert invoke(records[0], "--format", "markdown", "--output", file).exit_code == 0
    assert file.read_text(encoding="utf-8") == markdown_report(records[:1])
    done = invoke(*records)
    assert isinstance(done.exception, InputError) and "one folder" in str(done.exception)
    done = invoke(records[0], "--format", "poem")
    assert isinstance(done.exception, InputError) and "html" in str(done.exception)
    done = invoke(records[0], "--format", "markdown", "--output", tmp_path / "no" / "table.md")
    assert isinstance(done.exception, InputError) and "cannot be written" in str(done.exception)
    with pytest.raises(InputError, match="at least one folder"):
        markdown_report([])
    with pytest.raises(InputError, match="no finished evaluation"):
        markdown_report([tmp_path])
