"""What happens at each stage, in one line, and where the article says so."""

from dataclasses import dataclass

from llama_keras.explain.records import Explanation


@dataclass(frozen=True)
class Stage:
    """The words of one stage."""

    key: str
    title: str
    source: str
    formula: str
    happens: str


STAGES = {
    stage.key: stage
    for stage in (
        Stage("text", "Raw text", "article §4", "", "The sentence as it came."),
        Stage(
            "cleaning",
            "Cleaning",
            "article §4",
            "",
            "Steps such as remove_punctuation or remove_stop_words, in their order; by default "
            "those that the model learned with.",
        ),
        Stage(
            "tokens",
            "Integer sequence",
            "article §4",
            "text → (x_1, …, x_T), 0 ≤ x_i < V",
            "The tokenizer cuts the text into pieces of its vocabulary. A character that the "
            "vocabulary lacks becomes several tokens, one for each of its bytes or parts.",
        ),
        Stage(
            "corruption",
            "Random masking and deletion",
            "article §2 and §4",
            "x̃ ~ q(x̃ | x)",
            "Noise that a denoising model learns to undo; the same seed gives the same noise.",
        ),
        Stage(
            "embeddings",
            "Word embeddings",
            "article §2",
            "E ∈ R^(V×d), e_i = E[x_i]",
            "Each id picks its row of the matrix E.",
        ),
        Stage(
            "attention",
            "Self-attention",
            "article §2",
            "",  # see `formulas`
            "How much each token (row) looks at each (column), head by head: the same queries and "
            "keys through both kernels, the Gaussian one also as in the article, where a token's "
            "weights need not add up to one.",
        ),
        Stage(
            "feed_forward",
            "Feed-forward network",
            "article §2",
            "d' → 4d' → d'",
            "Each token's vector by itself through two layers; the result is added to it.",
        ),
        Stage(
            "contextual",
            "Contextual embeddings",
            "article §2",
            "h = norm(y + FFN(y)) after the last layer",
            "One vector for each token that knows its sentence.",
        ),
        Stage(
            "output",
            "Output",
            "article §2",
            "p(x | h) = softmax(h Wᵀ)",
            "Vectors back to words: the scores of every token of the vocabulary.",
        ),
    )
}

_INPUTS = {
    "clean": "The model reads the clean tokens: it is {mask}.",
    "masked": "The model reads the masked tokens: it is bidirectional.",
}
_OUTPUTS = {
    "clean": "The likeliest tokens after the text.",
    "masked": "What the model takes the hidden tokens for, and the score of the true one.",
}


def formulas(found: Explanation) -> dict[str, list[str]]:
    """Gives for each stage, by key, its formulas: of attention those of every kernel shown."""
    shown = {key: [stage.formula] if stage.formula else [] for key, stage in STAGES.items()}
    shown["attention"] = [
        f"{kernel.title}: {kernel.formula}" + (" (the model's own)" if kernel.in_use else "")
        for kernel in found.layers[-1].attention
    ]
    return shown


def notes(found: Explanation) -> dict[str, str]:
    """Gives for some stages, by key, one more line about this text and model."""
    model, count, shown = found.model, found.token_count, len(found.tokens)
    own = [kernel.title for layer in found.layers for kernel in layer.attention if kernel.in_use]
    learned = f" in layer {found.layers[-1].number}" if len(set(own)) > 1 else ""
    cut = f" The text has {count} tokens; explained are the first {shown}." if shown < count else ""
    random = " The weights are random: the numbers show the way, not a meaning."
    swiglu = (
        f"Here it is SwiGLU, as in LLaMA as released: {model['hidden_dim']} → "
        f"{model['intermediate_dim']} → {model['hidden_dim']}, with a gate."
    )
    mlp = f"Here {model['hidden_dim']} → {model['intermediate_dim']} → {model['hidden_dim']}."
    output = "" if found.output else " Noise hit no token, so there is none to predict."
    none = "" if found.cleaned else "There are none here: the text stays as it is."
    return {
        "cleaning": none,
        "tokens": f"{count} tokens.{cut}",
        "embeddings": _INPUTS[found.model_input].format(mask=model["attention_mask"])
        + f" E is {found.embedding_shape[0]} × {found.embedding_shape[1]}.",
        "attention": f"{model['num_query_heads']} heads of d' = {model['head_dim']}; the model "
        f"goes on with {own[-1]}{learned}.",
        "feed_forward": swiglu if model["feed_forward"] == "swiglu" else mlp,
        "output": _OUTPUTS[found.model_input]
        + output
        + (random if model["name"] == "llama-tiny" else ""),
    }
