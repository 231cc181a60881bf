"""A tiny model that writes, and its export, made once for all tests that need them."""

import atexit
import contextlib
import shutil
import tempfile
import threading
from functools import cache
from pathlib import Path

import keras

from llama_keras.serving import SavedModel
from llama_keras.tasks import CausalLM

PROMPTS = [
    "Once upon a time",
    "x",
    "A much longer prompt than the others, with many tokens",
    "née 今天天气 🙂",
    "",
    "null \x00 byte <|im_end|>",
]
# Each with the settings of all rows; together they take every branch of the sampler.
SETTINGS = {
    "greedy": {"max_new_tokens": [40, 1, 17, 16, 18, 40]},
    "sampled": {
        "max_new_tokens": [9] * 6,
        "temperature": [0.0, 0.7, 1.0, 1.3, 5.0, 0.01],
        "top_k": [0, 0, 1, 3, 50, 0],
        "top_p": [1.0, 0.9, 1.0, 0.5, 0.3, 1.0],
        "seed": [0, 7, -1, 2**33 + 7, 2**31, 2**62],
    },
}
# Of settings that a test leaves out.
DEFAULTS = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
# Of `serving_default`.
EXPORTED = {"max_new_tokens": 24, "temperature": 0.8, "seed": 3, "stop": ["~~", "o"]}


@cache
def writer_model() -> CausalLM:
    """Tiny, random, and sharpened so that its greedy text varies and no two tokens tie."""
    keras.utils.set_random_seed(1)
    model = CausalLM.from_preset("llama-tiny", jit_generate=False)
    for variable in model.backbone.variables:
        if len(variable.shape) > 1:
            variable.assign(variable * 3.0)
    return model


@cache
def writer_folder() -> Path:
    """The version's folder, `writer/1`."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return writer_model().export(Path(folder) / "writer", **EXPORTED)


@cache
def writer_saved() -> SavedModel:
    """The export, loaded."""
    return SavedModel(writer_folder())


@contextlib.contextmanager
def serving_app(app):
    """The base URL of an ASGI application on loopback."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
