"""Draws a report as one HTML page: no outside resource, readable without its few lines of script.

Texts of data and models are escaped wherever they stand; only what plots.py and report_examples.py
drew is markup.
"""

from collections.abc import Sequence

import jinja2

from llama_keras.eval.report import SuiteReport
from llama_keras.page_style import PAGE_STYLE

_FILTERED = 50  # values of a menu that can be chosen from


def draw_report(suites: Sequence[SuiteReport]) -> str:
    """Gives the page as a string; light or dark as the reader's system is."""
    return _TEMPLATE.render(suites=suites, first=suites[0].result, values=_values, style=PAGE_STYLE)


def _values(suite: SuiteReport, name: str) -> list[str]:
    """Gives what the menu of `expected` or `found` offers."""
    found = sorted({getattr(example, name) for example in suite.examples.shown} - {""})
    return found if 1 < len(found) <= _FILTERED else []


_TEMPLATE = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
).from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
  style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'none'; base-uri 'none'">
<link rel="icon" href="data:,">
<title>{{ first.model.location }} · llama-keras evaluate</title>
<style>
{{ style }}
:root { --accent-ink: 11 97 196; --ground: #e3e9f2; --good: #d9f0dd; --good-line: #1f7a34;
  --missed: #fdeecb; --missed-line: #9a5b00; --extra: #fbdcda; --extra-line: var(--wrong); }
@media (prefers-color-scheme: dark) { :root { --accent-ink: 109 177 255; --ground: #2b3442;
  --good: #173a20; --good-line: #7fd492; --missed: #43340f; --missed-line: #f0c060;
  --extra: #4a1f1c; } }
h2 { font-size: 1.35rem; }
h3 { font-size: 1.02rem; margin: 1.4rem 0 .3rem; }
a { color: var(--accent); }
.soft, figcaption, th, dt, details > table { color: var(--soft); font-size: .9rem; }
code, pre { font: .86rem/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { background: var(--chip); border-radius: .3rem; padding: .6rem .8rem; overflow-x: auto;
  white-space: pre-wrap; }
td, th { padding: .2rem .9rem .2rem 0; text-align: start; font-weight: 400; }
td.number, th.number { text-align: end; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.strong { font-weight: 600; }
.warning { border-inline-start: 4px solid var(--missed-line); background: var(--missed);
  padding: .4rem .8rem; }
.side { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }
.side > * { min-width: 0; max-width: 100%; }
figure { margin: .2rem 0; overflow-x: auto; }
figcaption { max-width: 34rem; }
svg { display: block; } svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--line); } .ideal { stroke: var(--soft); stroke-dasharray: 5 4; }
.dot { fill: var(--accent); } .whisker { stroke: var(--accent); stroke-width: 2; opacity: .55; }
.ground { fill: var(--ground); } .interval { fill: var(--accent); opacity: .45; }
.value { fill: var(--ink); }
.matrix td { text-align: center; padding: .3rem .6rem; border: 1px solid var(--line);
  background: rgb(var(--accent-ink) / calc(var(--share) * .6)); min-width: 2.2rem;
  font-variant-numeric: tabular-nums; }
.matrix th { padding: .2rem .6rem; max-width: 11rem; overflow-wrap: anywhere; }
.matrix .diagonal { outline: 2px solid var(--good-line); outline-offset: -2px; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: .5rem 0;
  align-items: baseline; }
dd { margin: 0; overflow-wrap: anywhere; }
form { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin: .4rem 0; }
form[hidden], li[hidden] { display: none; }
input, select { font: inherit; color: inherit; background: var(--chip); padding: .2rem .5rem;
  border: 1px solid var(--line); border-radius: .3rem; max-width: 16rem; }
ol { list-style: none; margin: .4rem 0; padding: 0; }
li { border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .8rem; margin: .5rem 0; }
li dd { white-space: pre-wrap; unicode-bidi: plaintext; }
mark { color: inherit; border-radius: .2rem; padding: 0 .15rem; background: var(--good);
  border-bottom: 2px solid var(--good-line); }
mark.missed { background: var(--missed); border-bottom: 2px dashed var(--missed-line); }
mark.extra { background: var(--extra); border-bottom: 2px dotted var(--extra-line); }
mark.missed.extra { background: var(--good); border-bottom: 2px solid var(--good-line); }
mark small { color: var(--soft); margin-inline-start: .25rem; font-size: .72rem; }
</style>
</head>
<body>
<h1 dir="auto">{{ first.model.location }}</h1>
<p class="soft">Evaluated as {{ first.model.kind }} on {{ suites|length }}
suite{{ "s" if suites|length > 1 }} by llama-keras {{ first.versions["llama-keras"] }}</p>
<div class="wide"><table>
<tr><th>suite</th><th class="number">n</th><th>metric</th><th></th><th class="number">value</th>
<th class="number">95 % interval</th><th></th></tr>
{% for suite in suites %}{% for name, metric, bar, better in suite.metrics %}
<tr><td>{% if loop.first %}<a href="#suite-{{ suite.result.suite }}">{{ suite.result.suite }}</a>
{% endif %}</td>
<td class="number">{% if loop.first %}{{ "{:,}".format(suite.result.n) }}{% endif %}</td>
<td>{{ name }}</td><td title="{{ "more" if better == "↑" else "less" }} is better">{{ better }}</td>
<td class="number strong">{{ "%.4f"|format(metric.value) }}</td>
<td class="number">{{ "%.4f"|format(metric.low) }} – {{ "%.4f"|format(metric.high) }}</td>
<td>{{ bar }}</td></tr>
{% endfor %}{% endfor %}
</table></div>
{% for suite in suites %}{% set r = suite.result %}
<section id="suite-{{ r.suite }}">
<h2>{{ r.suite }}</h2>
<p class="soft">{{ r.task.replace("_", " ") }},
{% if r.limit is none %}all {{ "{:,}".format(r.n) }}
{%- else %}the first {{ "{:,}".format(r.n) }} of {{ "{:,}".format(r.original_n) }}
{%- endif %} examples
{%- if r.shots %}, {{ r.shots }} worked example{{ "s" if r.shots > 1 }} before each{% endif %}</p>
{% for warning in r.warnings %}<p class="warning">{{ warning }}</p>{% endfor %}
{% if suite.confusion %}
<h3>Confusion</h3>
<div class="side">
{% if suite.confusion.counts %}
<div class="wide"><table class="matrix">
<tr><th>expected ↓ found →</th>
{% for label in suite.confusion.labels %}
<th scope="col"><bdi>{{ label }}</bdi></th>{% endfor %}</tr>
{% for counts in suite.confusion.counts %}{% set row = loop.index0 %}{% set total = counts|sum %}
<tr><th scope="row"><bdi>{{ suite.confusion.labels[row] }}</bdi></th>
{% for count in counts %}
<td{% if loop.index0 == row %} class="diagonal"{% endif %} style="--share:
{{- "%.3f"|format(count / total if total else 0) }}">{{ "{:,}".format(count) }}</td>
{% endfor %}</tr>{% endfor %}
</table><p class="soft">Shaded by the share of each row.</p></div>
{% endif %}
{% if suite.confusion.pairs %}
<table><tr><th>expected</th><th>found instead</th><th class="number">times</th></tr>
{% for expected, found, count in suite.confusion.pairs %}
<tr><td><bdi>{{ expected }}</bdi></td><td><bdi>{{ found }}</bdi></td>
<td class="number">{{ "{:,}".format(count) }}</td></tr>{% endfor %}</table>
{% endif %}
</div>
{% endif %}
{% if suite.by_type %}
<h3>By {{ suite.by_type[0] }}</h3>
<table><tr><th>{{ suite.by_type[0] }}</th><th class="number">precision</th>
<th class="number">recall</th><th class="number">F1</th><th class="number">n</th></tr>
{% for name, scores in suite.by_type[1].items() %}
<tr><td><bdi>{{ name }}</bdi></td><td class="number">{{ "%.4f"|format(scores.precision) }}</td>
<td class="number">{{ "%.4f"|format(scores.recall) }}</td>
<td class="number">{{ "%.4f"|format(scores.f1) }}</td>
<td class="number">{{ "{:,}".format(scores.support) }}</td></tr>{% endfor %}</table>
{% endif %}
{% if suite.plots %}
<div class="side">{% for plot in suite.plots %}
<div><h3>{{ plot.title }}</h3>
<figure>{{ plot.picture }}<figcaption>{{ plot.note }}</figcaption></figure>
<details><summary>The numbers</summary><table>
<tr>{% for cell in plot.head %}<th class="number">{{ cell }}</th>{% endfor %}</tr>
{% for row in plot.rows %}<tr>{% for cell in row %}<td class="number">{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</table></details></div>
{% endfor %}</div>
{% endif %}
<h3>{{ suite.examples.title }}</h3>
<p class="soft">{{ "{:,}".format(suite.examples.total) }} of
{{ "{:,}".format(suite.examples.of) }}, {{ suite.examples.order }} first.
{% if suite.examples.shown|length < suite.examples.total %}
{{ suite.examples.shown|length }} are shown; samples_{{ r.suite }}.jsonl has all.
{% endif %}</p>
{% if suite.examples.legend %}
<p class="soft"><mark class="right">right</mark> <mark class="missed">missed</mark>
<mark class="extra">wrongly found</mark></p>
{% endif %}
{% if suite.examples.shown %}
<div class="examples">
<form hidden><label>text <input type="search" name="text"></label>
{% for name in ("expected", "found") %}{% if values(suite, name) %}
<label>{{ name }} <select name="{{ name }}"><option value="">any</option>
{% for value in values(suite, name) %}<option value="={{ value }}">{{ value }}</option>
{% endfor %}</select></label>{% endif %}{% endfor %}
<output class="soft"></output></form>
<ol>{% for example in suite.examples.shown %}
<li data-expected="={{ example.expected }}" data-found="={{ example.found }}">
<span class="soft">no. {{ example.number }}
{%- if example.note %} · {{ example.note }}{% endif %}</span>
<dl>{% for caption, content in example.parts %}
<dt>{{ caption }}</dt><dd dir="auto">{{ content }}</dd>{% endfor %}</dl></li>{% endfor %}</ol>
</div>
{% endif %}
<h3>How it was measured</h3>
<pre>{{ suite.command }}</pre>
{% if not suite.shipped %}
<p class="soft">{{ r.suite }}.yaml is what stands at the end of the details.</p>
{% endif %}
<details><summary>Fingerprints, versions, the suite</summary>
<dl>
<dt>model</dt><dd>{{ r.model.kind }} {{ r.model.location }}</dd>
<dt>computed in</dt><dd>{{ r.model.get("precision") or "not told" }}</dd>
<dt>its SHA-256</dt><dd><code>{{ r.model.sha256 or "not told by a server" }}</code></dd>
<dt>data</dt><dd>{{ r.data.source }}</dd>
<dt>SHA-256 of the examples</dt><dd><code>{{ r.data.sha256 }}</code></dd>
<dt>SHA-256 of the prompts</dt><dd><code>{{ r.prompts_sha256 }}</code></dd>
<dt>first tokens read</dt><dd>{{ r.first_tokens if r.first_tokens else "not told" }}</dd>
<dt>requests</dt><dd>{{ "{:,}".format(r.asked) }} asked,
{{ "{:,}".format(r.cached) }} from the cache, {{ "{:,}".format(r.truncated) }} cut;
{{ "{:,}".format(r.resumed) }} examples from an earlier run</dd>
<dt>time</dt><dd>{{ "%.1f"|format(r.seconds) }} s, {{ "{:,.1f}".format(r.requests_per_second) }}
requests a second</dd>
<dt>peak memory</dt><dd>{{ "{:,.0f}".format(r.peak_memory_bytes / 1048576) }} MiB</dd>
<dt>seed of the bootstrap</dt><dd>{{ r.seed }}</dd>
<dt>version of the suite</dt><dd>{{ r.version }}</dd>
<dt>versions</dt><dd>{% for package, version in r.versions.items() %}{{ package }}
{{ version }}{{ ", " if not loop.last }}{% endfor %}</dd>
</dl>
<pre>{{ suite.config }}</pre></details>
</section>
{% endfor %}
<script>
for (const box of document.querySelectorAll(".examples")) {
  const form = box.querySelector("form"), items = [...box.querySelectorAll("li")];
  const texts = items.map((item) => item.textContent.toLowerCase());
  const show = () => {
    const text = form.elements.text.value.toLowerCase();
    const chosen = ["expected", "found"].filter((name) => form.elements[name]?.value);
    let count = 0;
    items.forEach((item, at) => {
      item.hidden = !texts[at].includes(text)
        || chosen.some((name) => item.dataset[name] !== form.elements[name].value);
      count += !item.hidden;
    });
    form.querySelector("output").textContent = `${count} of ${items.length}`;
  };
  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
</script>
</body>
</html>
""")
