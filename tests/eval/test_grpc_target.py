import json

from llama_keras.eval import evaluate
from llama_keras.serving.server import running_server


def test_rest_grpc_and_the_files_give_the_same_samples(tmp_path, toy_suite, toy_export):
    samples = {}
    with running_server(toy_export, port=0, grpc_port=0) as server:
        for name, model in (
            ("files", toy_export),
            ("rest", server.url),
            ("grpc", server.grpc_url),
        ):
            result = evaluate(toy_suite, model=model, batch_size=3, output=tmp_path / name)
            assert result.metrics["accuracy"].value == 0.75
            assert result.model["kind"] == {"files": "saved_model"}.get(name, name)
            samples[name] = (tmp_path / name / "samples_toy.jsonl").read_text()
    without = {name: [json.loads(x) for x in text.splitlines()] for name, text in samples.items()}
    for rows in without.values():
        for row in rows:
            for answer in row["resps"]:
                answer.pop("scores", None)  # a server does not tell the labels' names
    assert without["files"] == without["rest"] == without["grpc"]
