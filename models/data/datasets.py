"""Every dataset by its name, which is also its folder's; or a set of one's own by its file."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from models.data import (
    captions,
    mediqa_m3g,
    own_file,
    path_vqa,
    scenes,
    slake,
    vqa_med_2019,
    vqa_rad,
)
from models.data.example import DataError, Example, answered
from models.data.slake import captions as slake_captions
from models.data.slake import regions, several, synthetic_stacks

LOADERS: dict[str, Callable[[Path, str, str], list[Example]]] = {
    "slake": slake.load,
    "vqa_rad": vqa_rad.load,
    "vqa_med_2019": vqa_med_2019.load,
    "path_vqa": path_vqa.load,
    "mediqa_m3g": mediqa_m3g.load,
    "captions": captions.load,
    "slake_captions": slake_captions.load,
    "slake_regions": regions.load,
    "slake_several": several.load,
    "slake_synthetic_stacks": synthetic_stacks.load,
    "scenes": scenes.load,
}


def load(name: str, data: Path, split: str, language: str) -> list[Example]:
    """The examples of one split and language of dataset `name`, whose folder lies in `data`; or of
    the file `name`, whose one split is "all". One whose question or answer is blank is left out:
    nothing can be learned from it, or scored.

    Raises:
        DataError: no such dataset, split or language; a missing or broken file; an id that stands
            there twice; a missing image.
    """
    require_set(name)
    if is_own(name):
        return own_file.load(Path(name), split, language)
    found = LOADERS[name](data / name, split, language)
    # Verdicts, folds and what a memory tells go by it: one of two cases would have the other's.
    counts = Counter(each.id for each in found)
    if doubled := [id for id, count in counts.items() if count > 1]:
        raise DataError(
            f"{data / name}, {split} in {language}: {len(doubled)} ids stand there twice, such as "
            f"{doubled[0]}: download it again."
        )
    whole = (each if each.question.strip() and each.answer.strip() else None for each in found)
    return answered(whole, f"{data / name}, {split} in {language}")


def is_own(name: str) -> bool:
    """Whether it is the path of a set of one's own."""
    return name not in LOADERS and Path(name).suffix.lower() in own_file.READERS


def called(name: str) -> str:
    """What a set is called where others read it: of one's own no more than its file's name."""
    return Path(name).stem if is_own(name) else name


def require_set(name: str) -> None:
    """Raises DataError where `name` is neither a dataset nor a file of a kind that is read."""
    if name not in LOADERS and not is_own(name):
        raise DataError(
            f"No dataset {name!r}; there are: {', '.join(LOADERS)}, and your own in a file that "
            f"ends in {', '.join(own_file.READERS)}."
        )


def one_spelling(examples: Sequence[Example], as_in: Iterable[Example] = ()) -> list[Example]:
    """The same examples with one spelling per answer, that of `as_in` where it has the answer:
    its most common capitals, no final stop.

    SLAKE writes "Yes" and "yes", "Lung" and "lung"; a model should not have to guess which.
    """

    def bare(answer: str) -> str:
        plain = answer.strip()
        return plain.removesuffix(".").removesuffix("。").strip() or plain

    def commonest(those: Iterable[Example]) -> dict[str, str]:
        spellings: dict[str, Counter[str]] = {}
        for example in those:
            answer = bare(example.answer)
            spellings.setdefault(answer.lower(), Counter())[answer] += 1
        return {key: counter.most_common(1)[0][0] for key, counter in spellings.items()}

    chosen = commonest(examples) | commonest(as_in)
    return [replace(e, answer=chosen[bare(e.answer).lower()]) for e in examples]
