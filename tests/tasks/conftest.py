import pytest

WORDS = {"positive": "good lovely warm", "negative": "bad awful cold"}


@pytest.fixture(scope="session")
def toy_data():
    """Texts that a tiny model can learn, and their labels."""
    texts, labels = [], []
    for index in range(64):
        label = ("positive", "negative")[index % 2]
        word = WORDS[label].split()[index % 3]
        texts.append(f"{word} " * (1 + index % 4) + f"day {index}")
        labels.append(label)
    return texts, labels


@pytest.fixture
def make_classifier():
    import keras

    from llama_keras.tasks import TextClassifier

    def make(**arguments):
        keras.utils.set_random_seed(0)
        arguments = {"labels": ["negative", "positive"], **arguments}
        return TextClassifier.from_preset("llama-tiny", **arguments)

    return make
