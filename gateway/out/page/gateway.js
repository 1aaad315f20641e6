// What the page says to the gateway, and what it hears of it.

const KEY = "consilium-key"; // in this tab's own storage: gone with the tab
// What a proxy before the gateway says in words of its own.
const PROXYS = { 401: "unauthorized", 413: "too-large", 429: "too-many-requests" };

/** There is no answer: `type` is that of the gateway's problem, or one of this page's own; beside it
 * `code` (why, more closely), `status`, `detail`, `afterS` (when it may be tried again), `answers`
 * and `values` for its words. */
export class Failure extends Error {
  constructor(type, more = {}) {
    super(type);
    Object.assign(this, more, { type });
  }
}

/** A problem, as an event or a whole response has it. */
export function asFailure(problem, afterS = null) {
  return new Failure(problem.type.replace("urn:consilium:", ""), { ...problem, afterS });
}

export const useKey = (key) => sessionStorage.setItem(KEY, key);

/** Who sits on the panel, and what a case may hold. */
export async function panel() {
  return json(await call("panel"), ["workers"]);
}

/** One image as the workers will get it. */
export async function preview(picture) {
  return json(await call("preview", { method: "POST", body: imagesOf([picture]) }), ["picture", "shown"]);
}

/** What a reader says of a verdict. */
export async function say(word) {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify(word);
  return json(await call("feedback", { method: "POST", body, headers }), ["word"]);
}

/** The case's events, as pairs of name and content; the last is a verdict or a problem. */
export async function* ask(asked, signal) {
  const body = imagesOf(asked.pictures);
  for (const [name, value] of Object.entries(asked.fields)) {
    for (const each of [value].flat()) {
      body.append(name, typeof each === "object" ? JSON.stringify(each) : each);
    }
  }
  const headers = { accept: "text/event-stream" };
  const response = await call("vqa", { method: "POST", body, headers, signal });
  try {
    for await (const event of events(response.body)) {
      yield event;
      if (event[0] === "verdict" || event[0] === "problem") return;
    }
  } catch (error) {
    if (signal.aborted) throw error;
  }
  throw new Failure("lost");
}

/** A form of them. Files go without their names, which can be a person's. */
function imagesOf(pictures) {
  const body = new FormData();
  for (const { file, frame, window } of pictures) {
    body.append("images", file, "image");
    body.append("frame", frame ?? "");
    body.append("window", window === null ? "" : String(window));
  }
  return body;
}

async function call(path, init = {}) {
  const key = sessionStorage.getItem(KEY);
  // A key is left as it is; what can be none, and could be no header, is refused as one.
  const bearer = key && { authorization: `Bearer ${encodeURIComponent(key)}` };
  const headers = { ...init.headers, ...bearer };
  let response;
  try {
    response = await fetch(path, { ...init, headers, cache: "no-store" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Failure("unreachable");
  }
  if (response.ok) return response;
  const afterS = Number(response.headers.get("retry-after")) || null;
  const problem = await response.json().catch(() => null);
  if (typeof problem?.type === "string") throw asFailure(problem, afterS);
  const { status } = response;
  throw new Failure(PROXYS[status] ?? "status", { status, afterS });
}

/** What a gateway says in JSON, by fields that it always has: else it is somebody else's, a page to
 * log in as like as not. */
async function json(response, fields) {
  const told = await response.json().catch(() => null);
  if (fields.every((field) => told?.[field] != null)) return told;
  throw new Failure("status", { status: response.status });
}

/** Server-sent events, as the gateway writes them: two lines and an empty one. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const [name, data] = text.slice(0, end).split("\n");
      yield [name.replace("event: ", ""), JSON.parse(data.replace("data: ", ""))];
    }
  }
}
