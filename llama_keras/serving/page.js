"use strict";
// Everything that comes from a model or a person is put in as text, never as markup.
const find = (id) => document.getElementById(id);
const TASKS = {
  text_classification: "Text classification",
  token_classification: "Entities in a text",
  question_answering: "Answers from a text",
  embedding: "Vectors of texts",
  causal_lm: "Text generation",
  masked_lm: "Missing words",
  denoising: "Repaired text",
};
let models = [];
let shown = null; // the model on the screen
let running = null; // the AbortController of what is being asked

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// ---- The server ----
function headers() {
  const key = sessionStorage.getItem("key");
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function call(path, body, signal) {
  if (body !== undefined) showRequest(path, body);
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const answer = await fetch(path, { ...options, headers: headers(), signal });
  if (answer.ok) return answer;
  if (answer.status === 401) askForKey();
  const text = await answer.text();
  let reason = text;
  try {
    const said = JSON.parse(text).error;
    reason = said.message ?? said;
  } catch { /* not JSON: shown as it came */ }
  throw new Error(`${answer.status}: ${reason}`);
}

async function predict(instance, signature) {
  const body = { signature_name: signature, instances: [].concat(instance) };
  const path = `/v1/models/${encodeURIComponent(shown.name)}:predict`;
  const answer = await call(path, body, running.signal);
  return (await answer.json()).predictions;
}

function askForKey() {
  find("key-form").hidden = false;
  find("key").focus();
}

function showRequest(path, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const stream = body.stream ? "-N " : "";
  const key = sessionStorage.getItem("key") ? ['-H "Authorization: Bearer $LLAMA_KERAS_TOKEN"'] : [];
  find("curl").textContent = [`curl ${stream}${location.origin}${path}`, ...key,
    "-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body))}`].join(" \\\n  ");
  find("request").hidden = false;
}

// ---- What all forms have in common ----
function field(label, { value = "", one = false, id } = {}) {
  const area = make("textarea", { id, class: one ? "one" : false, spellcheck: "false", rows: one ? 1 : 4 });
  area.value = value;
  return { area, element: make("div", { class: "field" }, make("label", { for: id }, label), area) };
}

function error(reason) {
  return make("div", { class: "card error", role: "alert" }, reason);
}

// Fields, a button, and below them what `answer` makes of the fields' texts.
function form({ fields, verb, answer }) {
  const made = fields.map((item, place) => field(item.label, { ...item, id: `field-${place}` }));
  const button = make("button", { class: "primary", id: "run" }, verb);
  const time = make("span", { class: "soft", id: "time" });
  const result = make("div", { id: "result", "aria-live": "polite" });
  async function ask(event) {
    event?.preventDefault();
    running?.abort();
    const mine = (running = new AbortController());
    button.disabled = true;
    time.textContent = "working…";
    const began = performance.now();
    try {
      const found = await answer(made.map((item) => item.area.value));
      if (mine.signal.aborted) return;
      time.textContent = `${Math.round(performance.now() - began)} ms`;
      result.replaceChildren(...[].concat(found));
      fillBars(result);
    } catch (reason) {
      if (mine.signal.aborted) return;
      time.textContent = "";
      result.replaceChildren(error(reason.message));
    } finally {
      button.disabled = false;
    }
  }
  const element = make("form", { class: "card", onsubmit: ask }, ...made.map((item) => item.element),
    make("div", { class: "actions" }, button, make("kbd", {}, "Ctrl + Enter"), time));
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(event);
  });
  return [element, result];
}

// Widths are set a frame later, so that bars grow.
function fillBars(root) {
  requestAnimationFrame(() => requestAnimationFrame(() => {
    for (const bar of root.querySelectorAll("[data-share]")) bar.style.width = `${100 * bar.dataset.share}%`;
  }));
}

const percent = (value) => `${(100 * value).toFixed(1)} %`;

function bar(share, best) {
  const inner = make("i", { "data-share": Math.max(0, Math.min(1, share)) });
  return make("div", { class: best ? "bar best" : "bar" }, inner);
}

// ---- Tasks ----
function classifier(model, signature) {
  const names = Object.keys(model.signatures[signature].inputs);
  const labels = { text: "Text", text_pair: "Second text" };
  const fields = ["text", "text_pair"].filter((name) => names.includes(name));
  return form({
    fields: fields.map((name) => ({ label: labels[name], value: model.example[name] })),
    verb: "Classify",
    answer: async (texts) => {
      const row = Object.fromEntries(fields.map((name, place) => [name, texts[place]]));
      const [found] = await predict(row, signature);
      const chosen = found.chosen ?? model.labels.map((label) => label === found.label);
      const said = model.labels.filter((_, place) => chosen[place]);
      const order = model.labels.map((_, place) => place).sort((a, b) => found.scores[b] - found.scores[a]);
      const rows = order.flatMap((place) => [
        make("dt", {}, model.labels[place]),
        make("dd", {}, bar(found.scores[place], chosen[place])),
        make("dd", { class: "number" }, percent(found.scores[place])),
      ]);
      return make("div", { class: "card" }, make("p", { class: "big", id: "label" }, said.join(", ") || "None of them"),
        make("dl", { class: "bars" }, ...rows));
    },
  });
}

