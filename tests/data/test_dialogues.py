import json

import pytest

from llama_keras.data.dialogues import load_dialogues
from llama_keras.errors import InputError


def write(tmp_path, *rows):
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def test_turns_without_roles_alternate(tmp_path):
    turns = [{"text": "Hi.", "act": "inform"}, "Hello!", {"content": "Bye.", "role": "system"}]
    data = load_dialogues(write(tmp_path, {"turns": turns}, {"turns": ["x", "y"]}))
    assert [(m["role"], m["content"]) for m in data.conversations[0]] == [
        ("user", "Hi."),
        ("assistant", "Hello!"),
        ("system", "Bye."),
    ]
    assert len(data) == 2 and len(data.head(1)) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"turns": []}, "line 1: there is no list of turns 'turns'"),
        ({"talk": ["a"]}, "line 1: there is no list of turns 'turns'"),
        ({"turns": ["a", " "]}, "line 1: turn 1 has no text"),
        ({"turns": [{"role": "user"}]}, "line 1: turn 0 has no text"),
        (
            {"turns": [{"role": "human", "text": "a"}, {"role": "gpt", "text": "b"}]},
            r"line 1: turn 0 has the role 'human'; expected one of \['system'.*human to user",
        ),
        ({"turns": [{"role": None, "text": "a"}]}, "line 1: turn 0 has the role None"),
        ({"turns": [{"role": ["user"], "text": "a"}]}, r"turn 0 has the role \['user'\]"),
        ({"turns": ["a"]}, "line 1: no turn has the role 'assistant', so there is nothing to"),
        (
            {"turns": [{"role": "user", "text": "a"}, {"role": "user", "text": "b"}]},
            "line 1: no turn has the role 'assistant'",
        ),
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        load_dialogues(write(tmp_path, row))


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no conversations"):
        load_dialogues(write(tmp_path))


def test_real_dialogues(shared_dir):
    data = load_dialogues(shared_dir / "data/dailydialog", split="validation")
    assert len(data) == 1000
    assert data.conversations[0][1]["role"] == "assistant"
