"""Answers → one opinion: who agrees with whom, who won, how clearly. Pure functions.

Without a competence file every worker has one voice, and the answer that most of them give wins.
With one, a worker spreads its voice over the answers that were given, as far as it believes in
each: in its own by its calibrated confidence, in others by how near it came to saying them. The
answer with most of all voices wins (a linear opinion pool: Stone 1961). How loud each voice is, was
learned too, by the manner in which a question is put; and n workers of a family count as
n / (1 + (n - 1)ρ) of them, ρ the correlation of their errors.

An answer that claims several things spreads what its giver believes in it over them, as 1 to 1/2 to
1/3 and so on: its lead has the most of it (Dowdall's count), and no answer weighs more for claiming
more. Claims are what is weighed; most answers are one.

What a claim has of all voices that were given to any is its weight: the one number that decides,
and the one that is shown. To a question for the modality nobody believes a claim that names another
one than the case is known to be of. Where all of them do, who nearly said the known one stands for
it: that is what they would have said, had they known. Where nobody did, all are weighed.
"""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from gateway.case import Case
from gateway.contract import Alternative, Answer, Dissent, Familiarity, Likeness, Modality
from gateway.verdict.competence import EDGE, Cell, Competence
from gateway.verdict.familiarity import familiarity
from gateway.verdict.text.claims import Claim, claims
from gateway.verdict.text.meaning import meaning
from gateway.verdict.text.modality import asks_for, names, names_another
from gateway.verdict.text.sentences import Meaning


@dataclass(frozen=True)
class Cluster:
    """Claims that mean the same; `text` is the wording of the member who is believed most. `share`
    is what all workers together believe in it, `weight` the same as a part of what they believe in
    any claim that was made: the weights sum to 1. A worker is in as many as its answer claims."""

    text: str
    meaning: Meaning
    workers: tuple[str, ...]
    weight: float
    share: float


@dataclass(frozen=True)
class Opinion:
    """The panel's answers with their weights, and the clusters they form, the winner first.
    `confidence` is the probability that the winner is right, None where that was not learned or is
    not claimed, since the case is unfamiliar; `familiarity` is None where nothing was learned."""

    answers: tuple[Answer, ...]
    clusters: tuple[Cluster, ...]
    confidence: float | None
    familiarity: Familiarity | None

    @property
    def winner(self) -> Cluster:
        return self.clusters[0]

    @property
    def voices(self) -> tuple[Answer, ...]:
        """The answers that count: each worker's last."""
        return tuple(answer for answer in self.answers if answer.weight is not None)

    @property
    def unanimous(self) -> bool:
        """Whether all claim the same."""
        voices = len(self.voices)
        return all(len(cluster.workers) == voices for cluster in self.clusters)

    @property
    def agreement(self) -> float | None:
        """The winning answer's weight; null when a single worker answered, and when none claims
        it."""
        return self.winner.weight if len(self.voices) > 1 and self.winner.workers else None

    @property
    def entropy(self) -> float | None:
        """How far the panel is from one mind, in nats: the semantic entropy (Kuhn et al. 2023,
        arXiv 2302.09664; discrete, as Farquhar et al. 2024, doi 10.1038/s41586-024-07421-0) of the
        weights. 0 where all are for one claim, ln k where k have the same; null as `agreement`."""
        if len(self.voices) < 2:
            return None
        told = [cluster.weight for cluster in self.clusters if cluster.weight > 0]
        return -sum(weight * math.log(weight) for weight in told) + 0.0

    def is_riskier_than(self, max_risk: float | None) -> bool:
        """Whether the winner is likelier than that to be wrong."""
        return max_risk is not None and (self.confidence is None or 1 - self.confidence > max_risk)

    @property
    def dissent(self) -> tuple[Dissent, ...]:
        return tuple(
            Dissent(text=cluster.text, workers=cluster.workers, weight=cluster.weight)
            for cluster in self.clusters[1:]
        )


@dataclass(frozen=True)
class Backing:
    """An answer that makes a claim, or nearly made it: in which words, which part of the answer it
    is, and how it is told where nobody makes it without a question mark."""

    answer: Answer
    text: str
    part: float
    claimed: bool = True
    asked: str | None = None

    @property
    def told(self) -> str:
        return self.asked or self.text


