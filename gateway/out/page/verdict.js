// One case as it comes in: a card for each worker, how the vote stands, and the verdict.

import { sentence } from "./problems.js";
import { whatIsShown } from "./pictures.js";
import { element, has, number, percent, word } from "./words.js";

const SHAPES = { for: "▲", against: "▼", said: "◆", silent: "○", waiting: "…" };
const UNSEEN = 0.05; // less grounding than this is told in words
const at = (id) => document.getElementById(id);

/** Takes an event of the stream into the case. */
export function hear(shown, name, content) {
  if (name === "answer" || name === "failure") take(shown, content);
  else if (name === "provisional") shown.provisional = content;
  else if (name === "verdict") {
    shown.verdict = content;
    content.answers.forEach((answer) => take(shown, answer));
  }
}

/** A worker's last word counts; where it failed in the second round, its first. */
export function take(shown, answer) {
  if (answer.error && shown.answers.get(answer.worker)?.text) return;
  shown.answers.set(answer.worker, answer);
}

export function draw(shown) {
  const { verdict, failure } = shown;
  at("asked").hidden = false;
  at("asked").textContent = shown.question;
  at("asked-pictures").replaceChildren(...shown.pictures.map(thumbnail));
  at("progress").textContent = progress(shown);
  at("verdict").replaceChildren(
    ...(verdict ? opinion(verdict) : failure ? [sentence(failure)] : standing(shown.provisional)),
  );
  at("verdict").classList.toggle("final", Boolean(verdict));
  at("verdict").setAttribute("aria-busy", !verdict && !failure); // read out once it is final
  drawCards(shown);
}

function thumbnail({ seen, file }, index) {
  const alt = word("picture", { at: index + 1, name: file.name });
  return element("li", {}, seen && element("img", { src: seen.picture, alt }));
}

function progress({ answers, seats, verdict, failure, stopped }) {
  if (stopped) return word("stopped");
  if (failure) return word("no_verdict");
  if (verdict) return word("took", { seconds: number(verdict.seconds) });
  return word("heard", { heard: answers.size, asked: seats.length });
}

function standing(provisional) {
  if (!provisional) return [];
  const { answer, agreement, heard } = provisional;
  return [
    element("p", { class: "label" }, word("so_far", { heard })),
    element("p", { class: "answer", dir: "auto" }, answer),
    ...(agreement === null ? [] : [gauge("agreement", agreement)]),
  ];
}

function opinion(verdict) {
  const { familiarity, grounding, status, dissent, summary, learned_from, images } = verdict;
  const abstained = status === "abstained";
  const made = [];
  if (familiarity?.why) {
    const why = element("bdi", {}, familiarity.why);
    made.push(
      familiarity.unfamiliar === false
        ? element("p", { class: "hint" }, `${word("familiarity")} `, why)
        : element("p", { class: "unfamiliar" }, `⚠ ${word("unfamiliar")} `, why),
    );
  }
  made.push(
    element("p", { class: "label" }, word(abstained ? "abstained" : "verdict")),
    element("p", { class: "answer", dir: "auto" }, abstained ? "—" : verdict.answer),
  );
  if (abstained) {
    const guess = element("bdi", {}, verdict.best_guess);
    made.push(element("p", {}, word("abstained_why"), " ", guess));
  }
  made.push(
    verdict.agreement === null
      ? element("p", {}, word(verdict.workers.length ? "one_voice" : "nobodys"))
      : gauge("agreement", verdict.agreement),
    verdict.confidence === null
      ? element("p", {}, word(familiarity?.unfamiliar ? "none_claimed" : "no_confidence"))
      : gauge("confidence", verdict.confidence),
  );
  if (typeof grounding === "number") {
    made.push(gauge("grounding", grounding));
    if (grounding < UNSEEN) made.push(element("p", { class: "unfamiliar" }, word("unseen")));
  }
  made.push(...dissents(dissent), ...setOf(verdict.prediction_set));
  const worded = [word(`by_${summary.by}`)];
  if (summary.why) worded.push(" ", element("bdi", {}, summary.why), ".");
  const facts = [];
  if (verdict.cached) facts.push(word("cached"));
  images.forEach((each, index) => {
    const what = whatIsShown(each);
    if (what) facts.push(`${word("image_shown", { at: index + 1 })} ${what}.`);
  });
  made.push(element("p", { class: "hint" }, ...worded, facts.map((fact) => ` ${fact}`).join("")));
  if (learned_from) {
    made.push(element("p", { class: "hint" }, `${word("learned_from")} ${learned_from}.`));
  }
  made.push(element("p", { class: "notice" }, word("notice")));
  return made;
}

