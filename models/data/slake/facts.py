"""What SLAKE says of each of its images, as questions that every probed image can be asked.

modality   CT, MRI or X-Ray
organ      which part of the body
side       the half of the picture that the finding's boxes lie in, where all lie in one
answer     the answer to closed questions that are put in the same words to many images
"""

from dataclasses import dataclass
from pathlib import Path

from models.data import slake
from models.data.datasets import one_spelling
from models.data.example import DataError, Example, read_json
from models.data.pixels import size_of
from models.data.slake.captions import boxes, original_side

FEWEST = 5  # images that must have each answer, for a question to count

# SLAKE names some parts more finely than it shows them often.
PARTS = {"lung": "chest", "chest": "chest", "brain": "head", "pelvic": "pelvis"}
FINDINGS = {
    "Atelectasis", "Brain Edema", "Brain Enhancing Tumor", "Brain Non-enhancing Tumor", "Effusion",
    "Infiltrate", "Liver Cancer", "Lung Cancer", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """`question` is empty where an image is asked one thing only."""

    image: Path
    question: str
    label: str


def facts(root: Path, splits: tuple[str, ...]) -> dict[str, list[Fact]]:
    """What there is to know of the images of these splits, by the names above.

    Raises:
        DataError: a missing or broken file, or rows that say nothing of the part of the body.
    """
    examples = one_spelling([e for split in splits for e in slake.load(root, split, "en")])
    modality = {example.images[0]: example.modality for example in examples}
    sides = {image: _side(image) for image in modality}
    return {
        "modality": [Fact(image, "", label) for image, label in modality.items() if label],
        "organ": [Fact(image, "", label) for image, label in _parts(root, splits).items()],
        "side": [Fact(image, "", side) for image, side in sides.items() if side],
        "answer": _answers(examples),
    }


def _parts(root: Path, splits: tuple[str, ...]) -> dict[Path, str]:
    found: dict[Path, str] = {}
    for split in splits:
        for row in read_json(root / f"{split}.json"):
            if row.get("q_lang") != "en":
                continue
            if not row.get("location"):
                raise DataError(
                    f"{root / split}.json: question {row.get('qid')} has no location: download "
                    "it again."
                )
            first = str(row["location"]).lower().replace("_", " ").split()[0]
            found[root / "imgs" / str(row["img_name"])] = PARTS.get(first, first)
    return found


def _side(image: Path) -> str | None:
    """left or right in the picture, which is the patient's other one."""
    named = [pair for each in boxes(image) for pair in each.items()]
    findings = [box for name, box in named if name in FINDINGS]
    if not findings:
        return None
    side = original_side(max(size_of(image)), [box for _, box in named])
    halves = {"left" if x + width / 2 < side / 2 else "right" for x, _, width, _ in findings}
    return halves.pop() if len(halves) == 1 else None


def _answers(examples: list[Example]) -> list[Fact]:
    asked: dict[str, dict[Path, str]] = {}
    for example in examples:
        if example.closed and example.answer in ("Yes", "No"):
            asked.setdefault(example.question, {})[example.images[0]] = example.answer
    return [
        Fact(image, question, answer)
        for question, answers in asked.items()
        if min(list(answers.values()).count(each) for each in ("Yes", "No")) >= FEWEST
        for image, answer in answers.items()
    ]
