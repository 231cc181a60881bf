import re
from html.parser import HTMLParser

import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.explain import draw_page, explain, write_page
from llama_keras.explain.guide import STAGES
from llama_keras.explain.heat_map import heat_map
from llama_keras.explain.labels import visible

EMPTY = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """Reads a page, checks that each element is closed, and keeps text and attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.texts, self.attributes, self.tags = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_holds_every_stage_and_token_and_stands_alone(found):
    page = draw_page(found)
    read = Page(page)
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert ids == list(STAGES)
    for token in [*found.tokens, *found.corruptions[0].tokens]:
        assert token.label in read.texts and str(token.id) in read.texts
    assert "http" not in page and "url(" not in page and "@import" not in page
    loading = {"src", "href", "xlink:href", "srcset", "action"}
    assert loading.isdisjoint(name for _, name, _ in read.attributes)
    assert {"script", "link", "iframe", "img"}.isdisjoint(read.tags)
    # For each of three layers three kernels: the mean and four heads.
    assert read.tags.count("svg") == 3 * 3 * 5
    assert "prefers-color-scheme: dark" in page


def test_numbers_on_the_page_are_those_of_the_record(found):
    page = draw_page(found)
    assert f"{found.contextual.values[0, 0]:+.4f}" in page
    # The largest of a row: cells that are too pale to be seen are not drawn.
    assert f"{found.layers[-1].attention[1].mean[-1].max():.3f}" in page
    assert f"{found.output[0].guesses[0].score:.4f}" in page


def test_each_kernel_stands_with_its_formula(article, tokenizer):
    read = Page(draw_page(explain("好天气", backbone=article, tokenizer=tokenizer)))
    near = "exp(−‖q_i − k_j‖² / (d'α))"
    for line in (
        "dot_product: softmax_j(q_i·k_j / √d')",
        f"gaussian, normalized, α = 0.5: {near} / Σ_j {near}",
        f"gaussian, unnormalized, α = 0.5: {near} (the model's own)",
    ):
        assert line in read.texts
    captions = [" ".join(text.split()) for text in read.texts]
    assert captions.count("gaussian, unnormalized, α = 0.5 (the model's own)") == 3  # layers


def test_text_is_never_markup(llama, tokenizer):
    text = '<script src="https://x.y/z.js">&{{ 7 * 7 }}</script>'
    page = draw_page(explain(text, backbone=llama, tokenizer=tokenizer))
    read = Page(page)
    assert "script" not in read.tags
    assert text in "".join(read.texts) and "&{{ 7 * 7 }}" in "".join(read.texts)


@pytest.mark.parametrize("text", ["שלום", "好", "a\ud83d", "天气 " * 500, "x\u202ey"])
def test_odd_texts_make_a_page(article, tokenizer, tmp_path, text):
    file = tmp_path / "page.html"
    write_page(explain(text, backbone=article, tokenizer=tokenizer), file)
    read = Page(file.read_text(encoding="utf-8"))
    assert "bdi" in read.tags


def test_a_folder_that_is_not_there_is_told(found, tmp_path):
    with pytest.raises(InputError, match=r"none.page\.html cannot be written"):
        write_page(found, tmp_path / "none" / "page.html")


def cells_of(svg):
    """Gives (row, column) -> opacity of a map of small cells."""
    side = int(re.findall(r"h(\d+)v", svg)[0])
    found = {}
    for opacity, path in re.findall(r'fill-opacity="([\d.]+)" d="([^"]+)"', svg):
        for column, row in re.findall(r"M(\d+) (\d+)h", path):
            found[int(row) // side, int(column) // side] = float(opacity)
    return found


def test_cells_are_as_dark_as_their_weights():
    weights = np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.01, 0.5, 0.49]])
    cells = cells_of(heat_map(weights, labels=["今", "天", "x"], title="map"))
    assert (0, 1) not in cells and (2, 0) not in cells
    for place, opacity in cells.items():
        assert abs(opacity - weights[place]) <= 0.5 / 24 + 1e-3
    assert set(cells) == {(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)}


def test_cells_with_tips_tell_tokens_and_weight():
    weights = np.array([[1.0, 0.0], [0.3, 0.7]])
    svg = heat_map(weights, labels=["<a>", "今"], title="map", tips=True)
    assert "<title>今 → &lt;a&gt;: 0.300</title>" in svg
    Page(svg)


def test_chinese_labels_stand_upright_and_long_ones_are_turned_and_cut():
    svg = heat_map(np.eye(2), labels=["今", "internationally"], title="map")
    assert svg.count('text-anchor="middle">今<') == 1
    assert svg.count("rotate(-90)") == 1
    assert svg.count("internat…") + svg.count("internati…") == 2


def test_what_cannot_be_seen_is_spelled_out():
    assert visible(" a\n\u200b\u202e\x00好") == "␣a⏎U+200BU+202EU+0000好"
