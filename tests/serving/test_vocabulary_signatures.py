from tests.serving.writer import PROMPTS, writer_model, writer_saved


def test_tokenize_and_vocabulary_are_the_tokenizer():
    model, saved = writer_model(), writer_saved()
    found = saved.run("tokenize", text=PROMPTS)
    for row, text in enumerate(PROMPTS):
        ids = [id_ for id_ in found["token_ids"][row].tolist() if id_ >= 0]
        assert ids == model.tokenizer.encode(text)
        spans = zip(found["start"][row], found["end"][row], strict=True)
        pieces = [text.encode()[start:end] for start, end in spans][: len(ids)]
        assert saved.run("vocabulary", token_ids=ids)["piece_bytes"].tolist() == pieces
    assert (
        saved.run("vocabulary", token_ids=[-1, 10**6])["piece_bytes"].tolist()
        == ["\ufffd".encode()] * 2
    )
