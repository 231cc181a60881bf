"""Ask an export in processes of their own: a clean Python, the C API, `tensorflow_model_server`."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError

SERVER = "tensorflow_model_server"
_SECONDS = 300.0
# The server is this machine's own, whatever proxy the environment names.
_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def clean_process(folder: Path, **request: Any) -> dict[str, Any]:
    """Gives what `clean_process.py` found; `error` is there where `outputs` is not.

    Args:
        folder: of `saved_model.pb`.
        **request: `operations`, `signature` and `columns`, as that program takes them.
    """
    script = str(Path(__file__).with_name("clean_process.py"))
    text = json.dumps({"folder": str(folder), **request})
    done = _run([sys.executable, "-I", script], text=text)
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found.update(json.loads(line))
    return found if found.keys() & {"outputs", "error"} else {**found, "error": _end(done)}


def c_api_answer(folder: Path, *, signature: str, columns: dict[str, Any]) -> dict[str, Any]:
    """Gives the outputs of a signature from the C++ loader, by `c_api`.

    Raises:
        InputError: it does not load or refuses the inputs.
    """
    command = [sys.executable, "-m", "llama_keras.serving.c_api", str(folder)]
    # The process runs elsewhere, where a checkout is not found by itself.
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    command += ["--signature", signature, "--inputs", "-"]
    done = _run(command, text=json.dumps({"inputs": columns}), environment=environment)
    if done.returncode:
        raise InputError(_end(done))
    return json.loads(done.stdout)["outputs"]


def server_answer(
    folder: Path, *, binary: str, signature: str, columns: dict[str, Any], outputs: Sequence[str]
) -> dict[str, Any]:
    """Gives the outputs of a signature from a TF Serving that is started for it.

    Raises:
        InputError: it does not load the model or refuses the request.
    """
    body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
    with _started(folder, binary=binary) as url:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}:predict", body, headers)
        try:
            with _OPEN(request, timeout=_SECONDS) as reply:
                found = json.load(reply)["outputs"]
        except urllib.error.HTTPError as error:
            raise InputError(f"HTTP {error.code}: {error.read().decode()[:300]}") from None
    return found if len(outputs) > 1 else {outputs[0]: found}  # REST leaves out a single name


@contextmanager
def _started(folder: Path, *, binary: str) -> Iterator[str]:
    """Starts the server on free ports with this version alone; gives the model's URL."""
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary) / "model"
        base.mkdir()
        (base / "1").symlink_to(folder, target_is_directory=True)
        rest, grpc = _free_ports()
        command = [binary, f"--rest_api_port={rest}", f"--port={grpc}", "--model_name=model"]
        log = Path(temporary) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, f"--model_base_path={base}"], stdout=file, stderr=subprocess.STDOUT
            )
        url = f"http://127.0.0.1:{rest}/v1/models/model"
        try:
            until = time.monotonic() + _SECONDS
            while not _available(url):
                if process.poll() is not None or time.monotonic() > until:
                    end = log.read_text("utf-8", "replace").strip()[-300:]
                    raise InputError(f"{SERVER} did not load it: {end}")
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait()


def _available(url: str) -> bool:
    try:
        with _OPEN(url, timeout=5) as reply:
            return json.load(reply)["model_version_status"][0]["state"] == "AVAILABLE"
    except (OSError, ValueError, LookupError):
        return False


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _run(
    command: list[str], *, text: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as elsewhere:
        return subprocess.run(
            command,
            input=text,
            capture_output=True,
            encoding="utf-8",
            cwd=elsewhere,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **(environment or {})},
            check=False,
        )


def _end(done: subprocess.CompletedProcess[str]) -> str:
    # What TensorFlow logs comes before what `c_api` says.
    _, told, reason = done.stderr.rpartition("error: ")
    said = reason.strip() if told else " ".join(done.stderr.strip().splitlines()[-3:])
    return f"The process ended with exit code {done.returncode}: {said}"
