"""Captions in LLaVA's layout (LLaVA-Pretrain, LLaVA-Med's alignment set): `SPLIT.json`, `images/`.

An entry is `{"id", "image", "conversations": [{"from": "human", "value": "Describe …\n<image>"},
{"from": "gpt", "value": "the caption"}, …]}`; each pair of turns becomes an example.
"""

from pathlib import Path
from typing import Any

from models.data.example import (
    DataError,
    Example,
    answered,
    asked,
    read_json,
    require_images,
    require_known,
)

SPLITS = ("train", "validate")
LANGUAGES = ("en",)


def load(root: Path, split: str, language: str) -> list[Example]:
    """The examples of one split, in file order.

    Raises:
        DataError: an unknown split or language, a missing or broken file, a missing image.
    """
    require_known("A caption set", split, SPLITS, language, LANGUAGES)
    path = root / f"{split}.json"
    found = [e for entry in read_json(path) for e in _examples(entry, root / "images", path)]
    examples = answered(found, str(path))
    require_images(examples, f"its caption is in {path}")
    return examples


def _examples(entry: dict[str, Any], images: Path, path: Path) -> list[Example | None]:
    try:
        turns = entry["conversations"]
        roles = [turn["from"] for turn in turns]
        if roles != ["human", "gpt"] * (len(turns) // 2) or not turns:
            raise DataError(f"{path}: {entry['id']}: human and gpt must take turns.")
        pairs = zip(turns[::2], turns[1::2], strict=True)
        said = [asked(q["value"], a["value"], f"{path}: {entry['id']}") for q, a in pairs]
        return [
            pair
            and Example(
                id=f"{entry['id']}-{number}",
                images=(images / entry["image"],),
                question=pair[0].replace("<image>", "").strip(),
                answer=pair[1].strip(),
                language="en",
                closed=False,
                kind="Caption",
            )
            for number, pair in enumerate(said)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {entry.get('id')} is no captioned image ({error}).") from error
