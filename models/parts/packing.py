"""Image-once packing: all questions about the same images in one row, their tokens only once.

    [bos] [images] [question 1, answer 1] [question 2, answer 2] …

Each question sees the images and itself, and its positions restart after them; so its loss and
gradients are those of a row of its own, and the images' tokens are paid for once.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from models.data.example import DataError, Example

IGNORED = -100
IMAGE = -1  # stands in a row's ids where an image's embedding goes


@dataclass(frozen=True)
class Row:
    """Images with all the questions about them."""

    images: tuple[Path, ...]
    ids: Tensor  # [length], IMAGE where an image's embedding goes
    positions: Tensor  # [length]
    segments: Tensor  # [length]; 0 is bos and images, k the k-th question
    labels: Tensor  # [length]; the token that follows, where it belongs to an answer, else IGNORED
    questions: tuple[Example, ...]
    places: Tensor | None = None  # [images, patches, 3]; None: those of their order

    @property
    def prefix(self) -> Tensor:
        """What all questions see: the ids of bos and images."""
        return self.ids[self.segments == 0]

    @property
    def asked(self) -> list[Tensor]:
        """Each question's ids, without its answer."""
        found = []
        for number in range(1, len(self.questions) + 1):
            own = self.segments == number
            first_answer = int((self.labels[own] != IGNORED).nonzero()[0])
            found.append(self.ids[own][: first_answer + 1])
        return found


@dataclass(frozen=True)
class Batch:
    rows: Sequence[Row]
    ids: Tensor  # [b, length]; any token where an image's embedding goes
    positions: Tensor  # [b, length]
    images: Tensor  # [b, length], True where an image's embedding goes
    mask: Tensor  # [b, 1, length, length], True where a token (row) sees another (column)
    labels: Tensor  # [b, length]
    # [2, n]: the row and place of every label. Known before an accelerator is asked, which would
    # have to be waited for.
    labelled: Tensor

    def to(self, device: torch.device) -> "Batch":
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if field.name != "rows"
        }
        return replace(self, **moved)


def pack(
    examples: Sequence[Example],
    encode: Callable[[str], list[int]],
    encode_answer: Callable[[Example], list[int]],
    prompt: str,
    end: int,
    bos: list[int],
    image_tokens: Callable[[int], int],
    max_questions: int = 16,
) -> list[Row]:
    """Rows in the order in which images first appear; at most `max_questions` in each.

    `encode` turns text into ids, `encode_answer` an example's answer, `prompt` holds `{question}`,
    `end` is the end-of-text id, `image_tokens` says how many tokens so many images take.

    Raises:
        DataError: no examples.
    """
    if not examples:
        raise DataError("There is nothing to train on: the data that the recipe names is empty.")
    by_images: dict[tuple[tuple[Path, ...], ...], list[Example]] = defaultdict(list)
    for example in examples:
        by_images[example.images, example.cameras].append(example)
    return [
        _row(
            images,
            group[i : i + max_questions],
            encode,
            encode_answer,
            prompt,
            end,
            bos,
            image_tokens,
        )
        for (images, _), group in by_images.items()
        for i in range(0, len(group), max_questions)
    ]


def _row(
    images: tuple[Path, ...],
    questions: list[Example],
    encode: Callable[[str], list[int]],
    encode_answer: Callable[[Example], list[int]],
    prompt: str,
    end: int,
    bos: list[int],
    image_tokens: Callable[[int], int],
) -> Row:
    prefix = len(bos) + image_tokens(len(images))
    ids = bos + [IMAGE] * (prefix - len(bos))
    positions, segments, labels = list(range(prefix)), [0] * prefix, [IGNORED] * prefix
    for number, example in enumerate(questions, start=1):
        asked = encode(prompt.format(question=example.question))
        answered = [*encode_answer(example), end]
        text = asked + answered[:-1]  # the end is predicted, never read
        ids += text
        positions += range(prefix, prefix + len(text))
        segments += [number] * len(text)
        labels += [IGNORED] * (len(asked) - 1) + answered
    return Row(
        images=images,
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        segments=torch.tensor(segments),
        labels=torch.tensor(labels),
        questions=tuple(questions),
    )


def in_steps(rows: Sequence[Row], rows_per_step: int, seed: int) -> list[list[Row]]:
    """All rows in a random order, so many to a step, the last of them to a shorter one.

    Rows of like length share a step, so that little of it is padding.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator).tolist()
    pools = [order[i : i + 8 * rows_per_step] for i in range(0, len(order), 8 * rows_per_step)]
    alike = [i for pool in pools for i in sorted(pool, key=lambda i: len(rows[i].ids))]
    steps = [alike[i : i + rows_per_step] for i in range(0, len(alike), rows_per_step)]
    shuffled = torch.randperm(len(steps), generator=generator).tolist()
    return [[rows[i] for i in steps[place]] for place in shuffled]


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
    ids = padded([row.ids for row in rows], pad)
    labels = padded([row.labels for row in rows], IGNORED)
    return Batch(
        rows=rows,
        ids=ids.clamp(min=0),
        images=ids == IMAGE,
        positions=padded([row.positions for row in rows], 0),
        mask=mask[:, None],
        labels=labels,
        labelled=(labels != IGNORED).nonzero().T,
    )
