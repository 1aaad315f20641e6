// What a reader says of the verdict that is shown: right or wrong, and what is right.

import * as gateway from "./gateway.js";
import { sentence } from "./problems.js";
import { word } from "./words.js";

const at = (id) => document.getElementById(id);

let shown = null; // the case that is spoken of
let keeps = null; // what the gateway keeps: "marks", "cases", or null for nothing

/** `keep` is what GET /panel says of it. */
export function draw(one, keep) {
  if (one !== shown) at("feedback").reset();
  [shown, keeps] = [one, keep];
  at("feedback").hidden = !keep || !one.verdict || Boolean(one.kept);
  for (const name of ["right", "wrong"]) {
    at(`is-${name}`).setAttribute("aria-pressed", String(one.says === name));
  }
  at("feedback-more").hidden = !one.says;
  at("feedback-answer").hidden = one.says !== "wrong";
  at("feedback-case").hidden = keep !== "cases";
  at("feedback-told").replaceChildren(...told(one));
}

function told({ kept, unsaid }) {
  if (kept) return [word(kept.case ? "feedback_case" : "feedback_marks")];
  return unsaid ? [sentence(unsaid)] : [];
}

async function say() {
  const own = shown;
  const { verdict, says } = own;
  const decided = verdict.answer ?? verdict.best_guess;
  const answer = says === "right" ? decided : at("right-answer").value.trim();
  const comment = at("comment").value.trim();
  at("feedback-send").disabled = true; // a second click says nothing twice
  own.unsaid = null;
  try {
    const agrees = keeps === "cases" && at("agree").checked;
    own.kept = await gateway.say({
      verdict: verdict.id,
      word: says,
      ...(answer && { answer }),
      ...(agrees && { case: await again(own), ...(comment && { comment }) }),
    });
  } catch (error) {
    if (!(error instanceof gateway.Failure)) throw error;
    own.unsaid = error;
  } finally {
    at("feedback-send").disabled = false;
    if (own === shown) draw(own, keeps);
  }
}

/** The case as JSON has it. */
async function again({ fields, pictures }) {
  const images = pictures.map(async ({ file, frame, window }) => ({
    data: await encoded(file),
    frame,
    window,
  }));
  return { ...fields, images: await Promise.all(images) };
}

function encoded(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new gateway.Failure("refused-picture"));
    reader.readAsDataURL(file);
  });
}

export function listen() {
  for (const says of ["right", "wrong"]) {
    at(`is-${says}`).addEventListener("click", () => {
      shown.says = says;
      draw(shown, keeps);
    });
  }
  at("feedback").addEventListener("submit", (event) => {
    event.preventDefault();
    if (shown.says) say();
  });
}
