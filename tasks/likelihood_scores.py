"""How likely given texts are: what a `CausalLM` says of texts that it did not write."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_keras.tasks.likelihood import ScoredPair, encode_pairs, log_likelihoods, rolling_pairs

if TYPE_CHECKING:
    from llama_keras.models import LlamaBackbone
    from llama_keras.tasks.engines import Engines


class LikelihoodScores:
    """Adds scores of given texts to a task that has a causal backbone and engines."""

    backbone: "LlamaBackbone"
    tokenizer: Any
    _engines: "Engines"

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Gives how likely each continuation is after its context.

        Texts become tokens as in lm-evaluation-harness, see `likelihood.encode_pairs`; the
        log-softmax is float32.

        Args:
            pairs: (context, continuation) strings.

        Returns:
            For each pair the sum of the continuation's log-probabilities in nats, and whether
            greedy decoding would give just this continuation.

        Raises:
            InputError: a pair is longer than the model's context, or its continuation is empty.
        """
        return self.score_pairs(encode_pairs(self.tokenizer, pairs))

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        """Gives how likely each text is, however long.

        Args:
            texts: documents; see `likelihood.rolling_pairs` for the windows over long ones.

        Returns:
            For each text the sum of its tokens' log-probabilities in nats, and their number.
        """
        limit = self.backbone.config.max_sequence_length
        windows = [rolling_pairs(self.tokenizer, text, limit=limit) for text in texts]
        scores = iter(self.score_pairs([pair for row in windows for pair in row]))
        return [
            (
                math.fsum(next(scores)[0] for _ in row),
                sum(len(pair.continuation) for pair in row),
            )
            for row in windows
        ]

    def score_pairs(self, pairs: Sequence[ScoredPair]) -> list[tuple[float, bool]]:
        """Gives what `loglikelihood` gives, for token ids.

        Pairs with the same context are scored together: the context is read once.

        Raises:
            InputError: a pair is longer than the model's context.
        """
        engine = self._engines.get("keras")
        return log_likelihoods(
            pairs,
            hidden_at=engine.hidden_at,
            score_tokens=engine.score_tokens,
            limit=self.backbone.config.max_sequence_length,
        )
