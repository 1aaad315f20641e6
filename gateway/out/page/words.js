// The words of the interface, in the reader's language, and what the page's parts are made of.

export const LANGUAGES = { en: "English", es: "Español", zh: "中文" };
export const WINDOWS = ["brain", "subdural", "lung", "bone", "soft_tissue"];

let words = {};
let language = "en";
let asked = 0; // how often a language was asked for
let spoken = 0; // which of them is spoken

/** The first of the browser's languages that the page speaks. */
export function usual() {
  const wanted = navigator.languages.map((each) => each.slice(0, 2).toLowerCase());
  return wanted.find((each) => each in LANGUAGES) ?? "en";
}

/** From now on all words are of this language, unless those of one that was asked for later are
 * there by then. Raises an error where they do not come. */
export async function speak(name) {
  const turn = ++asked;
  const found = await fetch(new URL(`${name}.json`, import.meta.url));
  const read = await found.json();
  if (!("ask" in read)) throw new Error("no words"); // somebody else's
  if (turn < spoken) return;
  [words, spoken] = [read, turn];
  language = document.documentElement.lang = name;
  for (const each of document.querySelectorAll("[data-word]")) {
    each.textContent = word(each.dataset.word);
  }
}

export const has = (name) => name in words;

/** An entry of the language's file, with {names} replaced by values. */
export function word(name, values = {}) {
  return words[name].replace(/\{(\w+)\}/g, (_, each) => values[each]);
}

export function percent(share) {
  return new Intl.NumberFormat(language, { style: "percent" }).format(share);
}

export function number(value, digits = 2) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

/** An element with attributes (functions are listeners, null is none) and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}
