// ---- Text that grows ----
// Gives the events of a stream; the last one is the counts of tokens.
async function* events(path, body, signal) {
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  const answer = await call(path, asked, signal);
  let rest = "";
  for await (const chunk of chunks(answer.body.pipeThrough(new TextDecoderStream()).getReader())) {
    const lines = (rest + chunk).split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      const event = JSON.parse(line.slice("data: ".length));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
  throw new Error("The stream broke off.");
}

async function* chunks(reader) {
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

function settings() {
  const temperature = make("input", { id: "temperature", type: "range", min: 0, max: 2, step: 0.05, value: 0.7 });
  const shownValue = make("output", { for: "temperature" }, "0.7");
  temperature.addEventListener("input", () => (shownValue.textContent = temperature.value));
  const number = (id, value, more) => make("input", { id, type: "number", value, ...more });
  const parts = {
    max_tokens: number("max_tokens", 128, { min: 1, step: 1 }),
    top_p: number("top_p", 0.95, { min: 0.01, max: 1, step: 0.01 }),
    seed: number("seed", "", { step: 1, placeholder: "new each time" }),
  };
  const names = { max_tokens: "New tokens at most", top_p: "Top p", seed: "Seed" };
  const element = make("details", { class: "settings" }, make("summary", {}, "Settings"), make("div", { class: "grid" },
    make("div", {}, make("label", { for: "temperature" }, "Temperature ", shownValue), temperature),
    ...Object.entries(parts).map(([name, input]) => make("div", {}, make("label", { for: name }, names[name]), input))));
  const values = () => {
    const found = { temperature: Number(temperature.value) };
    for (const [name, input] of Object.entries(parts)) if (input.value !== "") found[name] = Number(input.value);
    return found;
  };
  return { element, values };
}

// Streams an answer into an element, and says below how fast it came.
async function grow(path, body, target, note) {
  running?.abort();
  const mine = (running = new AbortController());
  const began = performance.now();
  let text = "", reason = "", count = 0;
  target.classList.add("growing");
  try {
    for await (const event of events(path, body, mine.signal)) {
      const choice = event.choices[0];
      const piece = choice?.text ?? choice?.delta?.content ?? "";
      if (piece) target.append(piece);
      text += piece;
      reason = choice?.finish_reason ?? reason;
      count = event.usage?.completion_tokens ?? count;
    }
    const seconds = (performance.now() - began) / 1000;
    const why = { stop: "came to its end", length: "cut at the limit" }[reason] ?? reason;
    note.textContent = `${count} tokens · ${(count / seconds).toFixed(1)} a second · ${why}`;
  } catch (problem) {
    note.textContent = mine.signal.aborted ? "stopped" : problem.message;
    note.classList.toggle("error", !mine.signal.aborted);
  } finally {
    target.classList.remove("growing");
    if (running === mine) running = null;
  }
  return text;
}

function writer(model) {
  const body = make("div");
  const modes = { chat: chat, complete: complete };
  const buttons = Object.entries({ chat: "Chat", complete: "Continue a text" }).map(([mode, label]) =>
    make("button", { type: "button", "data-mode": mode, onclick: () => show(mode) }, label));
  function show(mode) {
    running?.abort();
    for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.mode === mode);
    body.replaceChildren(...modes[mode](model));
  }
  show(model.chat ? "chat" : "complete");
  return [...(model.chat ? [make("div", { class: "switch", role: "group", "aria-label": "What to do" }, ...buttons)] : []), body];
}

// The form of both kinds of text: `ask` is given the text, and streams.
function growingForm({ label, verb, value, one, enter, ask, more = [] }) {
  const { area, element } = field(label, { id: "field-0", value, one });
  const chosen = settings();
  const run = make("button", { class: "primary", id: "run" }, verb);
  const stop = make("button", { class: "plain", type: "button", id: "stop", disabled: true, onclick: () => running?.abort() }, "Stop");
  async function go(event) {
    event?.preventDefault();
    if (run.disabled) return;
    run.disabled = true;
    stop.disabled = false;
    try {
      await ask(area, chosen.values());
    } finally {
      run.disabled = false;
      stop.disabled = true;
    }
  }
  const hint = make("kbd", {}, enter ? "Enter" : "Ctrl + Enter");
  const made = make("form", { class: "card", onsubmit: go }, element,
    make("div", { class: "actions" }, run, stop, ...more, hint), chosen.element);
  area.addEventListener("keydown", (event) => {
    const alone = enter && !event.shiftKey && !event.isComposing;
    if (event.key === "Enter" && (alone || event.ctrlKey || event.metaKey)) go(event);
    if (event.key === "Escape") running?.abort();
  });
  return made;
}

function complete(model) {
  const result = make("div", { id: "result", "aria-live": "polite" });
  const form = growingForm({
    label: "Text to go on from", verb: "Continue", value: model.example.prompt,
    ask: async (area, values) => {
      const text = make("span", { id: "written" });
      const note = make("p", { class: "soft", id: "time" });
      const given = make("span", { class: "given" }, area.value);
      result.replaceChildren(make("div", { class: "card" }, make("p", { class: "written" }, given, text), note));
      await grow("/v1/completions", { model: model.name, prompt: area.value, ...values }, text, note);
    },
  });
  return [form, result];
}

function chat(model) {
  let turns = [];
  const log = make("div", { class: "log", id: "log", role: "log", "aria-label": "Conversation" });
  const forget = () => {
    running?.abort();
    turns = [];
    log.replaceChildren();
  };
  const form = growingForm({
    label: "Your message", verb: "Send", value: "What is the capital of France?", one: true, enter: true,
    more: [make("button", { class: "plain", type: "button", onclick: forget }, "New chat")],
    ask: async (area, values) => {
      const content = area.value.trim();
      if (!content) return;
      area.value = "";
      const mine = turns; // "New chat" begins another list while this answer still grows
      mine.push({ role: "user", content });
      const text = make("span");
      const note = make("small");
      const answer = make("div", { class: "turn assistant" }, text, note);
      log.append(make("div", { class: "turn user" }, content), answer);
      answer.scrollIntoView({ block: "nearest" });
      const said = await grow("/v1/chat/completions", { model: model.name, messages: [...mine], ...values }, text, note);
      if (said) mine.push({ role: "assistant", content: said });
      else mine.pop();
      area.focus();
    },
  });
  return [log, form];
}

// ---- Choosing ----
const VIEWS = { text_classification: classifier, token_classification: tagger, question_answering: reader, embedding: embedder, causal_lm: writer };
const MAIN = { text_classification: "classify", token_classification: "tag", question_answering: "answer", embedding: "embed", causal_lm: "generate" };

function open(model, signature) {
  running?.abort();
  running = null;
  shown = model;
  location.replace(`#${encodeURIComponent(model.name)}`);
  for (const button of find("models").querySelectorAll("button")) {
    const here = button.dataset.name === model.name;
    if (here) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
    if (here) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  const main = MAIN[model.task];
  const first = main in model.signatures && (model.task !== "causal_lm" || model.generates) ? main : null;
  const chosen = signature ?? first ?? "serving_default";
  find("name").textContent = model.name;
  find("about").textContent = `${TASKS[model.task] ?? (model.task || "SavedModel")} · version ${model.version}`;
  const names = Object.keys(model.signatures).sort((a, b) => (b === chosen) - (a === chosen) || a.localeCompare(b));
  find("signature").replaceChildren(...names.map((name) => make("option", { value: name, selected: name === chosen }, name)));
  const view = chosen === first ? VIEWS[model.task] : anything;
  find("request").hidden = true;
  find("panel").replaceChildren(...view(model, chosen));
  find("view").hidden = false;
}

async function start() {
  const state = find("state");
  try {
    models = (await (await call("/page/models.json")).json()).models;
  } catch (problem) {
    state.className = "failed";
    find("state-text").textContent = problem.message;
    return;
  }
  find("key-form").hidden = true;
  state.className = "ready";
  find("state-text").textContent = models.length === 1 ? "1 model" : `${models.length} models`;
  find("models").replaceChildren(...models.map((model) => make("li", {},
    make("button", { type: "button", "data-name": model.name, onclick: () => open(model) },
      make("strong", {}, model.name), make("span", {}, TASKS[model.task] ?? (model.task || "SavedModel"))))));
  const wanted = location.hash.slice(1);
  const model = models.find((item) => encodeURIComponent(item.name) === wanted || item.name === wanted) ?? models[0];
  if (model) open(model);
}

find("signature").addEventListener("change", (event) => open(shown, event.target.value));
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", find("key").value);
  start();
});
find("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(find("curl").textContent);
  find("copy").textContent = "Copied";
  setTimeout(() => (find("copy").textContent = "Copy"), 1500);
});
start();
