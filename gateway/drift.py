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
from collections.abc import Hashable
from itertools import product
from typing import get_args

from prometheus_client import Gauge

from gateway.contract import Language, Verdict
from gateway.verdict.competence import Cell, Competence
from gateway.verdict.familiarity import share
from gateway.watch.metrics import Looked

WINDOW = 200  # cases of a manner; of those with the same images one, the others tell less
FALSE_ALARMS = 0.01  # of windows, for all that is looked at together
LOOKED: tuple[Looked, ...] = get_args(Looked)

log = logging.getLogger("consilium.gateway")


class Drift:
    """Of one panel, which `known` was learned of. `gauge`, by language and what was looked at, is
    the last window's excess as a part of the bound: above 1 it is time to calibrate anew.

    Cases of each manner are held to those of that manner, so that it is no drift where one of two
    known ways of asking comes more often than it did in the calibration."""

    def __init__(self, gauge: Gauge, known: Competence | None):
        self.known, self._gauge = known, gauge
        self._ranks: dict[str, dict[Looked, list[float]]] = {}
        self._seen: dict[str, set[Hashable]] = {}
        # Each manner's last window.
        self._last: dict[tuple[Language, Looked], dict[str, float]] = {}
        for language, what in product(get_args(Language), LOOKED):
            gauge.labels(language, what).set(0)

    def saw(self, verdict: Verdict, images: Hashable) -> None:
        """One more case, newly brought to the whole panel."""
        if any(each.error and each.error.kind != "not_eligible" for each in verdict.answers):
            return  # others agree otherwise
        known = self.known
        told = known.told(verdict.answers) if known else None
        if known is None or told is None:
            return
        ways = Cell(verdict.language, "other", None, told.manner).ways
        held = (way for way in ways if way in known.calibrated and way in known.familiarity)
        way = next(held, None)
        if way is None or images in self._seen.setdefault(way, set()):
            return
        likenesses, calibrated = known.familiarity[way], known.calibrated[way]
        self._seen[way].add(images)
        ranks = self._ranks.setdefault(way, {each: [] for each in LOOKED})
        ranks["image"].append(share(likenesses.image, told.image))
        ranks["question"].append(share(likenesses.question, told.question))
        if verdict.agreement is not None:
            ranks["agreement"].append(share(calibrated.agreements, verdict.agreement))
        if len(self._seen[way]) == WINDOW:
            for what, each in self._ranks.pop(way).items():
                agreed = calibrated.agreed_images if what == "agreement" else None
                if each:  # a lone voice has no agreement
                    most = bound(len(each), agreed or calibrated.images)
                    self._tell(verdict.language, way, what, excess(each) / most)
            del self._seen[way]

    def _tell(self, language: Language, way: str, what: Looked, ratio: float) -> None:
        last = self._last.setdefault((language, what), {})
        last[way] = ratio
        self._gauge.labels(language, what).set(max(last.values()))
        if ratio > 1:
            told = {"event": "calibrate_anew", "cases": way, "drift": what}
            log.warning(json.dumps(told | {"ratio": round(ratio, 2)}))


def bound(cases: int, images: int) -> float:
    """Of the excess among so many cases, held to a calibration of so many images."""
    return math.sqrt(math.log(len(LOOKED) / FALSE_ALARMS) / 2 * (1 / cases + 1 / images))


def excess(ranks: list[float]) -> float:
    """By how much, at most, the part of them that is at u or below is more than u."""
    ordered = sorted(ranks)
    parts = (n / len(ordered) - rank for n, rank in enumerate(ordered, 1))
    return max(parts, default=0.0)
