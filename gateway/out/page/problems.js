// What went wrong, in the reader's language.

import { element, has, word } from "./words.js";

const WORDLESS = "The words of this page did not come. Ask again, or load the page again.";

/** A failure as a sentence of the reader's language, and beneath it the gateway's own, which says
 * which image or field it was. */
export function sentence({ type, code, status, detail, afterS, values }) {
  const names = [code, type.replaceAll("-", "_")].map((each) => `problem_${each}`);
  if (!has("problem_status")) return element("p", { class: "failure", lang: "en" }, WORDLESS);
  const own = word(names.find(has) ?? "problem_status", { status, ...values });
  const later = afterS ? ` ${word("try_again", { seconds: afterS })}` : "";
  const its = detail ? [element("p", { class: "hint", lang: "en" }, detail)] : [];
  return element("div", { class: "failure" }, element("p", {}, own + later), ...its);
}
