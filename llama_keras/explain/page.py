"""Draws an explanation as one HTML page that needs nothing else: no script, no outside resource."""

from pathlib import Path

import jinja2
from markupsafe import Markup

from llama_keras.atomic import write_text
from llama_keras.errors import InputError
from llama_keras.explain.guide import STAGES, formulas, notes
from llama_keras.explain.heat_map import heat_map
from llama_keras.explain.records import Attention, Explanation
from llama_keras.page_style import PAGE_STYLE

_TEXT_SHOWN = 2000  # characters of a long text
_NUMBERS = 6  # of each vector
_TIPS_UP_TO = 24  # tokens; cells that tell their weight are long to write down


def draw_page(found: Explanation) -> str:
    """Gives the page as a string; light or dark as the reader's system is."""
    return _TEMPLATE.render(
        found=found,
        style=PAGE_STYLE,
        stages=STAGES,
        notes=notes(found),
        formulas=formulas(found),
        texts=[("raw", found.text), *found.cleaned],
        limit=_TEXT_SHOWN,
        numbers=_NUMBERS,
        maps=[
            (layer, [_maps(found, kernel) for kernel in layer.attention]) for layer in found.layers
        ],
    )


def write_page(found: Explanation, path: str | Path) -> None:
    """Writes the page into an existing folder.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        write_text(path, draw_page(found))
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); give a file in a folder that exists."
        ) from error


def _maps(found: Explanation, kernel: Attention) -> dict:
    labels = [token.label for token in found.input_tokens]
    heads = [
        (head, Markup(heat_map(weights, labels=labels, title=f"{kernel.title}, head {head}")))
        for head, weights in enumerate(kernel.weights, start=1)
    ]
    mean = heat_map(
        kernel.mean,
        labels=labels,
        title=f"{kernel.title}, mean over the heads",
        tips=len(labels) <= _TIPS_UP_TO,
    )
    return {"kernel": kernel, "mean": Markup(mean), "heads": heads}


_TEMPLATE = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
).from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ found.text[:60] }} · llama-keras explain</title>
<style>
{{ style }}
:root { --ground: #f3f6fb; }
@media (prefers-color-scheme: dark) { :root { --ground: #1c222c; } }
h2 { font-size: 1.2rem; }
h2 small, .soft, figcaption, th { color: var(--soft); font-weight: 400; font-size: .9rem; }
code, td.number { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .88rem; }
td, th { padding: .15rem .7rem .15rem 0; text-align: start; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.chips { display: flex; flex-wrap: wrap; gap: .3rem; margin: .3rem 0 .8rem; }
.chip { background: var(--chip); border-radius: .3rem; padding: .05rem .45rem; text-align: center; }
.chip small { display: block; color: var(--soft); font-size: .75rem; }
.hit { color: var(--wrong); outline: 1px solid var(--wrong); }
.maps { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; overflow-x: auto; }
figure { margin: .4rem 0; } summary { cursor: pointer; }
.map .label text { fill: var(--ink); unicode-bidi: plaintext; }
.map .ground { fill: var(--ground); } .map .cell { fill: var(--accent); }
.bar { display: inline-block; height: .7rem; background: var(--accent); border-radius: .15rem; }
</style>
</head>
<body>
{% macro head(key) %}
<h2 id="{{ key }}">{{ loop_number[key] }}. {{ stages[key].title }}
<small>{{ stages[key].source }}</small></h2>
<p>{{ stages[key].happens }}{% if notes[key] is defined %} {{ notes[key] }}{% endif %}</p>
{% for formula in formulas[key] %}<p><code>{{ formula }}</code></p>{% endfor %}

{% endmacro %}
{% macro chips(tokens, hit) %}
<div class="chips">{% for token in tokens %}
<span class="chip{% if loop.index0 in hit or token.label == '<mask>' %} hit{% endif %}">
<bdi>{{ token.label }}</bdi><small>{{ token.id }}</small></span>{% endfor %}</div>
{% endmacro %}
{% macro vectors(values) %}
<div class="wide"><table><tr><th>token</th><th>length</th>
<th colspan="{{ numbers }}">first of {{ values.values.shape[1] }} numbers</th></tr>
{% for token in found.input_tokens %}{% set row = loop.index0 %}
<tr><td><bdi>{{ token.label }}</bdi></td>
<td class="number">{{ "%.3f" % values.norms[row] }}</td>
{% for value in values.values[row][:numbers] %}
<td class="number">{{ "%+.4f" % value }}</td>
{% endfor %}</tr>{% endfor %}</table></div>
{% endmacro %}
{% set loop_number = {} %}
{% for key in stages %}{% set _ = loop_number.update({key: loop.index}) %}{% endfor %}
<h1 dir="auto">{{ found.text[:120] }}</h1>
<p class="soft">{{ found.model.name }}: {{ found.model.num_layers }} layers of
{{ found.model.num_query_heads }} heads, {{ found.model.attention_mask }} attention by
{{ found.model.attention_kernel }}, {{ found.model.feed_forward }},
{{ found.model.positions }} positions. Every number on this page was computed for this text.</p>

{{ head("text") }}
<p class="text" dir="auto">{{ found.text[:limit] }}
{%- if found.text|length > limit %} …{% endif %}</p>
<p class="soft">{{ found.text|length }} characters</p>

{{ head("cleaning") }}
<table>{% for step, text in texts %}
<tr><th>{{ step }}</th><td class="text" dir="auto">{{ text[:limit] }}</td></tr>
{% endfor %}</table>

{{ head("tokens") }}
<div class="chips">{% for token in found.tokens %}
<span class="chip"><bdi>{{ token.label }}</bdi><small>{{ token.id }}</small><small>
{% if token.start is not none %}{{ token.start }}–{{ token.end }}{% else %}no text{% endif %}
</small></span>{% endfor %}</div>
<p class="soft">Under each: its id, and the characters that it covers.</p>

{{ head("corruption") }}
{% for corruption in found.corruptions %}
<p>{{ corruption.name }}, rate {{ corruption.rate }}, seed {{ corruption.seed }}: hit
{{ corruption.hit|length }} of {{ found.tokens|length }} tokens; below them what is left.</p>
{{ chips(found.tokens, corruption.hit) }}
{{ chips(corruption.tokens, []) }}
{% endfor %}

{{ head("embeddings") }}
{{ vectors(found.embeddings) }}

{{ head("attention") }}
{% for layer, kernels in maps %}
<h3>Layer {{ layer.number }}, mean over the heads</h3>
<div class="maps">{% for item in kernels %}
<figure>{{ item.mean }}<figcaption>{{ item.kernel.title }}
{% if item.kernel.in_use %}(the model's own){% endif %}</figcaption></figure>
{% endfor %}</div>
<details{% if loop.last %} open{% endif %}><summary>Head by head</summary>
{% for item in kernels %}
<h4>{{ item.kernel.title }}</h4>
<div class="maps">{% for number, svg in item.heads %}
<figure>{{ svg }}<figcaption>head {{ number }}</figcaption></figure>
{% endfor %}</div>
{% endfor %}</details>
{% endfor %}

{{ head("feed_forward") }}
{% for layer in found.layers %}
<details{% if loop.last %} open{% endif %}><summary>Layer {{ layer.number }}</summary>
{{ vectors(layer.feed_forward) }}</details>
{% endfor %}

{{ head("contextual") }}
{{ vectors(found.contextual) }}

{{ head("output") }}
{% for prediction in found.output %}
{% if prediction.true is not none %}
<p>Token {{ prediction.place + 1 }}, truly <bdi>{{ prediction.true.label }}</bdi>: probability
{{ "%.4f" % prediction.true.score }}, rank {{ prediction.rank }}</p>
{% endif %}
<table>{% for guess in prediction.guesses %}
<tr><td><bdi>{{ guess.label }}</bdi></td><td class="number">{{ "%.4f" % guess.score }}</td>
<td><span class="bar" style="width: {{ "%.2f" % (guess.score * 20) }}rem"></span></td></tr>
{% endfor %}</table>
{% endfor %}
</body>
</html>
""")
