"""Check that an export runs where this package is not: what it holds, and what it answers."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from .manifest import MANIFEST_FILE, Manifest, read_manifest
from .rest import RestError, decode_inputs, requested_signature
from .signature_def import DEFAULT_SIGNATURE, SavedModelInfo, read_saved_model
from .verify_answers import Unlike, as_text, columns_of, difference
from .verify_runs import SERVER, c_api_answer, clean_process, server_answer
from .versions import find_model

Level = Literal["good", "fail", "skip"]
# Operations of TF-Text that a stock TF Serving links (its model_servers/BUILD, ops_lib), those of
# them that exports here need.
TEXT_OPS = frozenset(
    {
        "SentencepieceOp",
        "SentencepieceTokenizeOp",
        "SentencepieceTokenizeWithOffsetsOp",
        "SentencepieceDetokenizeOp",
        "RegexSplitWithOffsets",
        "NormalizeUTF8",
    }
)
TOLERANCE = 1e-3
_COLOURS: dict[Level, str] = {"good": "green", "fail": "bold red", "skip": "dim"}


@dataclass(frozen=True)
class Line:
    """What one check found.

    Attributes:
        check: its name.
        level: "good", "fail" or "skip" (not done; the message says why).
        message: one sentence.
        difference: the largest one between the answer and the recorded one, where asked.
    """

    check: str
    level: Level
    message: str
    difference: float | None = None


@dataclass(frozen=True)
class Verification:
    """What was found in an export.

    Attributes:
        path: the version's folder.
        lines: one a check.
    """

    path: str
    lines: tuple[Line, ...]

    @property
    def level(self) -> Level:
        """`fail` if any check failed, else `good`."""
        return "fail" if any(line.level == "fail" for line in self.lines) else "good"

    def to_dict(self) -> dict[str, Any]:
        """Gives it as plain values for JSON."""
        return {"path": self.path, "level": self.level, "checks": [asdict(x) for x in self.lines]}


def verify(directory: str | Path, *, model=None, tolerance: float = TOLERANCE) -> Verification:
    """Checks an export: its graph, and its answer to the manifest's example wherever it can run.

    The example goes through a Python process that has TensorFlow and TF-Text alone, through the
    C++ loader by TensorFlow's C API (a process that never imports tensorflow), and through
    `tensorflow_model_server` where that is on the PATH.

    Args:
        directory: NAME/ (its newest version) or NAME/VERSION/.
        model: the task that was exported; what it computes now is compared as well.
        tolerance: how far a number may be from the recorded one, relative to that where above 1.

    Raises:
        InputError: there is no SavedModel in the folder, or an argument is wrong.
    """
    if not tolerance > 0:
        raise InputError(f"The tolerance is a number above 0; received {tolerance}.")
    folder = find_model(directory).path
    export = _Export(folder, read_saved_model(folder), read_manifest(folder), tolerance)
    checks = [_manifest, _operations, _paths, _clean_process, _c_api, _server]
    lines = [check(export) for check in checks]
    if model is not None:
        lines.append(_model(export, model))
    return Verification(str(folder), tuple(lines))


def print_verification(found: Verification) -> None:
    """Prints one line a check, in colour on a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    width = max(len(line.check) for line in found.lines)
    for line in found.lines:
        text = Text().append(line.level, style=_COLOURS[line.level])
        console.print(text.append(f"  {line.check:<{width}}  ", style="bold").append(line.message))
    levels = [line.level for line in found.lines]
    counts = ", ".join(f"{levels.count(level)} {level}" for level in _COLOURS)
    console.print(Text(f"{found.path}: {counts}", style=_COLOURS[found.level]))


@dataclass(frozen=True)
class _Export:
    path: Path
    info: SavedModelInfo
    manifest: Manifest
    tolerance: float

    @cached_property
    def signature(self) -> str:
        return requested_signature(self.manifest.example_request) or DEFAULT_SIGNATURE

    @cached_property
    def example(self) -> tuple[dict[str, Any], dict[str, Any]] | str:
        """The example's inputs and outputs by name, or what keeps it from being asked."""
        if not (self.path / MANIFEST_FILE).is_file():
            return f"there is no {MANIFEST_FILE}; export the model again"
        if not self.manifest.example_request or not self.manifest.example_response:
            return f"{MANIFEST_FILE} holds no example with its response; export the model again"
        try:
            signature = self.info.signatures[self.signature]
            arrays, _ = decode_inputs(self.manifest.example_request, signature=signature)
            columns = {name: as_text(array.tolist()) for name, array in arrays.items()}
            outputs = list(signature.outputs)
            return columns, columns_of(self.manifest.example_response, outputs=outputs)
        except KeyError:
            return f"the graph lacks the signature {self.signature!r} that the example asks for"
        except RestError as error:
            return f"the example does not fit the signature: {error.message}"
        except Unlike as unlike:
            return f"the example does not fit the signature: {unlike}"

    @cached_property
    def clean(self) -> dict[str, Any]:
        return clean_process(
            self.path,
            operations=sorted(self.info.operations),
            signature=self.signature,
            columns=None if isinstance(self.example, str) else self.example[0],
        )

    def compare(self, check: str, answer: Callable[..., dict[str, Any]]) -> Line:
        """Compares `answer(signature=, columns=)` for the example with the recorded response."""
        if isinstance(self.example, str):
            return Line(check, "skip", f"Not asked: {self.example}.")
        columns, recorded = self.example
        try:
            found = answer(signature=self.signature, columns=columns)
            largest = difference(recorded, found)
        except Unlike as unlike:
            return Line(check, "fail", f"Not the recorded response: {unlike}.")
        except InputError as error:
            return Line(check, "fail", _one_line(str(error)))
        if largest > self.tolerance:
            told = f"{largest:.3g}, above {self.tolerance:g}"
            message = f"Not the recorded response: the largest difference is {told}."
            return Line(check, "fail", message, largest)
        message = f"The recorded response; largest difference {largest:.2g}."
        return Line(check, "good", message, largest)


