"""Answers → one opinion: who agrees with whom, who won, how clearly. Pure functions.

Every worker that answered has one voice. How much two members of a family repeat each other's
errors has not been measured yet, so no voice is discounted for it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.contract import Answer, Dissent
from gateway.meaning import meaning


@dataclass(frozen=True)
class Cluster:
    """Answers that mean the same; `text` is the wording of its first member in panel order."""

    text: str
    workers: tuple[str, ...]
    weight: float


@dataclass(frozen=True)
class Opinion:
    """The panel's answers with their weights, and the clusters they form, the winner first."""

    answers: tuple[Answer, ...]
    clusters: tuple[Cluster, ...]

    @property
    def winner(self) -> Cluster:
        return self.clusters[0]

    @property
    def unanimous(self) -> bool:
        return len(self.clusters) == 1

    @property
    def agreement(self) -> float | None:
        """The winner's share of all voices; null when a single worker answered."""
        voices = sum(len(cluster.workers) for cluster in self.clusters)
        return self.winner.weight if voices > 1 else None

    @property
    def dissent(self) -> tuple[Dissent, ...]:
        return tuple(
            Dissent(text=cluster.text, workers=cluster.workers, weight=cluster.weight)
            for cluster in self.clusters[1:]
        )


def is_decided(answers: Iterable[Answer], missing: int) -> bool:
    """Whether `missing` more voices could not change who wins. Every answer has a text."""
    groups = Counter(meaning(answer.text or "") for answer in answers)
    first, second, *_ = sorted([*groups.values(), 0, 0], reverse=True)
    return first - second > missing


def weigh(answers: Iterable[Answer]) -> Opinion:
    """Give each worker that answered an equal share, and group equal answers.

    A tie goes to the cluster whose members were surer on average, then to the earlier seat.
    At least one of the answers must have a text.
    """
    answers = tuple(answers)
    voices = [answer for answer in answers if answer.text is not None]
    weight = 1 / len(voices)
    groups: dict[tuple[str, ...], list[Answer]] = {}
    for answer in voices:
        groups.setdefault(meaning(answer.text or ""), []).append(answer)
    # Sorting is stable and the groups stand in panel order: that is the last tie-break.
    ranked = sorted(groups.values(), key=lambda group: (-len(group), -_mean_confidence(group)))
    return Opinion(
        answers=tuple(
            answer if answer.text is None else answer.model_copy(update={"weight": weight})
            for answer in answers
        ),
        clusters=tuple(
            Cluster(
                text=group[0].text or "",
                workers=tuple(answer.worker for answer in group),
                weight=len(group) / len(voices),
            )
            for group in ranked
        ),
    )


def _mean_confidence(group: list[Answer]) -> float:
    return sum(answer.confidence or 0 for answer in group) / len(group)
