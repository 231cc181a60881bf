import json
import subprocess
import sys

import pytest

from llama_keras.errors import InputError
from llama_keras.serving.c_api import CApiModel

# Asks one loaded model several things, so that TensorFlow's libraries load once.
SCRIPT = """
import json, os, sys
import numpy as np
from llama_keras.errors import InputError
from llama_keras.serving.c_api import CApiModel

answers = {}
with CApiModel(sys.argv[1]) as model:
    def ask(name, **inputs):
        try:
            outputs = model.run(name, inputs)
        except InputError as error:
            return str(error)
        return {key: [item.hex() if isinstance(item, bytes) else item for item in value.tolist()]
                for key, value in outputs.items()}
    strings = lambda *items: np.array(items + (None,), object)[:-1]
    long = b"good " * 20000
    answers["classify"] = ask("classify", text=strings(b"good", b"", b"nul \\0 good", long))
    answers["empty"] = ask("classify", text=strings())
    answers["echo"] = ask("echo", data=strings(b"\\xff\\0A", long)) 
    answers["words"] = ask("words", text=strings(b"a b", b"c"))
    answers["numbers"] = ask("numbers", x=np.array([[1, 2.5]], np.float32)[:, :],
        add=np.array([3], np.int32), wide=np.array([2**40]), negate=np.array([True]))
    answers["transposed"] = ask("numbers", x=np.array([[1, 3], [2, 4]], np.float32).T,
        add=np.zeros(2, np.int32), wide=np.zeros(2, np.int64), negate=np.zeros(2, bool))
    answers["refused"] = ask("pick", index=np.array([5], np.int32))
    answers["after"] = ask("pick", index=np.array([1], np.int32))
    answers["unknown"] = ask("no")
    answers["missing"] = ask("classify")
    memory = []
    for number in range(160):
        model.run("echo", {"data": strings(*[long] * 10)})
        if number in (59, 159) and os.path.exists("/proc/self/statm"):
            with open("/proc/self/statm") as file:
                memory.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    answers["memory"] = memory
    answers["tensorflow"] = model.tensorflow_version
answers["imported"] = sorted({"tensorflow", "keras", "tensorflow_text"} & set(sys.modules))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tiny_model):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_model)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_no_tensorflow_in_the_process(answers):
    assert answers["imported"] == []
    assert answers["tensorflow"].startswith("2.")


def test_strings(answers):
    classify = answers["classify"]
    assert [bytes.fromhex(item).decode() for item in classify["label"]] == [
        "positive",
        "negative",
        "positive",
        "positive",
    ]
    assert classify["score"] == [0.75, 0.875, 0.75, 0.75]
    assert classify["scores"][1] == [0.875, 0.125]
    assert answers["empty"] == {"label": [], "score": [], "scores": []}
    echo = [bytes.fromhex(item) for item in answers["echo"]["data_bytes"]]
    assert echo == [b"\xff\0A", b"good " * 20000]


def test_tf_text_op(answers):
    assert answers["words"] == {"words": [2, 1]}


def test_numbers(answers):
    assert answers["numbers"] == {"flag": [False], "total": [-6.5], "wide": [2**40 + 1]}
    assert answers["transposed"]["total"] == [3.0, 7.0]


def test_errors_leave_the_session_usable(answers):
    assert "index too large" in answers["refused"]
    assert bytes.fromhex(answers["after"]["label"][0]) == b"positive"
    assert "There is no signature 'no'; the model has: classify" in answers["unknown"]
    assert "takes ['text']; got []" in answers["missing"]


def test_strings_are_freed(answers):
    if not answers["memory"]:
        pytest.skip("no /proc to read the memory in use from")
    before, after = answers["memory"]  # between them 100 requests of 1 MB, and their answers
    assert after - before < 30e6


def test_refuses_where_tensorflow_is_imported(tiny_model):
    import tensorflow  # noqa: F401

    with pytest.raises(InputError, match="already imported"):
        CApiModel(tiny_model)


def run_module(*arguments, stdin=""):
    return subprocess.run(
        [sys.executable, "-m", "llama_keras.serving.c_api", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_command_line_equals_the_server(tiny_model, tiny_url, tmp_path):
    import httpx

    request = {"signature_name": "classify", "inputs": {"text": ["good", "bad 你好"]}}
    (tmp_path / "request.json").write_text(json.dumps(request))
    done = run_module(tiny_model / "3", "--inputs", tmp_path / "request.json")
    assert done.returncode == 0, done.stderr
    served = httpx.post(f"{tiny_url}:predict", json=request, trust_env=False, timeout=30)
    assert json.loads(done.stdout) == served.json()


def test_command_line_with_plain_values_names_a_single_output(tiny_model):
    done = run_module(
        tiny_model, "--signature", "words", "--inputs", "-", stdin='{"text": ["a b c"]}'
    )
    assert json.loads(done.stdout) == {"outputs": {"words": [3]}}, done.stderr


def test_finds_an_export_that_python_loads_and_tf_serving_cannot(tmp_path):
    import keras
    import tensorflow as tf

    class WithKerasLayer(tf.Module):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)  # Keras 3 variables are lost to the C++ loader
            self.dense.build((None, 1))

        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "x")])
        def call(self, x):
            return {"y": self.dense(x)}

    module = WithKerasLayer()
    tf.saved_model.save(module, str(tmp_path), signatures=module.call)
    loaded = tf.saved_model.load(str(tmp_path))
    assert loaded.signatures["serving_default"](x=tf.ones([1, 1]))["y"].shape == (1, 1)  # pyright: ignore[reportAttributeAccessIssue]
    done = run_module(tmp_path, "--inputs", "-", stdin='{"x": [[1.0]]}')
    assert done.returncode == 2
    assert "Could not find variable" in done.stderr


def test_command_line_mistakes(tmp_path):
    done = run_module(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
