// What went wrong, in the reader's language.

import { element, has, word } from "./words.js";

/** A failure as a sentence of the reader's language, and beneath it the gateway's own, which says
 * which image or field it was. */
export function sentence(failure) {
  const name = `problem_${failure.type.replaceAll("-", "_")}`;
  const own = has(name) ? word(name, failure.values) : word("problem_status", failure);
  const later = failure.afterS ? ` ${word("try_again", { seconds: failure.afterS })}` : "";
  const detail = element("p", { class: "hint", lang: "en" }, failure.detail ?? "");
  return element("div", { class: "failure" }, element("p", {}, own + later), detail);
}
