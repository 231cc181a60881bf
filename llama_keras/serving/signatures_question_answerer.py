"""What a `QuestionAnswerer` answers to when it is served: windows cut and merged in the graph.

Axes: N questions, R rows (windows), B batch, T tokens.
"""

import tensorflow as tf

from llama_keras.data.answer_spans import best_answers
from llama_keras.data.context_windows import make_windows
from llama_keras.serving.signature_parts import Signatures, cleaning_steps, tokens_signature
from llama_keras.serving.window_logits import window_logits


def question_answerer_signatures(model) -> Signatures:
    """Gives `serving_default` and `answer` (texts to answers) and `tokens` (ids to logits).

    Inputs and outputs, all with N first:
        `question`, `context` string `(N,)` → `answer` string `(N,)`, a part of the context;
        `start`, `end` int32 `(N,)`, its place in Unicode code points; `score` and `null_score`
        float32 `(N,)`. Where there is no answer: "" and -1, see `QuestionAnswerer.predict`.
        `token_ids`, `padding_mask` int32 `(B, T)` → `logits` float32 `(B, T, 2)`.
    """
    tokenizer, settings = model.tokenizer, model.window_settings
    threshold = model.null_threshold if model.null_answers else 1.0
    texts = [tf.TensorSpec([None], tf.string, name=name) for name in ("question", "context")]

    @tf.function(input_signature=texts, autograph=False)
    def answer(question, context):
        windows = make_windows(
            question,
            context,
            tokenizer=tokenizer.graph,
            separator_id=model.separator_id,
            settings=settings,
            cleaning=model.cleaning,
        )
        found = best_answers(
            window_logits(model, windows.token_ids, size=2),
            context,
            windows=windows,
            settings=settings,
            count=1,
            null_answers=model.null_answers,
        )
        is_null = found.null_score > threshold
        score = found.null_score if model.null_answers else tf.zeros_like(found.null_score)
        is_none = is_null | (found.start[:, 0] < 0)
        return {
            "answer": tf.where(is_none, "", found.text[:, 0]),
            "start": tf.where(is_none, -1, found.start[:, 0]),
            "end": tf.where(is_none, -1, found.end[:, 0]),
            "score": tf.where(is_none, score, found.score[:, 0]),
            "null_score": found.null_score,
        }

    return Signatures(
        task="question_answering",
        functions={"serving_default": answer, "answer": answer, "tokens": tokens_signature(model)},
        trackables={"tokenizer": tokenizer.graph},
        labels=(),
        example_text={
            "question": "Where did she grow up?",
            "context": "Ana grew up near Lima and studied in Cusco.",
        },
        cleaning=cleaning_steps(model),
    )
