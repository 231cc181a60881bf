"""The demo: raw text to a served Llama, each stage the real thing."""

import time
from collections.abc import Sequence
from pathlib import Path

TEXTS = (
    "The soup was cold, but the waiter fixed it with a smile and a free dessert.",
    "I want those two hours of my life back.",
    "电池两天才充一次，真的很省心。",
    "房间又小又吵，再也不会来了。",
)
QUESTION = "What is the capital of France?"


def _next_free(folder: Path) -> Path:
    number = 1
    while (folder / f"demo-{number}").exists():
        number += 1
    return folder / f"demo-{number}"


def run_demo(*, output: Path | None = None, overrides: Sequence[str] = ()) -> None:
    """Fine-tunes, evaluates, exports, serves and asks; prints what happens.

    Args:
        output: a new run directory; by default the next free `runs/demo-N`.
        overrides: fields of the recipe `demo_sentiment`, as `path=value`.
    """
    from llama_keras.runner import run_recipe
    from llama_keras.tasks import CausalLM
    from llama_keras.tasks.recipe import load_recipe

    started = time.time()
    stage = _stages(started)
    recipe = load_recipe("demo_sentiment", overrides=[*overrides, "export=true"])
    directory = output or _next_free(Path("runs"))

    stage(f"Generate with {recipe.preset}, before any training")
    # One short answer is there sooner than XLA could compile for it.
    model = CausalLM.from_preset(recipe.preset, jit_generate=False)
    answer = model.chat([{"role": "user", "content": QUESTION}], max_new_tokens=16)
    print(f"{QUESTION}\n→ {answer.text}")
    del model, answer

    stage("Fine-tune on the shipped sentences (English and Chinese) with model.fit")
    run = run_recipe(recipe, output=directory)

    stage("Evaluate: the Keras model, its SavedModel and the server on the same test sentences")
    _evaluate_and_ask(run.directory, run.export, stage)

    stage("Done")
    print(f"run        {run.directory}/  (metrics.json, model.keras, logs/ for TensorBoard)")
    print(f"SavedModel {run.export}/")
    print(f"serve it   .venv/bin/llama-keras serve {run.directory}")
    print("ask it     .venv/bin/llama-keras predict http://127.0.0.1:8501 'What a day!'")


def _evaluate_and_ask(directory, export, stage) -> None:
    from llama_keras.eval import evaluate
    from llama_keras.serving.client import predict
    from llama_keras.serving.server import serve_in_background

    with serve_in_background(export, port=0) as url:
        for model in (directory, export, url):
            result = evaluate("demo_sentiment", model=model, show_progress=False)
            accuracy = result.metrics["accuracy"]
            print(
                f"{result.model['kind']:<12} accuracy {accuracy.value:.3f} "
                f"(95 % interval {accuracy.low:.3f} – {accuracy.high:.3f}, n {result.n})"
            )
        stage(f"Ask the live server at {url}")
        for text, row in zip(TEXTS, predict(url, list(TEXTS)), strict=True):
            print(f"{row['label']:<9} {row['score']:.3f}  {text}")


def _stages(started: float):
    numbers = iter(range(1, 100))

    def stage(title: str) -> None:
        print(f"\n[{next(numbers)}] {title}  ({time.time() - started:.0f} s)", flush=True)

    return stage
