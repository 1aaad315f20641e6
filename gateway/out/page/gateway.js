// What the page says to the gateway, and what it hears of it.

const KEY = "consilium-key"; // in this tab's own storage: gone with the tab

/** There is no answer: a problem as the gateway writes it, or one of this page's own. */
export class Failure extends Error {
  constructor(type, status = 0, detail = "", afterS = null) {
    super(type);
    Object.assign(this, { type, status, detail, afterS });
  }
}

/** A problem, as an event or a whole response has it. */
export function asFailure(problem, afterS = null) {
  const type = problem.type.replace("urn:consilium:", "");
  return Object.assign(new Failure(type, problem.status, problem.detail, afterS), {
    answers: problem.answers,
  });
}

export const useKey = (key) => sessionStorage.setItem(KEY, key);

/** Who sits on the panel, and what a case may hold. */
export async function panel() {
  return (await call("panel")).json();
}

/** One image as the workers will get it. */
export async function preview(picture) {
  return (await call("preview", { method: "POST", body: imagesOf([picture]) })).json();
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
  const headers = { ...init.headers, ...(key && { authorization: `Bearer ${key}` }) };
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
  if (problem?.type) throw asFailure(problem, afterS);
  throw new Failure("status", response.status, "", afterS); // of a proxy before the gateway
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
