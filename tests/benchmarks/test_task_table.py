import json
import shlex
from dataclasses import replace

import pytest

from benchmarks.task_drawing import draw
from benchmarks.task_jobs import JOBS, PEER, STRATEGIES, Job
from benchmarks.task_table import command, finished, key, unfinished
from llama_keras.tasks.pretraining_recipe import load_pretraining_recipe
from llama_keras.tasks.recipe import load_recipe
from llama_keras.training import fine_tuning


def metric(value, **more):
    intervals = {name: [x - 0.01, x + 0.02] for name, x in {**more, "f1": value}.items()}
    return {"test": {**more, "f1": value, "n": 9, "intervals": intervals}}


def result(job, metrics, **more):
    return {
        "command": key(job),
        "recipe": job.recipe,
        "table": job.table,
        "mask": job.mask,
        "library": job.library,
        "note": job.note,
        "strategy": "lora",
        "sizes": "2006 train, 9 test",
        "trainable": 2_400_000,
        "weights": 120_000_000,
        "cpu_seconds": 90.0,
        "peak_bytes": 2_500_000_000,
        "metrics": metrics,
        **more,
    }


def cells(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_job_is_a_recipe_that_can_be_run():
    assert len({key(job) for job in JOBS}) == len(JOBS)
    for job in JOBS:
        if job.verb == "pretrain":
            load_pretraining_recipe(job.recipe, overrides=job.settings)
            continue
        recipe = load_recipe(job.recipe, overrides=job.settings)
        if job.table == "tasks":
            full = job.note.startswith("full fine-tuning")
            assert recipe.strategy["name"] == ("full" if full else "lora")
            assert recipe.data.test is not None
            mask = recipe.model.attention_mask
            assert job.library == PEER or mask == job.mask
    assert set(STRATEGIES) == set(fine_tuning.STRATEGIES)


def test_a_peer_has_the_settings_of_the_causal_run():
    peers = [job for job in JOBS if job.library == PEER]
    tasks = [job for job in JOBS if job.table == "tasks" and job.library != PEER]
    causal = {(job.recipe, job.note): job for job in tasks if job.mask == "causal"}
    for job in peers:
        ours = causal.get((job.recipe, job.note)) or causal[job.recipe, ""]
        settings = [s for s in ours.settings if "attention_mask" not in s]
        assert list(job.settings) == settings


def test_results_are_told_apart_by_their_commands(tmp_path):
    file = tmp_path / "x.jsonl"
    assert finished(file) == {}
    rows = [result(JOBS[0], metric(0.5)), result(JOBS[1], metric(0.6))]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert finished(file) == {key(JOBS[0]): rows[0], key(JOBS[1]): rows[1]}
    words = command(Job("squad", ("data.test=x[::2]",)), folder="out")
    assert words == [*"llama-keras train squad --set data.test=x[::2] --output out".split()]
    assert shlex.split(key(JOBS[0]))[:3] == ["llama-keras", "train", JOBS[0].recipe]


def test_what_is_out_of_date_is_run_again_and_shown_until_then(tmp_path):
    jobs = Job("conll2003", ()), Job("cluener", ())
    old = [result(job, metric(0.6, precision=0.7), out_of_date=True) for job in jobs]
    new = result(jobs[0], metric(0.8, precision=0.7))
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (*old, new)))
    assert finished(file) == {key(jobs[0]): new}
    text = draw([*old, new])
    assert cells(text, "`conll2003`")[3] == "entity F1 0.800 (0.790 – 0.820)"
    assert cells(text, "`cluener`")[3] == "entity F1 0.600 (0.590 – 0.620) †"
    assert "† Measured when" in text and "† Measured when" not in draw([new])


def test_a_run_that_others_begin_with_is_repeated_where_its_folder_is_gone(tmp_path):
    first = Job("article_small", (), "pretraining", verb="pretrain", keep="article")
    second = Job("ag_news", ("preset=runs/article",), "pretraining")
    jobs, there = (first, second), {key(first)}
    assert unfinished(jobs, there, tmp_path) == [first, second]
    assert unfinished(jobs, there | {key(second)}, tmp_path) == []
    (tmp_path / "article").mkdir()
    assert unfinished(jobs, there, tmp_path) == [second]
    assert unfinished(jobs, {key(second)}, tmp_path) == [first]


def test_the_table_has_the_peer_beside_ours():
    job = Job("conll2003", ())
    both_ways = Job("conll2003", ("model.attention_mask=bidirectional",), mask="bidirectional")
    peer = replace(job, library=PEER)
    last = replace(peer, note="tag at the last sub-token", arguments=("--tagged-token", "last"))
    text = draw(
        [
            result(both_ways, metric(0.8, precision=0.7)),
            result(job, metric(0.7, precision=0.6)),
            result(peer, metric(0.6, precision=0.5), versions={"torch": "9"}, cpu_seconds=180.0),
            result(last, metric(0.65, precision=0.5)),
        ]
    )
    rows = [line for line in text.splitlines() if line.startswith("| `conll2003`")]
    bidirectional, causal = ([c.strip() for c in row.strip("|").split("|")] for row in rows)
    assert bidirectional[1:5] == [
        "2,006 / 9",
        "bidirectional",
        "entity F1 0.800 (0.790 – 0.820)",
        "–",
    ]
    assert causal[3] == "entity F1 0.700 (0.690 – 0.720)"
    assert causal[4] == (
        "entity F1 0.600 (0.590 – 0.620); "
        "tag at the last sub-token: entity F1 0.650 (0.640 – 0.670)"
    )
    assert bidirectional[5:] == ["2.40 M (2 %)", "1.5 / –", "2.5 / –"]
    assert causal[6:] == ["1.5 / 3.0", "2.5 / 2.5"]
    assert "(torch 9)." in text and key(peer) in text


@pytest.mark.parametrize(
    ("shown", "metrics"),
    [
        ("accuracy 0.900 (0.890 – 0.920)", metric(0.5, accuracy=0.9)),
        (
            "exact match 0.200 (0.190 – 0.220), F1 0.300 (0.290 – 0.320)",
            metric(0.3, exact_match=0.2),
        ),
    ],
)
def test_each_task_shows_its_metrics(shown, metrics):
    text = draw([result(Job("x", ()), metrics)])
    assert cells(text, "`x`")[3] == shown


def test_strategies_and_pretraining():
    strategies = [
        result(Job("sst2", (f"strategy={name}",), "strategies"), metric(0.5, accuracy=0.9))
        | {"strategy": name, "trainable": count}
        for name, count in (("lora", 2_400_000), ("bitfit", 35_138))
    ]
    first = Job("article_small", (), "pretraining", verb="pretrain", keep="article")
    second = Job("sst2", ("preset=runs/article", "train.seed=1"), "pretraining")
    losses = {"before": {"loss": 8.3}, "after": {"loss": 5.9}}
    learned = result(second, metric(0.5, accuracy=0.7)) | {"strategy": "full"}
    pretraining = [result(first, losses), learned]
    text = draw([*pretraining, *strategies])
    assert cells(text, "`bitfit`")[1:3] == ["accuracy 0.900 (0.890 – 0.920)", "35,138 (0.029 %)"]
    assert cells(text, "pretraining")[1] == "masked-token loss 8.30 → 5.90 nats"
    assert cells(text, "`sst2`, `full` on `runs/article`, seed 1")[1].startswith("accuracy 0.700")
    assert "Means: 0.700 by `full` on `runs/article`." in text
    assert text.index("## Strategies") < text.index("## What pretraining brings")
