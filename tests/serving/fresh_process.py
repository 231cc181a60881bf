"""Exports run in a process without our code, and through the C API as TF Serving runs them."""

import atexit
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from llama_keras.serving.signature_def import read_saved_model
from llama_keras.serving.verify import TEXT_OPS as TEXT_OPS

_FRESH = """
import json, sys, traceback
import tensorflow as tf, tensorflow_text

def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value

def answer(folder, name, columns):
    model = tf.saved_model.load(folder)
    types = model.signatures[name].structured_input_signature[1]
    out = model.signatures[name](**{k: tf.constant(v, types[k].dtype) for k, v in columns.items()})
    return {k: plain(v.numpy().tolist()) for k, v in out.items()}

for line in sys.stdin:
    try:
        found = {"outputs": answer(*json.loads(line))}
        assert not {"llama_keras", "keras_hub"} & set(sys.modules)
    except Exception:
        found = {"error": traceback.format_exc()}
    print(json.dumps(found), flush=True)
"""


def fresh_answers(folder, columns, *, signature: str = "serving_default") -> dict:
    """Gives the outputs of a signature from a process that has TensorFlow and TF-Text alone."""
    process = _process()
    assert process.stdin and process.stdout
    try:
        process.stdin.write(json.dumps([str(folder), signature, columns]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BaseException:  # a test's time ran out: its answer is not the next one's
        process.kill()
        _process.cache_clear()
        raise
    assert line, f"the process ended with exit code {process.wait()}"
    found = json.loads(line)
    assert "error" not in found, found["error"]
    return found["outputs"]


@cache
def _process() -> subprocess.Popen:
    """Starts the process that answers, one for all tests: it imports TensorFlow for seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", _FRESH],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(process.communicate)  # which closes its input, and so ends it
    return process


def c_api_answers(folder, columns, *, signature: str = "serving_default") -> dict:
    """Gives the outputs of a signature by the C API."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "request.json"
        file.write_text(json.dumps(columns), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "llama_keras.serving.c_api", str(folder)]
            + ["--signature", signature, "--inputs", str(file)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["outputs"]


def operations(folder) -> set[str]:
    """Gives the names of all ops of an export's graphs."""
    return set(read_saved_model(folder).operations)


def ops_beyond_core(folder) -> set[str]:
    """Gives those of them that TensorFlow's core lacks."""
    from tensorflow.python.framework import op_def_registry

    # TF-Text's own ops are registered in this process too, but under these names alone.
    return {op for op in operations(folder) if op in TEXT_OPS or op_def_registry.get(op) is None}
