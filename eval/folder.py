"""A finished evaluation as it lies in its folder: what comparing, reporting and rescoring read."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from llama_keras.errors import InputError
from llama_keras.eval.kinds.kind import Row
from llama_keras.eval.record import RESULTS_FILE, Sample, read_json, read_samples
from llama_keras.eval.results import Result
from llama_keras.eval.suite import Suite


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate run --output` left.

    Attributes:
        folder: where it lies.
        results: by the suite's name, in the order of the run.
        suites: as they were asked, by name.
    """

    folder: Path
    results: dict[str, Result]
    suites: dict[str, Suite]

    def samples(self, suite: str) -> list[Sample]:
        """Gives a suite's examples in order.

        Raises:
            InputError: they are not all there, or a line is damaged.
        """
        file = self.folder / f"samples_{suite}.jsonl"
        samples, n = read_samples(file), self.results[suite].n
        if len(samples) != n or any("doc_hash" not in sample for sample in samples):
            raise InputError(
                f"{file} should hold the {n} examples that {RESULTS_FILE} speaks of, and holds "
                f"{len(samples)}; run the evaluation again in another folder."
            )
        return samples

    def rows(self, suite: str, samples: list[Sample]) -> list[Row]:
        """Gives what the suite, as it was asked, makes of each example's answers."""
        from llama_keras.eval.harness import rows_of

        return rows_of(self.suites[suite], samples)


def read_evaluation(folder: str | Path) -> Evaluation:
    """Gives a finished evaluation.

    Raises:
        InputError: there is none, or it is not finished.
    """
    path = Path(folder).expanduser()
    file = path / RESULTS_FILE
    if not file.is_file():
        raise InputError(
            f"{path} holds no finished evaluation ({RESULTS_FILE} is not there); make one, or go "
            f"on with it, by `llama-keras evaluate run … --output {path}`."
        )
    content = read_json(file)
    try:
        configs, details = content["configs"], content["details"]
        return Evaluation(
            path,
            {name: Result.from_dict(result) for name, result in details.items()},
            {name: Suite.model_validate(configs[name]) for name in details},
        )
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        short = " ".join(str(error).split())[:200]
        raise InputError(
            f"{file} was not written by this version of the harness ({type(error).__name__}: "
            f"{short}); run the evaluation again in another folder."
        ) from None


def chosen_suites(evaluation: Evaluation, suite: str | None) -> list[str]:
    """Gives the name asked for, or all names; raises `InputError` where there is none such."""
    if suite is None:
        return list(evaluation.results)
    if suite not in evaluation.results:
        raise InputError(
            f"{evaluation.folder} holds no suite {suite!r}; it has {list(evaluation.results)}."
        )
    return [suite]
