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
            "labelled examples) and write that into its signature.json; repeatable.",
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
        if settings or format_ != "tf_saved_model" or dtype != "float32":
            raise InputError("Several models in one export take no --set, --format or --dtype.")
        if measure:
            raise InputError("Several models in one export are not measured; leave --measure out.")
        print(f"exported {_export_many(models, output)}")
        return
    if measure and format_ != "tf_saved_model":
        raise InputError("--measure asks a SavedModel; leave it or --format out.")
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


def _measure(folder: Path, suites: list, model, limit: int | None) -> None:
    from llama_keras.serving.export_quality import measure_export

    found = measure_export(folder, suites, model=model, limit=limit)
    print(f"{found['bytes'] / 1e6:.1f} MB")
    for name, suite in found["suites"].items():
        for metric, value in suite["metrics"].items():
            loss = suite["loss"].get(metric)
            lost = f", loss {loss['value']:.4f} ({_range(loss)})" if loss else ""
            print(f"{name}: {metric} {value['value']:.4f} ({_range(value)}), n {suite['n']}{lost}")
        print(f"{name}: one request {suite['latency']['p50_ms']:.1f} ms (median)")


def _range(value: dict[str, Any]) -> str:
    return f"{value['low']:.4f} – {value['high']:.4f}"


def _export_many(models: list[str], output: Path) -> Path:
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
    return export_many(
        {name: _load(model) for name, _, model in named},
        output,
        evaluation={name: _evaluation(model) for name, _, model in named},
    )


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
