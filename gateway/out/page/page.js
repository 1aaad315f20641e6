// The page: what is typed, asked, stopped, shown, and kept while this tab is open.

import * as feedback from "./feedback.js";
import * as gateway from "./gateway.js";
import * as pictures from "./pictures.js";
import { sentence } from "./problems.js";
import * as requests from "./requests.js";
import * as verdict from "./verdict.js";
import { LANGUAGES, element, has, speak, usual, word } from "./words.js";

const EXAMPLES = [
  ["en", "What modality is used to take this image?"],
  ["en", "Is there a pleural effusion?"],
  ["es", "¿Qué modalidad se usó para obtener esta imagen?"],
  ["es", "¿Qué órgano se ve en esta imagen?"],
  ["zh", "这张图片的成像方式是什么？"],
  ["zh", "图中有哪些器官？"],
];
const NUMBERS = ["max-risk", "deadline", "coverage"];
const at = (id) => document.getElementById(id);

const cases = []; // of this tab, the latest first
let panel = null; // GET /panel, once it was answered
let meeting = null; // while it is, or was, asked for
let problem = null; // what stands above the button
const waiting = []; // files that were chosen before the panel was known
let running = null; // the case that is being asked
let shown = null; // the case that is looked at

/** The page's words and GET /panel, where they did not come before. Raises a Failure. */
function meet() {
  const met = async () => {
    if (!has("ask")) await choosePage(usual());
    panel = await gateway.panel();
    pictures.limit(panel, fail);
    drawChoices();
  };
  meeting ??= met().catch((failure) => {
    meeting = null; // the next one tries again
    throw failure;
  });
  return meeting;
}

function fail(failure) {
  problem = failure;
  if (failure?.status === 401) {
    at("key-form").hidden = false;
    at("key").focus();
  }
  drawProblem();
}

function drawProblem() {
  at("error").replaceChildren(...(problem ? [sentence(problem)] : []));
}

/** How the panel is to be asked; what is as it comes is not named. */
function optionsWritten() {
  const [risk, deadline, coverage] = NUMBERS.map((id) => at(id).valueAsNumber);
  const workers = [...at("workers").querySelectorAll(":checked")].map((box) => box.value);
  const chosen = ["wait", "style", "summarise"].filter((id) => at(id).selectedIndex);
  return {
    ...(workers.length && { workers }),
    ...Object.fromEntries(chosen.map((id) => [id, at(id).value])),
    ...(at("rounds").checked && { rounds: 2 }),
    ...(Number.isFinite(deadline) && { deadline_s: deadline }),
    ...(Number.isFinite(risk) && { max_risk: risk / 100 }),
    ...(Number.isFinite(coverage) && { coverage: coverage / 100 }),
    ...(at("grounding").checked && { grounding: true }),
  };
}

/** The form as a case: what is sent, and what is heard of it. */
function written() {
  const lines = at("choices").value.split("\n").map((line) => line.trim());
  const choices = lines.filter((line) => line);
  const said = at("views").value.trimEnd().split("\n").map((line) => line.trim());
  // A line that is not there tells nothing of its image; one too many is the gateway's to refuse.
  const views = [...said, ...Array(Math.max(pictures.chosen().length - said.length, 0)).fill("")];
  const modality = at("modality").value;
  const options = optionsWritten();
  const question = at("question").value.trim();
  const fields = {
    question,
    ...(at("language").value && { language: at("language").value }),
    ...(at("context").value.trim() && { context: at("context").value.trim() }),
    ...(modality && { modality }),
    ...(views.some((view) => view) && { views }),
    ...(choices.length && { choices }),
    ...(Object.keys(options).length && { options }),
  };
  return {
    question,
    fields,
    pictures: pictures.chosen().map(({ file, frame, window }) => ({ file, frame, window })),
    seats: [],
    answers: new Map(),
    stopper: new AbortController(),
  };
}

function isSame(one, other) {
  const said = ({ fields, pictures }) =>
    JSON.stringify([fields, pictures.map(({ frame, window }) => [frame, window])]);
  return (
    said(one) === said(other) &&
    one.pictures.every(({ file }, index) => file === other.pictures[index].file)
  );
}

async function ask() {
  if (!(await take([]))) return;
  const own = written();
  if (running) {
    // A second click asks nothing new; another question ends the first one only if it may.
    if (isSame(own, running) || !confirm(word("instead"))) return;
    stop();
  }
  if (!own.pictures.length) return missing("no-image", "files");
  if (!own.question) return missing("no-question", "question");
  const wrong = NUMBERS.find((id) => !at(id).checkValidity());
  if (wrong) return missing("no-number", wrong);
  running = own;
  fail(null);
  drawButtons();
  try {
    await prepare(own);
    if (running !== own) return; // stopped meanwhile
    cases.unshift(own);
    show(own);
    await hear(own);
  } catch (error) {
    if (!(error instanceof gateway.Failure)) throw error;
    fail(error);
  } finally {
    if (running === own) running = null;
    drawButtons();
    drawHistory();
  }
}

/** Raises a Failure where the case cannot be sent. */
async function prepare(own) {
  const looked = [...pictures.chosen()];
  await meet();
  if (await pictures.refusedOne()) throw new gateway.Failure("refused-picture");
  own.seats = own.fields.options?.workers ?? panel.workers.map((worker) => worker.name);
  own.pictures.forEach((each, index) => (each.seen = looked[index].seen));
}

