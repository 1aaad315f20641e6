"""What a run tells on its way: sums over some steps, printed and kept in `log.jsonl`."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.data.example import Example
from models.files import append_line, read_lines, write_whole
from models.parts.packing import IGNORED, Batch
from models.training.learning.losses import Losses
from models.training.record.tracker import Tracker


@dataclass
class Tally:
    """Sums over some steps, for the next report."""

    answer_loss: float = 0.0
    tokens: int = 0
    reconstruction_loss: float = 0.0
    images: int = 0
    right: dict[Example, bool] = field(default_factory=dict)
    load: dict[str, Tensor] = field(default_factory=dict)  # of each expert, where there are any
    since: float = field(default_factory=time.monotonic)

    @property
    def has_gradient(self) -> bool:
        return True

    @classmethod
    def of_all(cls, tallies: Sequence["Tally"]) -> "Tally":
        """What several processes saw, as one; its time is the first one's."""
        found = cls(since=tallies[0].since)
        for each in tallies:
            found.answer_loss += each.answer_loss
            found.tokens += each.tokens
            found.reconstruction_loss += each.reconstruction_loss
            found.images += each.images
            found.right |= each.right
            for modality, load in each.load.items():
                found.load[modality] = found.load.get(modality, 0) + load
        return found

    def add(self, batch: Batch, losses: Losses, end: int) -> None:
        """Greedy decoding gives exactly the reference where, read with the reference before it,
        every token of it is the likeliest; so one pass scores it without generating. `end` is the
        token that closes an answer.
        """
        labels = batch.labels[batch.labels != IGNORED]
        self.answer_loss += losses.answer.item()
        self.tokens += len(labels)
        self.reconstruction_loss += losses.reconstruction.item()
        self.images += sum(len(row.images) for row in batch.rows)
        asked = [question for row in batch.rows for question in row.questions]
        self.right |= dict(zip(asked, all_right(losses.wrong, labels, end), strict=True))

    def add_load(self, modalities: Sequence[str], load: Tensor) -> None:
        """`load` [images, experts]: how many patches each expert got."""
        for modality, patches in zip(modalities, load, strict=True):
            self.load[modality] = self.load.get(modality, 0) + patches.cpu()

    def shares(self) -> dict[str, list[float]]:
        """Each expert's share of the patches, by modality."""
        return {
            modality: [round(share, 3) for share in (load / load.sum()).tolist()]
            for modality, load in sorted(self.load.items())
        }

    def report(self) -> dict[str, float]:
        return {
            "answer_loss": round(self.answer_loss / self.tokens, 4),
            "reconstruction_loss": round(self.reconstruction_loss / self.images, 4),
            "exact_match": round(sum(self.right.values()) / len(self.right), 4),
            "questions_per_s": round(len(self.right) / (time.monotonic() - self.since), 1),
        }


def all_right(wrong: Tensor, labels: Tensor, end: int) -> list[bool]:
    """For each answer, closed by `end`: is every token of it right? Both [tokens]."""
    at_end = wrong.long().cumsum(0)[labels == end]
    return (torch.diff(at_end, prepend=at_end.new_zeros(1)) == 0).tolist()


def read_log(path: Path) -> list[dict[str, Any]]:
    """A log's lines, without those that were cut short."""
    return read_lines(path, dict).records


class Log:
    """`log.jsonl`: a line per report; a silent one (`shown` false) writes nothing anywhere. A
    tracker, where there is one, is told the same.
    """

    def __init__(self, path: Path, steps: int, shown: bool):
        self.path, self.steps, self.shown = path, steps, shown
        self.tracker: Tracker | None = None

    def forget_after(self, step: int) -> None:
        """Drops what was logged of steps that the last stop does not hold: they are run again."""
        if self.shown and self.path.exists():
            kept = [line for line in read_log(self.path) if line["step"] <= step]
            write_whole(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def say(self, line: str) -> None:
        if self.shown:
            print(line, flush=True)

    def figures(self, step: int, part: str, figures: dict[str, float], note: str = "") -> None:
        self._keep({"step": step, "part": part, **figures})
        shown = "  ".join(f"{name} {value:g}" for name, value in figures.items())
        self.say(f"step {step}/{self.steps}  {part:10}  {shown}  {note}")
        if self.tracker:
            self.tracker.tell(self.path.parent.name, part, figures, step)

    def experts(self, step: int, shares: dict[str, list[float]]) -> None:
        self._keep({"step": step, "part": "experts", "load": shares})
        for modality, share in shares.items():
            self.say(f"step {step}/{self.steps}  experts of {modality}: {share}")

    def _keep(self, line: dict[str, Any]) -> None:
        if not self.shown:
            return
        try:
            append_line(self.path, line)
        except OSError as error:
            raise OSError(
                f"{self.path} could not be written ({error}). Make room, and run the same command "
                "again."
            ) from error