@dataclass(frozen=True)
class Judge:
    """Weighs the answers to one question; `families` names each worker's. To a question with
    `choices` each answer is one of them, and one claim. `same` names, of claims that a model holds
    for one, the meaning under which each stands."""

    families: Mapping[str, str]
    cell: Cell
    competence: Competence | None
    question: str = ""
    choices: bool = False
    same: Mapping[Meaning, Meaning] = field(default_factory=dict)

    @property
    def knows_risk(self) -> bool:
        """Whether its opinions have a confidence."""
        return bool(self.competence and self.competence.calibration(self.cell))

    @property
    def knows_sets(self) -> bool:
        """Whether sets of answers were learned in the case's language."""
        return bool(self.competence and self.competence.shares_of_the_right(self.cell))

    def read(self, answer: Answer) -> None:
        """Reads it beforehand, while others are still at theirs: many long ones, read when all are
        there, would hold everybody up."""
        self.grouped([answer])

    def weigh(self, answers: Iterable[Answer]) -> Opinion:
        """The opinion of those who answered; at least one of the answers must have a text.

        A tie goes to the answer whose givers were surer on average, then to the earlier seat.
        """
        answers = tuple(answers)
        told = self._told(answers)
        cell = self.told_cell(answers)
        # A worker's last word is its answer.
        standing = {answer.worker: answer for answer in answers if answer.text is not None}
        groups = self.grouped(standing.values())
        known_as = self._known_modality
        if known_as and all(map(self._is_of_another_modality, groups.values())):
            groups |= self._nearly(known_as, standing.values())
        said = {b.answer.worker: b.answer for group in groups.values() for b in group}.values()
        voices = self._voices([answer.worker for answer in said], cell)
        whole = sum(voices[answer.worker] for answer in said)
        own = {answer.worker: self._own_belief(answer, cell) for answer in said}

        def stands_behind(backing: Backing) -> float:
            worker = backing.answer.worker
            return voices[worker] * own[worker] * backing.part

        def worded(backing: Backing) -> tuple[bool, float]:
            return backing.asked is None, stands_behind(backing)

        shares = {
            key: sum(voices[a.worker] * self._belief(a, own[a.worker], group) for a in said) / whole
            for key, group in groups.items()
        }
        # In another order of adding, equal shares may differ by a hair.
        shares = {key: round(share, 9) for key, share in shares.items()}
        shares |= dict.fromkeys(self._ruled_out(groups), 0.0)
        # Sorting is stable and the groups stand in panel order: that is the last tie-break.
        ranked = sorted(groups, key=lambda key: (-shares[key], -_mean_confidence(groups[key])))
        given = sum(shares.values())
        weights: dict[str, float] = {}
        for key, group in groups.items():
            # Its weight is its givers', by how far each stands behind it.
            behind = {b.answer.worker: stands_behind(b) for b in group}
            of_all = shares[key] / given / sum(behind.values())
            for worker, each in behind.items():
                weights[worker] = weights.get(worker, 0.0) + each * of_all
        known = familiarity(told, cell, self.competence) if self.competence else None
        calibrate = self.competence and self.competence.calibration(cell)
        claimed = calibrate if known and not known.unfamiliar else None
        return Opinion(
            answers=tuple(
                answer.model_copy(update={"weight": weights[answer.worker]})
                if standing.get(answer.worker) is answer
                else answer
                for answer in answers
            ),
            clusters=tuple(
                Cluster(
                    # Who knows the manner of the question knows its words too. A tie goes to the
                    # earlier seat.
                    text=max(groups[key], key=worded).told,
                    meaning=key,
                    workers=tuple(b.answer.worker for b in groups[key] if b.claimed),
                    weight=shares[key] / given,
                    share=shares[key],
                )
                for key in ranked
            ),
            confidence=claimed(shares[ranked[0]]) if claimed else None,
            familiarity=known,
        )

    def beliefs(self, answers: Sequence[Answer]) -> list[tuple[str, dict[str, float]]]:
        """Each claim that was made, as the one words it who is believed most; and how far every
        worker believes in it. One answer of a worker, each with a text."""
        cell = self.told_cell(answers)
        own = {answer.worker: self._own_belief(answer, cell) for answer in answers}
        return [
            (
                max(group, key=lambda backing: own[backing.answer.worker] * backing.part).text,
                {a.worker: self._belief(a, own[a.worker], group) for a in answers},
            )
            for group in self.grouped(answers).values()
        ]

    def candidates(self, opinion: Opinion) -> list[tuple[str, float]]:
        """All that any worker said, or nearly said as a whole answer, with what all together
        believe in it; the likeliest first. The opinion is this judge's."""
        said = opinion.voices
        given = {cluster.meaning for cluster in opinion.clusters}
        nearly: dict[Meaning, set[str]] = {}
        for begins in sorted({a.begins for each in said for a in each.alternatives if a.whole}):
            meant = self._under(meaning(begins, self.cell.language, self.question))
            if meant not in given:
                nearly.setdefault(meant, set()).add(begins)
        cell = self.told_cell(said)
        voices = self._voices([answer.worker for answer in said], cell)
        own = {answer.worker: self._own_belief(answer, cell) for answer in said}
        found = [(cluster.text, cluster.share) for cluster in opinion.clusters]
        for texts in nearly.values():
            share = sum(voices[a.worker] * _leaning(a, own[a.worker], texts) for a in said)
            found.append((min(texts), share / sum(voices.values())))
        return sorted(found, key=lambda each: -each[1])

    def is_decided(self, heard: Collection[Answer], missing: Collection[str]) -> bool:
        """Whether the `missing` workers cannot change who wins, whatever they say and however many
        of them answer. Every answer of `heard` has a text."""
        told = self._told(heard)
        if not told and self.competence and not set(self.competence.tells).isdisjoint(missing):
            return False  # who may yet tell what kind of case it is
        first = self.weigh(heard).winner.meaning
        groups = self.grouped(heard)
        ruled_out = self._ruled_out(groups)
        if not ruled_out and any(map(self._is_of_another_modality, groups.values())):
            return False  # all that was said so far is, and the next may not be
        cell = self.told_cell(heard)
        own = {answer.worker: self._own_belief(answer, cell) for answer in heard}

        def ahead(answer: Answer, rival: Meaning | None) -> float:
            """How much more its giver believes in the winner than in a rival, as loud as it is;
            None is any answer that nobody has given yet."""
            sure = own[answer.worker]
            believed = 1 - sure if rival is None else self._belief(answer, sure, groups[rival])
            lead = self._belief(answer, sure, groups[first]) - believed
            return lead * self._loudness(answer.worker, cell)

        families = {self.families[worker] for worker in (*missing, *(a.worker for a in heard))}
        against = {worker: self._loudness(worker, cell) for worker in missing}
        return all(
            sum(self._least_lead(family, heard, against, rival, ahead) for family in families) > 0
            for rival in (*groups, None)
            if rival != first and rival not in ruled_out
        )

    def _least_lead(
        self,
        family: str,
        heard: Collection[Answer],
        against: Mapping[str, float],
        rival: Meaning | None,
        ahead: Callable[[Answer, Meaning | None], float],
    ) -> float:
        """What the winner keeps in voices of this family when those of its missing members who
        answer are all for the rival, as loud as `against` says: the least, whoever they are."""
        own = [ahead(answer, rival) for answer in heard if self.families[answer.worker] == family]
        loudest = sorted(
            (v for w, v in against.items() if self.families[w] == family), reverse=True
        )
        return min(
            (sum(own) - sum(loudest[:more])) * self._voice(family, max(len(own) + more, 1))
            for more in range(len(loudest) + 1)
        )

    def grouped(self, answers: Iterable[Answer]) -> dict[Meaning, list[Backing]]:
        """Who makes each claim, in the order of the answers. One answer of a worker, each with a
        text."""
        groups: dict[Meaning, list[Backing]] = {}
        for answer in answers:
            text = answer.text or ""
            language = self.cell.language
            if self.choices:
                said = [Claim(text, meaning(text, language, self.question))]
            else:
                said = [*claims(text, language, self.question)]
            whole = sum(1 / rank for rank in range(1, len(said) + 1))
            for rank, claim in enumerate(said, start=1):
                group, part = groups.setdefault(self._under(claim.meaning), []), 1 / rank / whole
                asked = claim.told if claim.asked else None
                backing = Backing(answer, claim.text, part, asked=asked)
                if group and group[-1].answer is answer:  # it claims in two ways what is the same
                    earlier = group.pop()
                    surer = backing if earlier.asked and not claim.asked else earlier
                    backing = replace(surer, part=earlier.part + part)
                group.append(backing)
        return groups

    def _under(self, meant: Meaning) -> Meaning:
        return self.same.get(meant, meant)

    def _ruled_out(self, groups: Mapping[Meaning, Sequence[Backing]]) -> list[Meaning]:
        """The claims that name another modality than the known one; none where all do."""
        out = [key for key, group in groups.items() if self._is_of_another_modality(group)]
        return out if len(out) < len(groups) else []

    def _nearly(self, known: Modality, answers: Iterable[Answer]) -> dict[Meaning, list[Backing]]:
        """What names the known modality, of all that was nearly said: a part of the answer as large
        as it was likely beside it."""
        groups: dict[Meaning, list[Backing]] = {}
        for answer in answers:
            wordings: dict[Meaning, list[Alternative]] = {}
            for each in answer.alternatives:
                if each.whole and each.probability > EDGE and names(each.begins, known):
                    meant = meaning(each.begins, self.cell.language, self.question)
                    wordings.setdefault(meant, []).append(each)
            for meant, same in wordings.items():
                likely = sum(each.probability for each in same)
                part = likely / max(answer.confidence or 1, likely)
                groups.setdefault(meant, []).append(Backing(answer, same[0].begins, part, False))
        return groups

    @cached_property
    def _known_modality(self) -> Modality | None:
        """Where the question is for it."""
        known, language = self.cell.modality, self.cell.language
        if known is None or self.cell.kind != "modality":
            return None
        return known if asks_for(self.question, language, known) else None

    def _is_of_another_modality(self, group: Sequence[Backing]) -> bool:
        known = self._known_modality
        return known is not None and any(names_another(each.text, known) for each in group)

    def _voices(self, workers: Sequence[str], cell: Cell) -> dict[str, float]:
        members = Counter(self.families[worker] for worker in workers)
        return {
            w: self._loudness(w, cell) * self._voice(self.families[w], members[self.families[w]])
            for w in workers
        }

    def _loudness(self, worker: str, cell: Cell) -> float:
        return self.competence.voice(worker, cell) if self.competence else 1.0

    def _voice(self, family: str, members: int) -> float:
        return self.competence.family_voice(family, members) if self.competence else 1.0

    def _told(self, answers: Iterable[Answer]) -> Likeness | None:
        return self.competence.told(answers) if self.competence else None

    def told_cell(self, answers: Iterable[Answer]) -> Cell:
        """What kind of case it is, with the manner in which it is asked, where one of the answers
        tells that."""
        told = self._told(answers)
        return replace(self.cell, manner=told.manner) if told else self.cell

    def _own_belief(self, answer: Answer, cell: Cell) -> float:
        if self.competence is None:
            return 1.0
        return self.competence.believed(answer.worker, answer.confidence, cell)

    def _belief(self, answer: Answer, own: float, group: Sequence[Backing]) -> float:
        """How far the giver of `answer` believes in what `group` claims, who believes so far in
        its own answer."""
        for backing in group:
            if backing.answer is answer:
                return own * backing.part
        if self.competence is None:
            return 0.0
        return _leaning(answer, own, {backing.text for backing in group})


