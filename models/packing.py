"""Image-once packing: all questions about an image in one row, the image's tokens only once.

    [bos] [image] [question 1, answer 1] [question 2, answer 2] …

Each question sees the image and itself, and its positions restart after the image; so its loss
and gradients are those of a row of its own, and the image's tokens are paid for once.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.data.example import DataError, Example

IGNORED = -100


@dataclass(frozen=True)
class Row:
    """One image with its questions. `ids` has zeros where the image's embeddings go."""

    image: Path
    ids: Tensor  # [length]
    positions: Tensor  # [length]
    segments: Tensor  # [length]; 0 is the image, k the k-th question
    labels: Tensor  # [length]; the token that follows, where it belongs to an answer, else IGNORED
    questions: tuple[Example, ...]


@dataclass(frozen=True)
class Batch:
    rows: Sequence[Row]
    ids: Tensor  # [b, length]
    positions: Tensor  # [b, length]
    mask: Tensor  # [b, 1, length, length], True where a token (row) sees another (column)
    labels: Tensor  # [b, length]


def pack(
    examples: Sequence[Example],
    encode: Callable[[str], list[int]],
    prompt: str,
    end: int,
    bos: list[int],
    image_tokens: int,
    max_questions: int = 16,
) -> list[Row]:
    """Rows in the order in which images first appear; at most `max_questions` in each.

    `encode` turns text into ids, `prompt` holds `{question}`, `end` is the end-of-text id.

    Raises:
        DataError: no examples.
    """
    if not examples:
        raise DataError("There is nothing to train on: the data that the recipe names is empty.")
    by_image: dict[Path, list[Example]] = defaultdict(list)
    for example in examples:
        by_image[example.image].append(example)
    return [
        _row(image, group[i : i + max_questions], encode, prompt, end, bos, image_tokens)
        for image, group in by_image.items()
        for i in range(0, len(group), max_questions)
    ]


def _row(
    image: Path,
    questions: list[Example],
    encode: Callable[[str], list[int]],
    prompt: str,
    end: int,
    bos: list[int],
    image_tokens: int,
) -> Row:
    prefix = len(bos) + image_tokens
    ids = bos + [0] * image_tokens
    positions, segments, labels = list(range(prefix)), [0] * prefix, [IGNORED] * prefix
    for number, example in enumerate(questions, start=1):
        asked = encode(prompt.format(question=example.question))
        answered = [*encode(" " + example.answer), end]
        text = asked + answered[:-1]  # the end is predicted, never read
        ids += text
        positions += range(prefix, prefix + len(text))
        segments += [number] * len(text)
        labels += [IGNORED] * (len(asked) - 1) + answered
    return Row(
        image=image,
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        segments=torch.tensor(segments),
        labels=torch.tensor(labels),
        questions=tuple(questions),
    )


def collate(rows: Sequence[Row], pad: int) -> Batch:
    """Rows padded to the longest. Padding sees only itself, and nothing sees padding."""
    length = max(len(row.ids) for row in rows)

    def padded(columns: list[Tensor], value: int) -> Tensor:
        out = torch.full((len(columns), length), value)
        for line, column in zip(out, columns, strict=True):
            line[: len(column)] = column
        return out

    segments = padded([row.segments for row in rows], -1)
    own, other = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = causal & ((own == other) | ((other == 0) & (own > 0)))
    mask |= torch.eye(length, dtype=torch.bool)  # a row of the softmax must not be empty
    return Batch(
        rows=rows,
        ids=padded([row.ids for row in rows], pad),
        positions=padded([row.positions for row in rows], 0),
        mask=mask[:, None],
        labels=padded([row.labels for row in rows], IGNORED),
    )
