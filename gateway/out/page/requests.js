// The request that was sent, for a shell, for Python and for OpenAI's client. No key is in them:
// they take it from $CONSILIUM_KEY.

import { element, word } from "./words.js";

const ROOT = new URL(".", document.baseURI).href.replace(/\/$/, "");

/** Each with a button that copies it. */
export function draw(shown, place) {
  const made = { curl: curl(shown), Python: python(shown), OpenAI: openai(shown) };
  place.replaceChildren(
    ...Object.entries(made).flatMap(([name, text]) => {
      const code = element("pre", { tabindex: 0, role: "region", "aria-label": name }, text);
      const said = element("span", { role: "status" });
      const copy = () => copied(code, text).then((name) => (said.textContent = word(name)));
      const button = element("button", { type: "button", click: copy }, word("copy", { name }));
      return [element("p", { class: "row" }, button, said), code];
    }),
  );
}

/** Beyond https and this machine a browser copies nothing itself: the text is then selected. */
async function copied(code, text) {
  try {
    await navigator.clipboard.writeText(text);
    return "copied";
  } catch {
    getSelection().selectAllChildren(code);
    return "selected";
  }
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function curl({ pictures, fields }) {
  const lines = [`curl -s ${quoted(`${ROOT}/vqa`)}`, `-H "Authorization: Bearer $CONSILIUM_KEY"`];
  for (const { file, frame, window } of pictures) {
    const name = file.name.replaceAll("\\", "\\\\").replaceAll('"', '\\"');
    lines.push(`-F ${quoted(`images=@"${name}"`)}`);
    if (!isAsIs(pictures)) lines.push(`-F frame=${frame ?? ""} -F window=${window ?? ""}`);
  }
  for (const [name, value] of Object.entries(fields)) {
    for (const each of [value].flat()) {
      const text = typeof each === "object" ? JSON.stringify(each) : each;
      lines.push(`--form-string ${quoted(`${name}=${text}`)}`);
    }
  }
  return lines.join(" \\\n  ");
}

/** Whether each file itself says what of it is shown. */
const isAsIs = (pictures) =>
  pictures.every(({ frame, window }) => frame === null && window === null);

/** As Python writes it: but for true and false, a value as JSON does. */
function literal(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const pairs = Object.entries(value).map(([name, each]) => `${literal(name)}: ${literal(each)}`);
  return `{${pairs.join(", ")}}`;
}

function python({ pictures, fields: { question, options: how, ...fields } }) {
  const images = pictures.map(({ file, frame, window }) => ({
    data: file.name,
    ...(frame !== null && { frame }),
    ...(window !== null && { window }),
  }));
  const more = Object.entries({ ...fields, ...how });
  const options = more.map(([name, value]) => `    ${name}=${literal(value)},\n`);
  return `from consilium import ask

verdict = ask(
    ${literal(images)},
    ${literal(question)},
${options.join("")}    url=${literal(ROOT)},
)
print(verdict.answer, verdict.agreement, verdict.dissent)`;
}

function openai({ pictures, fields: { question, ...fields } }) {
  const names = literal(pictures.map(({ file }) => file.name));
  const its = "# A chat shows the frame and the window that the file itself names.\n";
  const note = isAsIs(pictures) ? "" : its;
  return `import base64, os
from pathlib import Path
from openai import OpenAI

${note}def image(name):
    data = base64.b64encode(Path(name).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": "data:;base64," + data}}

client = OpenAI(base_url=${literal(`${ROOT}/v1`)}, api_key=os.environ.get("CONSILIUM_KEY", "none"))
text = {"type": "text", "text": ${literal(question)}}
reply = client.chat.completions.create(
    model="consilium",
    messages=[{"role": "user", "content": [text, *map(image, ${names})]}],
    extra_body={"consilium": ${literal(fields)}},
)
print(reply.choices[0].message.content)`;
}
