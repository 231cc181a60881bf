import subprocess
import sys

import pytest

SETUP = """
import os, sys, pathlib
os.environ["TF_CPP_MIN_LOG_LEVEL"] = {level!r}
sys.path.insert(0, {folder!r})
from llama_keras.cli.quiet import silence_tensorflow
silence_tensorflow()
import importlib.util
importlib.util.find_spec("tensorflow")  # a look must not use the silence up
import tensorflow
print("ours", file=sys.stderr)
"""


def import_stand_in(folder, *, source: str, level: str):
    (folder / "tensorflow.py").write_text(source)
    code = SETUP.format(level=level, folder=str(folder))
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("level", "shown"), [("3", "ours\n"), ("2", "ours\n"), ("0", "noise\nours\n")]
)
def test_what_the_import_writes_is_hidden_unless_asked_for(tmp_path, level, shown):
    done = import_stand_in(tmp_path, source="import os; os.write(2, b'noise\\n')", level=level)
    assert done.stderr == shown


def test_an_import_that_fails_shows_everything(tmp_path):
    source = "import os; os.write(2, b'noise\\n'); import there_is_none"
    done = import_stand_in(tmp_path, source=source, level="3")
    assert done.returncode == 1
    assert done.stderr.startswith("noise\n")
    assert "there_is_none" in done.stderr
