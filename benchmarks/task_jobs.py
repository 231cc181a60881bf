"""What `benchmarks.task_table` measures: small budgets, so that all of it fits a CPU's day.

About 1,000 examples to learn (2,000 of the first two) and 500 to 1,500 to be measured on (of
`cmrc2018` 90 and 80), taken evenly from files that are sorted by label or by article; one or two
epochs. The order is that of their worth.
"""

from dataclasses import dataclass

OURS, PEER = "llama-keras", "Hugging Face"
CAUSAL, BIDIRECTIONAL = "causal", "bidirectional"


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        recipe: its name.
        settings: what `--set` changes.
        table: which table shows it: tasks, strategies or pretraining.
        mask: who sees whom.
        library: whose model it is.
        verb: of the command line.
        note: what is special about it.
        arguments: further ones of the peer's script.
        keep: name of the folder under which others find the result, as `preset=runs/NAME`.
    """

    recipe: str
    settings: tuple[str, ...]
    table: str = "tasks"
    mask: str = CAUSAL
    library: str = OURS
    verb: str = "train"
    note: str = ""
    arguments: tuple[str, ...] = ()
    keep: str = ""


_LORA = ("strategy=lora", "data.validation=null")
# Recipe -> settings for all libraries.
BUDGETS: dict[str, tuple[str, ...]] = {
    "conll2003": (
        *_LORA,
        "data.train=shared:data/conll2003/train.conll.gz[::7]",
        "data.test=shared:data/conll2003/testb.conll[::3]",
        "train.epochs=2",
    ),
    "ag_news": (
        *_LORA,
        "data.train=shared:data/ag_news/train.jsonl.gz[::3]",
        "train.batch_size=16",
    ),
    "squad": (
        *_LORA,
        "data.train=shared:data/squad_v1.1/train.json.gz[::24]",
        "data.test=shared:data/squad_v1.1/dev.json.gz[::20]",
        "train.batch_size=8",
    ),
    "boolq": (*_LORA, "data.limit=1000", "train.epochs=1", "train.batch_size=8"),
    "sst5": (
        *_LORA,
        "data.train=shared:data/sst5/train.jsonl.gz[::8]",
        "data.test=shared:data/sst5/test.jsonl[::2]",
        "train.batch_size=16",
    ),
    "waimai": (
        *_LORA,
        "data.train=shared:data/waimai/train.jsonl.gz[::10]",
        "train.batch_size=16",
    ),
    "cluener": (
        *_LORA,
        "data.train=shared:data/cluener/train.conll.gz[::10]",
        "data.test=shared:data/cluener/dev.conll[::2]",
        "train.epochs=2",
    ),
    # A Chinese character is two or three tokens: a context of this set is 1,500 of them.
    "cmrc2018": (
        *_LORA,
        "data.train=shared:data/drcd/dev.json.gz[::40]",
        "data.test=shared:data/cmrc2018/dev.json.gz[::40]",
        "train.epochs=1",
        "train.batch_size=4",
    ),
}

_SST2 = (
    "data.train=shared:data/sst2/train.jsonl[::6]",
    "data.validation=null",
    "data.test=shared:data/sst2/test.jsonl[::2]",
    "train.epochs=2",
    "train.batch_size=16",
)
STRATEGIES = (
    "full",
    "linear_probe",
    "lora",
    "top_layers",
    "layerwise_lr_decay",
    "gradual_unfreezing",
    "bitfit",
)

# What an encoder learns from: the texts of the task, without their labels, and an encyclopedia.
_TEXTS = "data.train=[shared:data/ag_news/train.jsonl.gz,shared:data/wikitext2/valid.txt.gz]"
_PRETRAINING = (_TEXTS, "data.validation=shared:data/ag_news/test.jsonl", "train.epochs=6")
# A rate of nothing leaves the random weights that training begins with.
_NOTHING = (_TEXTS, "data.limit=1", "train.epochs=1", "train.learning_rate=1.0e-30")
_ON_PRETRAINED = (
    "data.validation=null",
    "data.train=shared:data/ag_news/train.jsonl.gz[::20]",
    "model.attention_mask=bidirectional",
    "model.max_sequence_length=128",
    "model.dtype=float32",
)
SEEDS = (0, 1, 2)
# The whole encoder, and a head on its features as they are, for which a seed decides nothing.
_LEARNERS = (
    *(
        (
            "strategy=full",
            *_ON_PRETRAINED,
            "train.epochs=10",
            "train.batch_size=16",
            "train.learning_rate=5.0e-4",
            f"train.seed={seed}",
        )
        for seed in SEEDS
    ),
    ("strategy=linear_probe", *_ON_PRETRAINED, "train.seed=0"),
)


def _of_task(recipe: str) -> list[Job]:
    settings = BUDGETS[recipe]
    jobs = [
        Job(recipe, (*settings, f"model.attention_mask={mask}"), mask=mask)
        for mask in (BIDIRECTIONAL, CAUSAL)
    ]
    return [*jobs, Job(recipe, settings, library=PEER)]


JOBS: list[Job] = [
    *(job for recipe in BUDGETS for job in _of_task(recipe)),
    *(Job("sst2", (f"strategy={name}", *_SST2), table="strategies") for name in STRATEGIES),
    Job(
        "article_small", _PRETRAINING, "pretraining", BIDIRECTIONAL, verb="pretrain", keep="article"
    ),
    Job("article_small", _NOTHING, "pretraining", BIDIRECTIONAL, verb="pretrain", keep="random"),
    *(
        Job(
            "ag_news",
            (f"preset=runs/{start}", *learner),
            "pretraining",
            BIDIRECTIONAL,
        )
        for learner in _LEARNERS
        for start in ("article", "random")
    ),
    *(
        Job("ag_news", (*BUDGETS["ag_news"], *settings), library=library, note="seed 1")
        for library, settings in (
            (OURS, ("model.attention_mask=causal", "train.seed=1")),
            (PEER, ("train.seed=1",)),
        )
    ),
    *(
        Job(
            "ag_news",
            tuple(s.replace("=lora", "=full") for s in (*BUDGETS["ag_news"], *settings, *seed)),
            library=library,
            note=note,
        )
        for note, seed in (
            ("full fine-tuning", ()),
            ("full fine-tuning, seed 1", ("train.seed=1",)),
        )
        for library, settings in ((OURS, ("model.attention_mask=causal",)), (PEER, ()))
    ),
    *(
        Job(
            recipe,
            BUDGETS[recipe],
            library=PEER,
            note="tag at the last sub-token",
            arguments=("--tagged-token", "last"),
        )
        for recipe in ("conll2003", "cluener")
    ),
]
