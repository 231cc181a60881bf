"""`POST /v1/embeddings`: texts to vectors, by an exported `Embedder`."""

import base64

import numpy as np
from starlette.responses import Response

from .chat_text import Chats, run, strings
from .openai_answers import json_response
from .openai_errors import OpenAiError
from .openai_schema import EmbeddingRequest

_SIGNATURE, _COUNT = "embed", "count_tokens"


async def answer_embeddings(chats: Chats, asked: EmbeddingRequest) -> Response:
    """Gives the answer to a request."""
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    with chats.served.use(asked.model) as servable:
        known = servable.model.signatures
        if _SIGNATURE not in known or set(known[_SIGNATURE].inputs) != {"text"}:
            raise OpenAiError(
                400,
                f"{servable.name} (task {servable.manifest.task or 'unknown'}) makes no vectors.",
                param="model",
                code="unsupported_model",
            )
        found = await run(chats.served, servable, _SIGNATURE, text=strings(texts))
        tokens = None
        if _COUNT in known:
            counted = await run(chats.served, servable, _COUNT, text=strings(texts))
            tokens = int(np.sum(counted["num_tokens"]))
        name = servable.name
    data = [
        {"object": "embedding", "index": index, "embedding": _ENCODED[asked.encoding_format](row)}
        for index, row in enumerate(found["embedding"])
    ]
    # An older export cannot say how many tokens it read.
    usage = None if tokens is None else {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response({"object": "list", "data": data, "model": name, "usage": usage})


def _base64(row: np.ndarray) -> str:
    return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()


_ENCODED = {None: np.ndarray.tolist, "float": np.ndarray.tolist, "base64": _base64}