function dissents(dissent) {
  if (!dissent.length) return [element("p", {}, word("no_dissent"))];
  const lines = dissent.map(({ text, workers, weight }) =>
    element(
      "li",
      {},
      `${SHAPES.against} `,
      element("bdi", {}, text),
      ` (${workers.join(", ")}; ${word("weight", { weight: percent(weight) })})`,
    ),
  );
  return [
    element("p", { class: "label" }, word("dissent")),
    element("ul", { class: "dissent" }, ...lines),
  ];
}

/** The answers among which the right one is, where such a set was asked for. */
function setOf(set) {
  if (!set) return [];
  const { coverage, answers, why } = set;
  if (!answers) return [element("p", {}, `${word("no_set")} `, element("bdi", {}, why ?? ""))];
  const lines = answers.map(({ text, share }) =>
    element("li", {}, element("bdi", {}, text), ` (${percent(share)})`),
  );
  return [
    element("p", { class: "label" }, word("set", { coverage: percent(coverage) })),
    element("ul", { class: "dissent" }, ...lines),
  ];
}

function gauge(name, share) {
  const label = `${word(name)} ${percent(share)}`;
  const meter = element("meter", { min: 0, max: 1, value: share, "aria-label": word(name) });
  return element("p", { class: "gauge" }, element("span", {}, label), meter);
}

/** Only a card that says something else than it did is made anew: what is open in it stays so. */
function drawCards(shown) {
  const names = [...new Set([...shown.seats, ...shown.answers.keys()])];
  const cards = at("cards");
  const there = new Map([...cards.children].map((card) => [card.dataset.worker, card]));
  cards.replaceChildren(
    ...names.map((name) => {
      const answer = shown.answers.get(name);
      const stand = standOf(shown, name, answer);
      const says = JSON.stringify([shown.question, document.documentElement.lang, stand, answer]);
      const card = there.get(name);
      return card?.says === says ? card : Object.assign(cardOf(name, stand, answer), { says });
    }),
  );
}

function standOf({ verdict, provisional, failure, stopped }, name, answer) {
  if (!answer) return failure || stopped || verdict ? "silent" : "waiting";
  if (answer.error) return "silent";
  if (verdict) {
    // Who claims several things may be on both sides.
    const against = verdict.dissent.some((each) => each.workers.includes(name));
    return against && !verdict.workers?.includes(name) ? "against" : "for";
  }
  if (!provisional) return "said";
  return provisional.workers.includes(name) ? "for" : "against";
}

function cardOf(name, stand, answer) {
  return element(
    "li",
    { class: `card ${stand}`, "data-worker": name },
    element("h3", {}, name),
    element(
      "p",
      { class: "stand" },
      element("span", { "aria-hidden": "true" }, `${SHAPES[stand]} `),
      word(`stand_${stand}`),
    ),
    ...(answer ? (answer.error ? failed(answer.error) : said(answer)) : []),
  );
}

function failed({ kind, detail }) {
  const why = has(`kind_${kind}`) ? word(`kind_${kind}`) : kind;
  return [element("p", {}, why), element("p", { class: "hint", lang: "en" }, detail)];
}

function said({ text, confidence, seconds, remembers, by_image = [] }) {
  const each = by_image.map((one) => `${word("image_shown", { at: one.image })} ${one.text}`);
  const facts = [word("seconds", { seconds: number(seconds) })];
  if (confidence !== null) facts.unshift(word("sure", { confidence: percent(confidence) }));
  return [
    element("p", { class: "answer", dir: "auto" }, text),
    element("p", { class: "hint" }, facts.join(" · ")),
    ...each.map((line) => element("p", { class: "hint", dir: "auto" }, line)),
    ...(remembers.length ? [memories(remembers)] : []),
  ];
}

function memories(remembers) {
  const lines = remembers.map(({ id, question, answer, likeness }) =>
    element(
      "li",
      {},
      element("bdi", {}, question),
      " ",
      element("strong", { dir: "auto" }, answer),
      ` ${word("alike", { likeness: percent(likeness) })} `,
      element("span", { class: "hint" }, id),
    ),
  );
  const title = element("summary", {}, word("remembers", { cases: remembers.length }));
  return element("details", {}, title, element("ul", {}, ...lines));
}
