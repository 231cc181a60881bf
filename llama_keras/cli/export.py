"""`llama-keras export`: runs, .keras files or a checkpoint as a SavedModel."""

from pathlib import Path
from typing import Annotated, Any

import typer

from llama_keras.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("export")(_export)


def _export(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Run directory, .keras file, or a checkpoint that continues text. Several, each "
            "as NAME=MODEL, share one backbone in one SavedModel.",
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="NAME/ (next free version) or NAME/VERSION, which must be new.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SETTING=VALUE",
            help="Of a generator's serving_default, such as max_new_tokens=128; repeatable.",
        ),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format", help="tf_saved_model, or litert for CPUs and devices (no versions)."
        ),
    ] = "tf_saved_model",
    dtype: Annotated[
        str, typer.Option(help="How weights are stored: float32, bfloat16 or int8.")
    ] = "float32",
    measure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUITE_OR_FILE",
            help="Measure what was written, and what it loses, on a suite (its name or file, or "
            "labelled examples) and write that into its signature.json; repeatable. Of several "
            "models NAME=SUITE_OR_FILE.",
        ),
    ] = None,
    measure_limit: Annotated[
        int | None, typer.Option(min=1, help="With --measure: take the first N examples.")
    ] = None,
) -> None:
    """Write a SavedModel that takes strings and gives answers, for TF Serving."""
    settings = dict(map(_setting, set_ or ()))
    if taken := sorted(settings.keys() & {"model", "directory", "format", "dtype", "evaluation"}):
        raise InputError(f"{taken[0]!r} is no setting of --set; there are --format and --dtype.")
    if len(models) > 1:
        if settings or format_ != "tf_saved_model":
            raise InputError("Several models in one export take no --set or --format.")
        _export_many(models, output, dtype, measure or [], measure_limit)
        return
    if measure and format_ != "tf_saved_model":
        raise InputError("--measure asks a SavedModel; leave it or --format out.")
    if format_ == "litert":
        from llama_keras.serving.litert_model import check_installed

        check_installed()  # before a model is loaded and converted
    model = _load(models[0])
    suites = _suites(measure, model, measure_limit) if measure else []
    told = {"evaluation": _evaluation(models[0])} if format_ == "tf_saved_model" else {}
    folder = model.export(output, format=format_, dtype=dtype, **told, **settings)
    print(f"exported {folder}")
    if suites:
        _measure(folder, suites, model, measure_limit)


def _suites(names: list[str], model, limit: int | None) -> list:
    """Gives the suites; what does not fit the model is said before anything is written."""
    from llama_keras.serving.export_quality import suites_for

    return suites_for(names, model=model, limit=limit)


def _measure(
    folder: Path, suites: list, model, limit: int | None, *, head: str | None = None
) -> None:
    from llama_keras.serving.export_quality import measure_export

    found = measure_export(folder, suites, model=model, head=head, limit=limit)
    print(f"{found['bytes'] / 1e6:.1f} MB")
    for name, suite in found["suites"].items():
        for metric, value in suite["metrics"].items():
            loss = suite["loss"].get(metric)
            lost = f", loss {loss['value']:.4f} ({_range(loss)})" if loss else ""
            print(f"{name}: {metric} {value['value']:.4f} ({_range(value)}), n {suite['n']}{lost}")
        print(f"{name}: one request {suite['latency']['p50_ms']:.1f} ms (median)")


def _range(value: dict[str, Any]) -> str:
    return f"{value['low']:.4f} – {value['high']:.4f}"


def _export_many(
    models: list[str], output: Path, dtype: str, measure: list[str], limit: int | None
) -> None:
    from llama_keras.serving.export_many import export_many

    named = [text.partition("=") for text in models]
    if any(not equals for _, equals, _ in named):
        raise InputError(
            "Several models are given as NAME=MODEL each, such as mood=runs/sentiment; received "
            f"{models}."
        )
    names = [name for name, *_ in named]
    if len(set(names)) < len(names):
        raise InputError(f"Each model has a name of its own; received {names}.")
    asked = [text.partition("=") for text in measure]
    if wrong := [name for name, equals, _ in asked if not equals or name not in names]:
        raise InputError(
            f"--measure takes NAME=SUITE_OR_FILE with one of the names {names}; got {wrong[0]!r}."
        )
    tasks = {name: _load(model) for name, _, model in named}
    of_each = {name: [suite for of, _, suite in asked if of == name] for name in names}
    suites = {name: _suites(found, tasks[name], limit) for name, found in of_each.items() if found}
    told = {name: _evaluation(model) for name, _, model in named}
    folder = export_many(tasks, output, dtype=dtype, evaluation=told)
    print(f"exported {folder}")
    for name, found in suites.items():
        print(f"{name}:")
        _measure(folder, found, tasks[name], limit, head=name)


def _evaluation(model: str) -> dict[str, Any]:
    from llama_keras.serving.export_manifest import evaluation_of

    return evaluation_of(Path(model).expanduser())


def _setting(text: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--set takes SETTING=VALUE such as temperature=0.7; received {text!r}.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value


def _load(model: str):
    path = Path(model).expanduser()
    file = path / "model.keras" if path.is_dir() else path
    if file.suffix == ".keras" and file.is_file():
        from llama_keras.tasks.task import Task

        return Task.load(file)
    from llama_keras.tasks import CausalLM

    try:
        return CausalLM.from_preset(model)
    except InputError as error:
        raise InputError(
            f"There is no model at '{model}': no run directory, no .keras file, and no checkpoint: "
            f"{error}"
        ) from None
