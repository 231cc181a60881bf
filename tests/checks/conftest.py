import json

import pytest

from llama_keras.checks import check_recipe
from llama_keras.tasks.recipe import load_recipe

WRITERS = {
    list: lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    dict: json.dumps,
    str: lambda text: text,
}


@pytest.fixture
def check(tmp_path):
    """Checks parts given as rows (JSONL), as a tree (JSON), or as the text of a file."""

    def run(task, *overrides, suffix=".jsonl", **parts):
        settings = []
        for name, content in parts.items():
            file = tmp_path / f"{name}{suffix}"
            file.write_text(WRITERS[type(content)](content), encoding="utf-8", newline="")
            settings.append(f"data.{name}={file}")
        recipe = load_recipe(task, overrides=[*settings, "preset=llama-tiny", *overrides])
        return check_recipe(recipe).findings

    return run


@pytest.fixture
def labelled():
    """Makes rows of different texts, each label as often as told."""

    def make(word, **counts):
        return [
            {"text": f"{word} {label} number {number}", "label": label}
            for label, count in counts.items()
            for number in range(count)
        ]

    return make