def _manifest(export: _Export) -> Line:
    if isinstance(export.example, str):
        return Line("manifest", "fail", f"{export.example[0].upper()}{export.example[1:]}.")
    packages = [f"{name} {number}" for name, number in export.manifest.versions.items()]
    message = "; ".join(
        [
            f"{export.manifest.task}, {len(export.info.signatures)} signatures",
            *([f"written by {', '.join(packages)}"] if packages else []),
        ]
    )
    return Line("manifest", "good", f"{message}.")


def _operations(export: _Export) -> Line:
    foreign = set(export.clean.get("foreign", ()))
    python = {op for op in export.info.operations if "PyFunc" in op}
    if unknown := sorted(foreign - TEXT_OPS | python):
        return Line("operations", "fail", f"A stock TF Serving does not have {', '.join(unknown)}.")
    if "foreign" not in export.clean:
        return Line("operations", "fail", _one_line(export.clean["error"]))
    message = f"{len(export.info.operations)} kinds, {len(foreign)} of them TF-Text's."
    return Line("operations", "good", message)


def _paths(export: _Export) -> Line:
    if "paths" not in export.clean:
        return Line("paths", "fail", _one_line(export.clean["error"]))
    if found := export.clean["paths"]:
        message = f"The graph or its assets name files of a machine: {', '.join(found)}."
        return Line("paths", "fail", message)
    return Line("paths", "good", "No absolute path in the graph or in its assets.")


def _clean_process(export: _Export) -> Line:
    if "error" in export.clean:
        return Line("clean process", "fail", _one_line(export.clean["error"]))
    return export.compare("clean process", lambda **_: export.clean["outputs"])


def _c_api(export: _Export) -> Line:
    return export.compare("C API", lambda **asked: c_api_answer(export.path, **asked))


def _server(export: _Export) -> Line:
    binary = shutil.which(SERVER)
    if binary is None:
        return Line(SERVER, "skip", f"Not asked: there is no {SERVER} on the PATH.")
    return export.compare(
        SERVER,
        lambda **asked: server_answer(
            export.path,
            binary=binary,
            outputs=list(export.info.signatures[export.signature].outputs),
            **asked,
        ),
    )


def _model(export: _Export, model) -> Line:
    """Compares with what the task's own weights give in this process."""
    import tensorflow as tf

    from ..training.adapters import merged_lora
    from .signatures import EXPORT_SETTINGS, SIGNATURES

    kind = type(model).__name__
    if kind not in SIGNATURES:
        raise InputError(f"A {kind} cannot be exported; these can: {sorted(SIGNATURES)}.")

    def answer(signature: str, columns: dict[str, Any]) -> dict[str, Any]:
        wanted = EXPORT_SETTINGS.get(kind, ())
        defaults = export.manifest.content.get("defaults") or {}
        settings = {name: defaults[name] for name in wanted if name in defaults}
        with merged_lora(model):  # as its export has it
            return ask(SIGNATURES[kind](model, **settings).functions, signature, columns)

    def ask(functions, signature: str, columns: dict[str, Any]) -> dict[str, Any]:
        if signature not in functions:
            raise InputError(f"A {kind} has no signature {signature!r}; it has {list(functions)}.")
        function = functions[signature]
        if {spec.name for spec in function.input_signature} != columns.keys():
            raise InputError(f"A {kind} like this one does not take the inputs {sorted(columns)}.")
        tensors = {
            spec.name: tf.constant(columns[spec.name], spec.dtype)
            for spec in function.input_signature
        }
        found = function(**tensors)
        return {name: as_text(value.numpy().tolist()) for name, value in found.items()}

    return export.compare("model", answer)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 400 else f"{line[:399]}…"
