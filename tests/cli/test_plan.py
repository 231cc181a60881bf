import json
import subprocess
import sys

from tests.test_package import HEAVY

EIGHT = ["plan", "--preset", "llama-3.1-8b", "--devices", "8", "--strategy", "zero"]


def run(*arguments: str) -> subprocess.CompletedProcess:
    code = f"""
import sys
from llama_keras.cli import main
sys.argv = ["llama-keras", *{list(arguments)!r}]
try:
    main()
finally:
    heavy = [name for name in {HEAVY} if name in sys.modules]
    assert not heavy, heavy
"""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_plan_is_printed_without_loading_anything_heavy():
    done = run(*EIGHT, "--remat", "--attention", "fused", "--tokens", "1e9")
    assert done.returncode == 0, done.stderr
    for words in ("8 x h100 (zero)", "fits", "MFU", "tokens/s", "1 Gtokens"):
        assert words in done.stdout


def test_json_has_all_numbers():
    done = run(*EIGHT, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["parameters"] == 8_030_261_248
    assert found["settings"]["strategy"] == "zero"
    assert found["training_seconds"] is None


def test_a_mistake_is_told_with_what_is_known():
    done = run("plan", "--preset", "llama-tiny", "--device", "abacus")
    assert done.returncode == 2
    assert "h100" in done.stderr and "abacus" in done.stderr