def in_case_order(case: Case, texts: Sequence[str]) -> list[str]:
    """The texts in an order that the case fixes: a reader may favour what it reads first, and by
    arrival or seat that would always be the same worker's."""
    identity = "".join([case.question, *(image.identity for image in case.images)])
    shuffled = list(texts)
    random.Random(hashlib.sha256(identity.encode()).digest()).shuffle(shuffled)
    return shuffled


def nearly_said(answer: Answer, others: Collection[str]) -> float:
    """At most how likely its worker was to say one of `others` instead: the probability of all
    beginnings that fit."""
    wanted = [" ".join(other.casefold().split()).rstrip(".") for other in others]
    found = 0.0
    for alternative in answer.alternatives:
        begins = " ".join(alternative.begins.casefold().split())
        if alternative.whole:
            fits = begins.rstrip(".") in wanted
        else:
            fits = any(each.startswith(begins) for each in wanted)
        found += alternative.probability if fits else 0.0
    return found


def _leaning(answer: Answer, own: float, others: Collection[str]) -> float:
    """How far the giver of `answer`, in which it believes `own`, believes in one of `others`: what
    it does not believe of its own it believes of them, as it nearly said them."""
    left = max(1 - (answer.confidence or 0), EDGE)
    return (1 - own) * min(nearly_said(answer, others) / left, 1.0)


def _mean_confidence(group: list[Backing]) -> float:
    return sum(backing.answer.confidence or 0 for backing in group) / len(group)