/** What comes in is drawn as it comes; a failure is kept with the case, below what was heard. */
async function hear(own) {
  try {
    for await (const [name, content] of gateway.ask(own, own.stopper.signal)) {
      if (name === "problem") throw gateway.asFailure(content);
      verdict.hear(own, name, content);
      redraw(own);
    }
  } catch (error) {
    if (own.stopper.signal.aborted) own.stopped = true;
    else if (!(error instanceof gateway.Failure)) throw error;
    else own.failure = error;
    own.failure?.answers?.forEach((answer) => verdict.take(own, answer));
    if (own.failure?.status === 401) fail(own.failure);
    redraw(own);
  }
}

function missing(name, field) {
  const { min, max } = at(field);
  fail(new gateway.Failure(name, { values: { min, max } }));
  for (const each of document.querySelectorAll("details")) each.open ||= each.contains(at(field));
  at(field).focus();
}

function stop() {
  running?.stopper.abort();
  running = null;
}

function show(one) {
  shown = one;
  requests.draw(one, at("snippets"));
  at("requests").hidden = false;
  redraw(one);
  drawHistory();
}

function redraw(one) {
  if (one !== shown) return;
  verdict.draw(one);
  feedback.draw(one, panel.feedback);
}

function drawButtons() {
  at("stop").hidden = !running;
  at("ask").textContent = word(running ? "asking" : "ask");
}

function drawHistory() {
  at("history").hidden = !cases.length;
  at("cases").replaceChildren(
    ...cases.map((one) => {
      const answer = one.verdict ? one.verdict.answer ?? word("abstained") : word("no_verdict");
      const button = element(
        "button",
        { type: "button", "aria-current": String(one === shown), click: () => show(one) },
        element("bdi", {}, one.question),
        " — ",
        element("bdi", {}, one === running ? word("asking") : answer),
      );
      return element("li", {}, button);
    }),
  );
}

/** What is chosen from: languages that somebody on the panel speaks, and examples in them; who
 * sits there. */
function drawChoices() {
  const spoken = new Set(panel?.workers.flatMap((worker) => worker.languages) ?? []);
  const there = Object.keys(LANGUAGES).filter((name) => !panel || spoken.has(name));
  const chosen = at("language").value;
  at("language").replaceChildren(
    element("option", { value: "" }, word("language_told")),
    ...there.map((name) => element("option", { value: name, lang: name }, LANGUAGES[name])),
  );
  at("language").value = there.includes(chosen) ? chosen : "";
  at("examples").replaceChildren(
    ...EXAMPLES.filter(([name]) => there.includes(name)).map(([lang, text]) => {
      const take = () => {
        at("question").value = text;
        at("question").focus();
      };
      return element("li", {}, element("button", { type: "button", lang, click: take }, text));
    }),
  );
  if (!panel) return;
  const ticked = [...at("workers").querySelectorAll("input:checked")].map((box) => box.value);
  at("workers").querySelectorAll("label").forEach((label) => label.remove());
  at("workers").append(
    ...panel.workers.map(({ name }) => {
      const box = element("input", { type: "checkbox", value: name });
      box.checked = ticked.includes(name);
      return element("label", { class: "check" }, box, name);
    }),
  );
}

/** Raises a Failure where its words do not come: those that were there stay. */
async function choosePage(language) {
  try {
    await speak(language);
  } catch {
    throw new gateway.Failure("unreachable");
  } finally {
    at("language-of-page").value = document.documentElement.lang;
  }
  drawChoices();
  drawProblem();
  drawButtons();
  pictures.draw();
  if (shown) show(shown);
}

/** Files wait until the limits are known: what is over one is never read. Returns whether none waits
 * any more. */
async function take(files) {
  waiting.push(...files);
  try {
    await meet();
    const chosen = waiting.splice(0);
    if (chosen.length) fail(pictures.add(chosen));
    return true;
  } catch (failure) {
    fail(failure);
    return false;
  }
}

function listen() {
  feedback.listen();
  at("language-of-page").append(
    ...Object.entries(LANGUAGES).map(([value, text]) =>
      element("option", { value, lang: value }, text),
    ),
  );
  at("language-of-page").addEventListener("change", (event) => {
    choosePage(event.target.value).catch(fail);
  });
  at("case").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  at("case").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
  });
  at("stop").addEventListener("click", () => {
    stop();
    drawButtons();
    at("ask").focus();
  });
  at("files").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });
  // A file that is dropped beside the place for it would take the page's place.
  for (const name of ["dragover", "drop"]) {
    addEventListener(name, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return; // a text, for a field
      event.preventDefault();
      at("drop").classList.toggle("over", name === "dragover");
      if (name === "drop") take(event.dataTransfer.files);
    });
  }
  at("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    gateway.useKey(at("key").value.trim());
    meeting = null;
    try {
      await meet();
      at("key").value = "";
      at("key-form").hidden = true;
      fail(null);
      take([]);
      pictures.lookAgain();
      at("files").focus();
    } catch (error) {
      fail(error);
    }
  });
}

listen(); // what is chosen and clicked before the page has met the panel waits for it
meet().catch(fail);
