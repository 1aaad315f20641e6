"""Are the cases that come still like those that the panel was calibrated on?

Of such cases every familiarity, and every rank of their agreement among the calibration's, is as
common: a part u of them is at u or below. So in each WINDOW of cases that part is held to u, for
all u at once; by the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant (1990,
Annals of Probability 18:1269), one-sided and for two samples (Wei & Dudley 2012, Statistics &
Probability Letters 82:636), it exceeds u by more than `bound` in FALSE_ALARMS of the windows. Only
more of the odd ones is drift: cases that are all alike harm nobody.
"""

import json
import logging
import math
from bisect import bisect_right
from collections.abc import Hashable, Mapping
from itertools import product
from typing import get_args

from prometheus_client import Gauge

from gateway.contract import Language, Verdict
from gateway.verdict.competence import Calibrated
from gateway.watch.metrics import Looked

WINDOW = 200  # cases of a language; of those with the same images one, the others tell less
FALSE_ALARMS = 0.01  # of windows, for all that is looked at together
LOOKED: tuple[Looked, ...] = get_args(Looked)

log = logging.getLogger("consilium.gateway")


class Drift:
    """Of one panel: `known` has by language the cases that it was calibrated on. `gauge`, by
    language and what was looked at, is the last window's excess as a part of the bound: above 1 it
    is time to calibrate anew."""

    def __init__(self, gauge: Gauge, known: Mapping[Language, Calibrated]):
        self.known, self._gauge = known, gauge
        self._ranks: dict[Language, dict[Looked, list[float]]] = {}
        self._seen: dict[Language, set[Hashable]] = {}
        for language, what in product(get_args(Language), LOOKED):
            gauge.labels(language, what).set(0)

    def saw(self, verdict: Verdict, images: Hashable) -> None:
        """One more case, newly brought to the whole panel."""
        if any(each.error and each.error.kind != "not_eligible" for each in verdict.answers):
            return  # others agree otherwise
        known, familiar = self.known.get(verdict.language), verdict.familiarity
        seen = self._seen.setdefault(verdict.language, set())
        if known is None or familiar is None or familiar.image is None or images in seen:
            return
        seen.add(images)
        ranks = self._ranks.setdefault(verdict.language, {each: [] for each in LOOKED})
        ranks["image"].append(familiar.image)
        ranks["question"].append(familiar.question or 0.0)
        if verdict.agreement is not None:
            place = bisect_right(known.agreements, verdict.agreement)
            ranks["agreement"].append(place / len(known.agreements))
        if len(seen) == WINDOW:
            for what, each in self._ranks.pop(verdict.language).items():
                agreed = known.agreed_images if what == "agreement" else None
                if each:  # a lone voice has no agreement
                    most = bound(len(each), agreed or known.images)
                    self._tell(verdict.language, what, excess(each) / most)
            del self._seen[verdict.language]

    def _tell(self, language: Language, what: Looked, ratio: float) -> None:
        self._gauge.labels(language, what).set(ratio)
        if ratio > 1:
            told = {"event": "calibrate_anew", "language": language, "drift": what}
            log.warning(json.dumps(told | {"ratio": round(ratio, 2)}))


def bound(cases: int, images: int) -> float:
    """Of the excess among so many cases, held to a calibration of so many images."""
    return math.sqrt(math.log(len(LOOKED) / FALSE_ALARMS) / 2 * (1 / cases + 1 / images))


def excess(ranks: list[float]) -> float:
    """By how much, at most, the part of them that is at u or below is more than u."""
    ordered = sorted(ranks)
    parts = (n / len(ordered) - rank for n, rank in enumerate(ordered, 1))
    return max(parts, default=0.0)
