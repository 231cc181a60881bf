import numpy as np

from tests.serving.writer import writer_model, writer_saved


def test_token_scores_are_the_log_softmax_of_the_logits():
    model, saved = writer_model(), writer_saved()
    ids = model.tokenizer.encode("The sky is née 🙂")
    mask = [[1] * len(ids) + [0], [0] + [1] * len(ids)]
    found = saved.run("token_scores", token_ids=[[*ids, 0], [0, *ids]], padding_mask=mask)
    logits = saved.run("tokens", token_ids=[ids], padding_mask=[[1] * len(ids)])["logits"][0]
    expected = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    best = np.argsort(-expected, axis=-1)[:, :20]
    for row in range(2):
        values = found["next_log_probability"][row]
        np.testing.assert_allclose(values[:-1], expected[range(len(ids) - 1), ids[1:]], atol=1e-4)
        assert values[-1] == 0 and found["top_token_ids"][row].tolist() == best.tolist()
        top = found["top_log_probability"][row]
        np.testing.assert_allclose(top, np.take_along_axis(expected, best, 1), atol=1e-4)
