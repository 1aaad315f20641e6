"""What Prometheus is told: counts and times, by names that are fixed or stand in panel.toml. No
label ever holds a word of a caller's."""

import os
from collections.abc import Mapping
from itertools import product
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.contract import Answer, ErrorKind, Language, SummaryBy, Verdict, VerdictStatus, Word
from gateway.refusals import Refused

Looked = Literal["image", "question", "agreement"]  # where drift is looked for
Why = Literal["first", "slow", "broken_off"]  # a server is asked
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60)
OWN_SECONDS = (*(each / 2000 for each in range(2, 13)), 0.01, 0.02, 0.05, 0.1, 1)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
# Of those that were asked; the others are not_eligible or not_needed.
KINDS = [kind for kind in get_args(ErrorKind) if not kind.startswith("not_")]


class Metrics:
    """The instruments of one gateway, in a registry of their own. What counts is there from the
    start, at 0: a rate that begins with the first failure does not show it.

    Of several processes each counts for itself, in a folder that prometheus-client finds in the
    environment, and any of them tells the sum.
    """

    def __init__(self, version: str) -> None:
        self._is_one_of_several = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self.registry = registry = CollectorRegistry()
        self.requests = Histogram(
            "consilium_request_duration_seconds",
            "From a request's headers to the end of its response.",
            ["route", "status"],
            buckets=SECONDS,
            registry=registry,
        )
        self.overhead = Histogram(
            "consilium_gateway_overhead_seconds",
            "What of a newly answered case no model server was at work on.",
            buckets=OWN_SECONDS,
            registry=registry,
        )
        self.worker = Histogram(
            "consilium_worker_duration_seconds",
            "How long a worker took to answer.",
            ["worker"],
            buckets=SECONDS,
            registry=registry,
        )
        self.failures = Counter(
            "consilium_worker_failures",
            "Calls of a worker without an answer, by kind.",
            ["worker", "kind"],
            registry=registry,
        )
        self.replica = Histogram(
            "consilium_replica_duration_seconds",
            "How long each server took to answer, of a worker that has several.",
            ["worker", "replica"],
            buckets=SECONDS,
            registry=registry,
        )
        self.replica_calls = Counter(
            "consilium_replica_calls",
            "Calls of each server of a worker that has several, by why it was asked: the first, or "
            "one more because that was slow, or had broken off.",
            ["worker", "replica", "why"],
            registry=registry,
        )
        self.verdicts = Counter(
            "consilium_verdicts",
            "Verdicts, by language, by whose words they are, and whether the panel abstained.",
            ["language", "summary_by", "status"],
            registry=registry,
        )
        self.agreement = Histogram(
            "consilium_agreement_ratio",
            "The weight of the winning answer among those that were given.",
            buckets=SHARES,
            registry=registry,
        )
        self.confidence = Histogram(
            "consilium_confidence_ratio",
            "How likely the verdict is to be right, by the panel's calibration.",
            buckets=SHARES,
            registry=registry,
        )
        self.unfamiliar = Counter(
            "consilium_unfamiliar",
            "Cases unlike those that the panel was calibrated on.",
            ["language"],
            registry=registry,
        )
        self.drift = Gauge(
            "consilium_drift_ratio",
            "How far the last window of cases is from those of the calibration: above 1 it is time "
            "to calibrate anew; 0, no window is full yet.",
            ["language", "of"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.recalled = Counter(
            "consilium_recalled",
            "What was not asked again because it was kept: whole verdicts, single answers.",
            ["what"],
            registry=registry,
        )
        self.shared = Counter(
            "consilium_shared",
            "Callers who got the verdict that another one was waiting for (single-flight).",
            registry=registry,
        )
        self.words = Counter(
            "consilium_readers_words",
            "What readers said of verdicts: right or wrong.",
            ["word"],
            registry=registry,
        )
        self.worker_words = Counter(
            "consilium_readers_words_on_workers",
            "Answers of workers that a reader's word told to be right, or wrong.",
            ["worker", "right"],
            registry=registry,
        )
        self.shadow = Counter(
            "consilium_shadow_answers",
            "Answers of shadows, by whether they agree with the verdict.",
            ["worker", "agrees"],
            registry=registry,
        )
        self.refused = Counter(
            "consilium_refused", "Requests refused, by status.", ["status"], registry=registry
        )
        self.inside = Gauge(
            "consilium_cases_inside",
            "Cases under way or waiting.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._version = version
        self._panel = Gauge(
            "consilium_panel_info",
            "The panel at work.",
            ["panel", "version"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._at_work: str | None = None
        self._servers: dict[str, int] = {}
        for labels in product(get_args(Language), get_args(SummaryBy), get_args(VerdictStatus)):
            self.verdicts.labels(*labels)
        for language in get_args(Language):
            self.unfamiliar.labels(language)
        for what in ("verdict", "answer"):
            self.recalled.labels(what)
        for word in get_args(Word):
            self.words.labels(word)
        for error in Refused.__subclasses__():
            self.refused.labels(error.status)

    def seated(self, panel: str, servers: Mapping[str, int]) -> None:
        """Another panel is at work, whose workers have so many servers each; who is not seated any
        more is not told of any more."""
        if not self._is_one_of_several:
            self._forget(servers)
        elif self._at_work:
            self._panel.labels(self._at_work, self._version).set(0)
        self._panel.labels(panel, self._version).set(1)
        self._at_work = panel
        self._servers = dict(servers)
        for worker, kind in product(servers, KINDS):
            self.worker.labels(worker)
            self.failures.labels(worker, kind)
        for (worker, replica), why in product(_replicas(servers), get_args(Why)):
            self.replica.labels(worker, replica)
            self.replica_calls.labels(worker, replica, why)

    def _forget(self, servers: Mapping[str, int]) -> None:
        """Who is not among them; files that several processes count in forget nothing."""
        self._panel.clear()
        for worker in self._servers.keys() - servers.keys():
            self.worker.remove(worker)
            for kind in KINDS:
                self.failures.remove(worker, kind)
        for worker, replica in _replicas(self._servers) - _replicas(servers):
            self.replica.remove(worker, replica)
            for why in get_args(Why):
                self.replica_calls.remove(worker, replica, why)

    def told(self) -> bytes:
        """What Prometheus reads."""
        registry = self.registry
        if self._is_one_of_several:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def heard(self, answer: Answer) -> None:
        """One call of a worker is over."""
        if answer.error is None:
            self.worker.labels(answer.worker).observe(answer.seconds)
        else:
            self.failures.labels(answer.worker, answer.error.kind).inc()

    def judged(self, word: Word, was_right: Mapping[str, bool]) -> None:
        """A reader has spoken, and told who was right."""
        self.words.labels(word).inc()
        for worker, right in was_right.items():
            self.worker_words.labels(worker, "yes" if right else "no").inc()

    def decided(self, verdict: Verdict) -> None:
        """A caller gets this verdict."""
        self.verdicts.labels(verdict.language, verdict.summary.by, verdict.status).inc()
        if verdict.agreement is not None:
            self.agreement.observe(verdict.agreement)
        if verdict.familiarity and verdict.familiarity.unfamiliar:
            self.unfamiliar.labels(verdict.language).inc()
        if verdict.confidence is not None:
            self.confidence.observe(verdict.confidence)


def _replicas(servers: Mapping[str, int]) -> set[tuple[str, str]]:
    """Each server of those that have several, by its number."""
    return {
        (worker, str(number))
        for worker, count in servers.items()
        if count > 1
        for number in range(1, count + 1)
    }
