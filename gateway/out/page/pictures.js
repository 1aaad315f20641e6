// The images of the case that is being written: chosen, looked at, shown in a frame and a window.

import { Failure, preview } from "./gateway.js";
import { sentence } from "./problems.js";
import { WINDOWS, element, number, word } from "./words.js";

const list = document.getElementById("pictures");
const hint = document.getElementById("files-hint");
const MEGABYTE = 1e6;

// {file, frame, window, choice, seen, failure, item}: frame and window are null while the file
// decides, `choice` is which window was chosen, `seen` what the gateway last showed of it.
let pictures = [];
let limits = null;
let onRefused = () => {};

export const chosen = () => pictures;

// In a field of a window Enter takes the value, and asks nothing yet.
list.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.ctrlKey || event.target.type !== "number") return;
  event.preventDefault();
  event.target.dispatchEvent(new Event("change"));
});

/** What a case may hold, as GET /panel tells, before any is added; `refused` hears of a key that is
 * wanted. */
export function limit(panel, refused) {
  onRefused = refused;
  limits = {
    images: Math.min(panel.max_images, Math.max(...panel.workers.map((each) => each.max_images))),
    image: panel.max_image_mb,
    body: panel.max_body_mb,
  };
  draw();
}

/** Takes files in, as many as there is room for. Returns a Failure where some are left out. */
export function add(files) {
  let left = null;
  for (const file of files) {
    const why = whyNot(file);
    left = why ?? left;
    if (why) continue;
    const item = list.appendChild(element("li"));
    pictures.push({ file, frame: null, window: null, seen: null, failure: null, item });
    look(pictures.at(-1));
  }
  draw();
  return left;
}

/** What is over a limit is never read: a file tells its size without. */
function whyNot(file) {
  const values = { ...limits, name: file.name };
  const bytes = pictures.reduce((sum, each) => sum + each.file.size, file.size);
  if (pictures.length >= limits.images) return new Failure("too-many-images", { values });
  if (file.size > limits.image * MEGABYTE) return new Failure("image-too-large", { values });
  if (bytes > limits.body * MEGABYTE) return new Failure("case-too-large", { values });
  return null;
}

/** Looks again at those that could not be shown for a reason that has passed. */
export function lookAgain() {
  for (const each of pictures) if (each.failure) look(each);
}

/** Once nobody looks any more: the first that is no image, or null. */
export async function refusedOne() {
  await Promise.all(pictures.map((each) => each.looking));
  return pictures.find((each) => [400, 413, 415, 422].includes(each.failure?.status)) ?? null;
}

function look(picture) {
  picture.again = true;
  picture.looking ??= looks(picture).finally(() => (picture.looking = null));
}

/** One look at a time: what was moved meanwhile is looked at next, whatever lay between. */
async function looks(picture) {
  while (picture.again) {
    picture.again = false;
    try {
      picture.seen = await preview(picture);
      picture.failure = null;
    } catch (error) {
      picture.failure = error;
      if (error.status === 401) onRefused(error);
    }
    drawOne(picture);
  }
}

/** All of them, in the words of now. */
export function draw() {
  hint.textContent = limits ? word("images_hint", limits) : "";
  for (const each of pictures) drawOne(each);
}

function drawOne(picture) {
  const { item, file, seen, failure } = picture;
  const at = pictures.indexOf(picture) + 1;
  if (!at) return; // taken out meanwhile
  const name = word("picture", { at, name: file.name });
  const drawn = JSON.stringify([name, seen?.dicom, failure?.type, failure?.detail]);
  if (seen && item.dataset.drawn === drawn) {
    update(picture, name); // a slider that is being moved stays what it is
    return;
  }
  item.dataset.drawn = drawn;
  const remove = element(
    "button",
    { type: "button", "aria-label": word("remove_one", { name }), click: () => takeOut(picture) },
    word("remove"),
  );
  item.replaceChildren(
    element("p", { class: "name" }, element("bdi", {}, name)),
    ...(failure ? [sentence(failure)] : []),
    ...(seen ? [element("img", { alt: "" }), ...controls(picture)] : []),
    ...(seen || failure ? [] : [element("p", {}, word("looking"))]),
    remove,
  );
  if (seen) update(picture, name);
}

function update({ item, seen: { picture, shown } }, name) {
  const img = item.querySelector("img");
  img.src = picture;
  const told = [word("as_sent"), whatIsShown(shown)].filter((each) => each).join(": ");
  img.alt = `${name}. ${told}`;
  item.querySelector(".shown").textContent = told;
  const slider = item.querySelector("[type=range]");
  if (slider && slider !== document.activeElement) slider.value = shown.frame;
}

/** "frame 3 of 12, window 40 / 400", as far as there is a choice. */
export function whatIsShown({ frame, of, window }) {
  const parts = of > 1 ? [word("frame_of", { frame, of })] : [];
  if (window) parts.push(word("window_is", { centre: number(window[0]), width: number(window[1]) }));
  return parts.join(", ");
}

function controls(picture) {
  const { dicom, shown, modality } = picture.seen;
  const made = [element("p", { class: "shown hint" }, "")];
  if (dicom && shown.of > 1) {
    const move = (event) => change(picture, { frame: event.target.valueAsNumber });
    const slider = { type: "range", min: 1, max: shown.of, value: shown.frame, input: move };
    made.push(element("label", {}, word("frame"), element("input", slider)));
  }
  if (dicom && (shown.window || picture.window)) made.push(...windowControls(picture, modality));
  return made;
}

function windowControls(picture, modality) {
  const option = (value, text) =>
    element("option", { value, selected: value === picture.choice }, text);
  const set = () => {
    const [centre, width] = fields.map((each) => each.valueAsNumber);
    if (Number.isFinite(centre) && width > 0) change(picture, { window: [centre, width] });
  };
  const fields = [0, 1].map(() => element("input", { type: "number", step: "any", change: set }));
  const own = element("p", { class: "row", hidden: picture.choice !== "own" });
  own.append(...["centre", "width"].map((name, n) => element("label", {}, word(name), fields[n])));
  const fill = () => fields.forEach((each, n) => (each.value = picture.seen.shown.window?.[n]));
  const choose = ({ target }) => {
    picture.choice = target.value;
    own.hidden = picture.choice !== "own";
    fill(); // one's own begins where the last one was
    if (own.hidden) change(picture, { window: picture.choice || null });
    else set();
  };
  fill();
  const select = element(
    "select",
    { change: choose },
    option("", word("window_file")),
    ...(modality === "ct" ? WINDOWS.map((each) => option(each, word(`window_${each}`))) : []),
    option("own", word("window_own")),
  );
  return [element("label", {}, word("window"), select), own];
}

function change(picture, what) {
  Object.assign(picture, what);
  look(picture);
}

function takeOut(picture) {
  pictures = pictures.filter((each) => each !== picture);
  picture.item.remove();
  draw();
  document.getElementById("files").focus();
}
