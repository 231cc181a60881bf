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
            "Steps such as remove_punctuation or remove_stop_words, in their order; none by "
            "default, for a pretrained model wants text as it is written.",
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
            "dot_product: softmax_j(q_i·k_j / √d');  gaussian: exp(−‖q_i − k_j‖² / (d'α))",
            "How much each token (row) looks at each (column), head by head: the same queries and "
            "keys through both kernels.",
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


def notes(found: Explanation) -> dict[str, str]:
    """Gives for some stages, by key, one more line about this text and model."""
    model, count, shown = found.model, found.token_count, len(found.tokens)
    kernels = {kernel.kernel: kernel for layer in found.layers for kernel in layer.attention}
    own = next(kernel.kernel for kernel in kernels.values() if kernel.in_use)
    cut = f" The text has {count} tokens; explained are the first {shown}." if shown < count else ""
    random = " The weights are random: the numbers show the way, not a meaning."
    swiglu = (
        f"Here it is SwiGLU, as in LLaMA as released: {model['hidden_dim']} → "
        f"{model['intermediate_dim']} → {model['hidden_dim']}, with a gate."
    )
    mlp = f"Here {model['hidden_dim']} → {model['intermediate_dim']} → {model['hidden_dim']}."
    output = "" if found.output else " Noise hit no token, so there is none to predict."
    return {
        "tokens": f"{count} tokens.{cut}",
        "embeddings": _INPUTS[found.model_input].format(mask=model["attention_mask"])
        + f" E is {found.embedding_shape[0]} × {found.embedding_shape[1]}.",
        "attention": f"{model['num_query_heads']} heads of d' = {model['head_dim']}, α = "
        f"{kernels['gaussian'].temperature:g}; the model goes on with {own}.",
        "feed_forward": swiglu if model["feed_forward"] == "swiglu" else mlp,
        "output": _OUTPUTS[found.model_input]
        + output
        + (random if model["name"] == "llama-tiny" else ""),
    }