function tagger(model, signature) {
  const kinds = [...new Set(model.labels.map((label) => label.replace(/^[BIESLU]-/, "")))].filter((label) => label !== "O");
  const hue = (kind) => (45 + (Math.max(0, kinds.indexOf(kind)) * 360) / Math.max(kinds.length, 4)) % 360;
  return form({
    fields: [{ label: "Text", value: model.example.text }],
    verb: "Find entities",
    answer: async ([text]) => {
      const [found] = await predict({ text }, signature);
      const characters = Array.from(text); // places count code points
      const prose = make("p", { class: "prose", id: "prose" });
      let at = 0;
      for (let place = 0; place < found.count; place++) {
        const [start, end, kind] = [found.start[place], found.end[place], found.label[place]];
        prose.append(characters.slice(at, start).join(""));
        const mark = make("mark", { class: "entity", title: `${kind}, ${percent(found.score[place])}` },
          characters.slice(start, end).join(""), " ", make("small", {}, kind));
        mark.style.setProperty("--hue", hue(kind));
        prose.append(mark);
        at = end;
      }
      prose.append(characters.slice(at).join(""));
      const count = found.count === 1 ? "1 entity" : `${found.count} entities`;
      return make("div", { class: "card" }, prose, make("p", { class: "soft" }, found.count ? count : "No entity found."));
    },
  });
}

function reader(model, signature) {
  return form({
    fields: [
      { label: "Question", value: model.example.question, one: true },
      { label: "Text that may hold the answer", value: model.example.context },
    ],
    verb: "Answer",
    answer: async ([question, context]) => {
      const [found] = await predict({ question, context }, signature);
      if (found.start < 0) {
        return make("div", { class: "card" }, make("p", { class: "big", id: "label" }, "No answer in this text"),
          make("p", { class: "soft" }, `Certain to ${percent(found.score)}`));
      }
      const characters = Array.from(context);
      const part = (start, end) => characters.slice(start, end).join("");
      const prose = make("p", { class: "prose", id: "prose" }, part(0, found.start),
        make("mark", { class: "answer" }, part(found.start, found.end)), part(found.end));
      return make("div", { class: "card" }, make("p", { class: "big", id: "label" }, found.answer),
        make("dl", { class: "bars" }, make("dt", {}, "Score"), make("dd", {}, bar(found.score, true)),
          make("dd", { class: "number" }, percent(found.score))), prose);
    },
  });
}

function embedder(model, signature) {
  return form({
    fields: [{ label: "One text", value: model.example.text }, { label: "Another text", value: "It is sunny." }],
    verb: "Compare",
    answer: async (texts) => {
      const [one, other] = (await predict(texts.map((text) => ({ text })), signature)).map((row) => row.embedding ?? row);
      const dot = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);
      const similarity = dot(one, other) / Math.sqrt(dot(one, one) * dot(other, other) || 1);
      return make("div", { class: "card" },
        make("div", { class: "similar" }, make("p", { class: "big", id: "label" }, similarity.toFixed(3)), bar(similarity, true)),
        make("p", { class: "soft" }, `Cosine of the angle between two vectors of ${one.length} numbers; 1 is the same direction.`));
    },
  });
}

// Any signature that takes strings alone: outputs as they come.
function anything(model, signature) {
  const inputs = Object.entries(model.signatures[signature].inputs);
  if (inputs.some(([, spec]) => spec.dtype !== "string" || spec.shape.length !== 1)) {
    const needs = inputs.map(([name, spec]) => `${name} (${spec.dtype})`).join(", ");
    return [make("div", { class: "card" }, `This signature takes ${needs}: ask it over REST or gRPC.`)];
  }
  return form({
    fields: inputs.map(([name]) => ({ label: name, value: model.example[name] })),
    verb: "Ask",
    answer: async (texts) => {
      const [found] = await predict(Object.fromEntries(inputs.map(([name], place) => [name, texts[place]])), signature);
      const one = Object.keys(model.signatures[signature].outputs);
      const named = one.length === 1 ? { [one[0]]: found } : found;
      const rows = Object.entries(named).map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name),
        make("td", {}, typeof value === "string" ? value : JSON.stringify(value))));
      return make("div", { class: "card" }, make("table", {}, make("tbody", {}, ...rows)));
    },
  });
}
