"""Does the panel tell what it knows from what it never saw?

    python -m benchmarks.accuracy.familiarity draw FOLDER
    consilium evaluate --dataset FOLDER/blank.csv --out runs/blank      (and the other files there)
    python -m benchmarks.accuracy.familiarity tell runs/known runs/blank runs/noise …

`draw` writes pictures that are none a panel should be sure of, from what the packages bring: evenly
grey and coloured ones, noise, photographs (scikit-learn's and matplotlib's, whole and in parts),
pages of text, and pydicom's ultrasound. Nothing that is answered to them counts as
right, but that an ultrasound is one.

`tell` weighs stored answers by the panel file's competence and prints of each further run how well
the familiarity of the image tells its cases from the first run's (the area under the ROC curve: 0.5
is chance), the same of the question and of the grounding that was answered, how many are called
unfamiliar, and how many were answered wrongly at a confidence of 0.8 or more. A run whose images
were changed may be among them.
"""

import argparse
import csv
import io
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib import cbook
from matplotlib import image as mpl_image
from PIL import Image, ImageDraw, ImageFont
from pydicom.data.data_manager import DATA_ROOT
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from benchmarks import needs
from gateway.intake.pixels import only_pixels
from gateway.refusals import Refused
from gateway.settings import Settings, load_settings
from services.evaluation import stored_run
from services.evaluation.heard import calibrated_on, heard_in
from services.evaluation.learning import fit
from services.evaluation.score import is_right

QUESTIONS = (
    "What modality is used to take this image?",
    "Is this image normal?",
    "Which organ is abnormal, heart or lung?",
)
COLUMNS = ("id", "images", "question", "answer", "alternatives")
NONE = ("nobody can tell", "")
RIGHT = {("ultrasound", 0): ("ultrasound", "us - ultrasound")}
SURE = 0.8
PARTS, RATES = ("image", "question", "grounding"), ("unfamiliar", f"wrong at {SURE}")
SIDE = 384


def drawn() -> Iterator[tuple[str, Image.Image]]:
    """Each picture with the name of its kind; the same in every run."""
    dice = np.random.default_rng(0)
    for grey in (0, 16, 64, 96, 128, 160, 224, 255):
        yield "blank", Image.new("L", (SIDE, SIDE), grey)
    for colour in ("red", "navy", "darkgreen", "beige"):
        yield "blank", Image.new("RGB", (300, 400), colour)
    for coarse in (1, 1, 4, 12, 32):
        for shape in ((), (3,)):
            size = SIDE // coarse
            values = dice.integers(0, 256, (size, size, *shape), dtype=np.uint8)
            yield "noise", Image.fromarray(values).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    for photograph in _photographs():
        yield "natural", photograph
        yield "natural", photograph.convert("L")
        width, height = photograph.size
        for x, y in ((0, 0), (width // 2, 0), (0, height // 2), (width // 2, height // 2)):
            yield "natural", photograph.crop((x, y, x + width // 2, y + height // 2))
    for lines in (6, 12, 24, 40):
        for paper, ink in (("white", "black"), ("black", "white")):
            page = Image.new("RGB", (600, 800), paper)
            font = ImageFont.load_default(size=640 // lines)
            text = "\n".join(" ".join(QUESTIONS) for _ in range(lines))
            ImageDraw.Draw(page).text((20, 20), text, fill=ink, font=font)
            yield "text", page
    for file in sorted(Path(DATA_ROOT, "test_files").rglob("*.dcm")):
        try:
            shown = only_pixels(file.read_bytes(), file.name)
        except Refused:
            continue
        if shown.modality == "ultrasound":
            # Without its header, which would say so.
            yield "ultrasound", Image.open(io.BytesIO(shown.data))


def _photographs() -> Iterator[Image.Image]:
    for pixels in load_sample_images().images:
        yield Image.fromarray(pixels)
    for name in ("grace_hopper.jpg", "Minduka_Present_Blue_Pack.png"):
        pixels = mpl_image.imread(cbook.get_sample_data(name, asfileobj=False))
        if pixels.dtype != np.uint8:
            pixels = (255 * pixels).astype(np.uint8)
        yield Image.fromarray(pixels).convert("RGB")


def draw(folder: Path) -> None:
    """A set for each kind of picture: KIND.csv and its pictures."""
    numbers: dict[str, int] = defaultdict(int)
    rows = defaultdict(list)
    folder.mkdir(parents=True, exist_ok=True)
    for kind, picture in drawn():
        numbers[kind] += 1
        name = f"{kind}-{numbers[kind]}"
        picture.save(folder / f"{name}.png")
        for n, question in enumerate(QUESTIONS):
            rows[kind].append([f"{name}-{n}", f"{name}.png", question, *RIGHT.get((kind, n), NONE)])
    for kind, found in rows.items():
        with (folder / f"{kind}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *found])
        print(f"{folder / kind}.csv: {numbers[kind]} pictures, {len(found)} questions")


def tell(runs: list[Path], settings: Settings, data: Path) -> None:
    """A line for each run; the first one's cases are those that are known."""
    known: dict[str, list[float]] = {}
    print(f"{'run':20} {'cases':>6}" + "".join(f"{head:>14}" for head in (*PARTS, *RATES)))
    for run in runs:
        stored, outcomes = stored_run.load(run, data)
        if learned := calibrated_on([example for example, _ in outcomes], settings.competence):
            print(
                f"{run}: {learned} of its {len(outcomes)} cases show images that the competence "
                "file was learned from, and say nothing of what it is worth: take others.",
                file=sys.stderr,
            )
        cases = [heard_in(stored.language, *each) for each in outcomes if each[1].was_answered]
        opinions = [fit.opinion_of(case, settings, settings.competence) for case in cases]
        familiar = [opinion.familiarity for opinion in opinions if opinion.familiarity]
        verdicts = [outcome.verdict for _, outcome in outcomes if outcome.verdict]
        told = {
            "image": [each.image for each in familiar if each.image is not None],
            "question": [each.question for each in familiar if each.question is not None],
            "grounding": [each.grounding for each in verdicts if each.grounding is not None],
        }
        known = known or told
        unfamiliar = sum(each.unfamiliar for each in familiar if each.image is not None)
        wrong = sum(
            (o.confidence or 0) >= SURE and not is_right(o.winner.text, case.example)
            for o, case in zip(opinions, cases, strict=True)
        )
        areas = "".join(f"{_area(known[part], told[part]):>14}" for part in PARTS)
        rates = "".join(f"{count / len(cases):14.1%}" for count in (unfamiliar, wrong))
        print(f"{run.name:20} {len(cases):6}{areas}{rates}")


def _area(known: list[float], others: list[float]) -> str:
    if known is others:
        return "known"
    if not known or not others:
        return "not told"
    right = [1] * len(known) + [0] * len(others)
    return f"{roc_auc_score(right, [*known, *others]):.3f}"


def main() -> None:
    options = argparse.ArgumentParser(prog="benchmarks.accuracy.familiarity")
    verbs = options.add_subparsers(dest="verb", required=True)
    verbs.add_parser("draw").add_argument("folder", type=Path)
    telling = verbs.add_parser("tell")
    telling.add_argument("runs", type=Path, nargs="+")
    telling.add_argument("--panel", type=Path, default=Path("panel.toml"))
    needs.data_folder(telling)
    given = options.parse_args()
    if given.verb == "draw":
        draw(given.folder)
    else:
        tell(given.runs, load_settings(given.panel), given.data)


if __name__ == "__main__":
    with needs.told():
        main()
