"""How long verdicts will take at a rate of cases, from how long they took: `consilium plan --rate`.

A simulation by discrete events (SimPy). Cases come independently of each other. Each is a case of a
stored run, drawn by lot, and takes every worker as long as it did there: what was slow for all of
them together stays so. A server has as many of these calls under way as the run had cases at a
time, and the next one waits: so its times hold for a load that was measured, and the forecast is
careful beyond it, since a server that batches would take more at a time.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from gateway.asking.replicas import AT_LEAST, HEDGED_SHARE, MOST_SAVED, WINDOW
from gateway.settings import SUMMARISER, Settings
from services.evaluation.stored_run import EvaluationError, read_outcomes, read_run

CASES = 10_000  # simulated at each rate
WARM_UP = 1_000  # of them: the first find nobody at work
SHARES = (0.25, 0.5, 0.75, 1, 1.25)  # of the rate that is asked for
MOST_LOST = 0.01  # of the cases, refused or below the quorum: beyond it a rate is not carried

Waiting = Generator[simpy.Event, Any, Any]


@dataclass(frozen=True)
class Took:
    """Seconds of one stored case: each worker's, the summariser's, and the gateway's own."""

    workers: Mapping[str, float]
    summary: float
    own: float


@dataclass(frozen=True)
class Demand:
    """Cases that come, `rate` a second; the share of them that `repeats` others and comes out of
    the store; how many were under way `at_once` in the run. On `one_machine`, or one GPU, all
    servers get in each other's way: no more cases than that are brought to the panel at a time."""

    rate: float
    at_once: int
    repeats: float = 0.0
    one_machine: bool = False


@dataclass(frozen=True)
class Forecast:
    """What becomes of cases at `rate` a second: verdicts' seconds, shares of the cases, and what is
    at work for the largest part of the time that it could be."""

    rate: float
    p50_s: float
    p99_s: float
    refused: float
    below_quorum: float
    busiest: str
    busy: float


def times_of(folder: Path, settings: Settings) -> list[Took]:
    """How long each case of a stored run took, without those that came out of the store.

    Raises:
        EvaluationError: there is no run, it was one of two rounds, or a worker of the panel
            answered nothing in it.
    """
    if read_run(folder).rounds > 1:
        raise EvaluationError(
            f"{folder}: it was asked in two rounds, and a second one is not foretold: give a run "
            "of one."
        )
    seated = {worker.name for worker in settings.workers}
    took = []
    for outcome in read_outcomes(folder).values():
        verdict = outcome.verdict
        if verdict is None or verdict.cached:
            continue
        workers = {
            answer.worker: answer.seconds
            for answer in verdict.answers
            if answer.worker in seated
            and answer.round == 1
            and (answer.error is None or answer.error.kind == "timeout")
        }
        if not workers:
            continue
        summary = verdict.summary.seconds
        if verdict.entailment:  # by the summariser's server, before it words
            summary += verdict.entailment.seconds
        own = max(verdict.seconds - max(workers.values()) - summary, 0.0)
        took.append(Took(workers, summary, own))
    if unknown := seated - {name for each in took for name in each.workers}:
        raise EvaluationError(
            f"{folder}: {', '.join(sorted(unknown))} answered nothing there, so nobody knows how "
            "long that takes; evaluate the panel as it is seated, or take the seat out."
        )
    return took


def forecast(settings: Settings, took: Sequence[Took], demand: Demand) -> Forecast:
    return _Simulation(settings, took, demand).run()


def foretell(
    settings: Settings,
    folder: Path,
    demand: Demand,
    report: Callable[[str], None],
) -> None:
    """`report` hears a line for each of SHARES of the rate, as soon as it is known.

    Raises:
        EvaluationError: more than MOST_LOST of the cases have no verdict at that rate; and as
            `times_of` does.
    """
    if math.isnan(demand.rate) or math.isnan(demand.repeats):
        raise EvaluationError("--rate and --repeats must be numbers, such as 20 and 0.2.")
    took = times_of(folder, settings)
    if settings.summariser and not any(each.summary for each in took):
        report("the run asked no summariser: what wording a verdict takes is not in these times")
    report("cases/s       p50       p99  refused  below quorum  busiest")
    found = {}
    for share in SHARES:
        found[share] = each = forecast(settings, took, replace(demand, rate=share * demand.rate))
        report(
            f"{each.rate:7.4g} {each.p50_s:7.2f} s {each.p99_s:7.2f} s {each.refused:8.1%} "
            f"{each.below_quorum:13.1%}  {each.busiest}, {each.busy:.0%} of the time"
        )
    asked = found[1]
    if asked.refused + asked.below_quorum > MOST_LOST:
        raise EvaluationError(
            f"{demand.rate:g} cases a second are more than the panel carries: {asked.refused:.0%} "
            f"would be refused, and {asked.below_quorum:.0%} find no quorum before the deadline. "
            f"{asked.busiest} is at work for {asked.busy:.0%} of the time."
        )


class _Seat:
    """One worker's servers, or the summariser's; `took` are the seconds of its calls in the run."""

    def __init__(
        self,
        env: simpy.Environment,
        lot: random.Random,
        took: Sequence[float],
        at_once: int,
        servers: int = 1,
        deadline_s: float = math.inf,
    ):
        self._env, self._lot, self._took, self._deadline_s = env, lot, took, deadline_s
        self._servers = [simpy.Resource(env, at_once) for _ in range(servers)]
        self._lately, self._hedges = deque[float](maxlen=WINDOW), 0.0
        self.slots, self.worked_s = servers * at_once, 0.0

    def ask(self, seconds: float) -> Waiting:
        """One call; its value is whether it was answered before the deadline. As in
        gateway/asking/replicas.py, a slow one is brought to a second server too."""
        first, *others = sorted(self._servers, key=lambda each: each.count + len(each.queue))
        began, deadline = self._env.now, self._env.timeout(self._deadline_s)
        calls = [self._env.process(self._served(first, seconds))]
        self._hedges = min(self._hedges + HEDGED_SHARE, MOST_SAVED)
        if others and len(self._lately) >= AT_LEAST:
            slow_s = sorted(self._lately)[int(len(self._lately) * (1 - HEDGED_SHARE))]
            yield calls[0] | deadline | self._env.timeout(slow_s)
            if calls[0].is_alive and not deadline.processed and self._hedges >= 1:
                self._hedges -= 1
                again_s = self._lot.choice(self._took)
                calls.append(self._env.process(self._served(others[0], again_s)))
        yield self._env.any_of([*calls, deadline])
        self._lately.append(self._env.now - began)
        answered = not all(call.is_alive for call in calls)
        for call in calls:
            if call.is_alive:
                call.interrupt()
        return answered

    def _served(self, server: simpy.Resource, seconds: float) -> Waiting:
        with server.request() as turn:
            began = math.inf
            with suppress(simpy.Interrupt):
                yield turn
                began = self._env.now
                yield self._env.timeout(seconds)
            self.worked_s += max(self._env.now - began, 0.0)


class _Simulation:
    """One panel and what comes to it; `run` runs it once."""

    def __init__(self, settings: Settings, took: Sequence[Took], demand: Demand):
        self._env = simpy.Environment()
        self._lot = random.Random(0)  # the same forecast each time
        self._took, self._demand = took, demand
        self._quorum = settings.panel.quorum
        seat = partial(_Seat, self._env, self._lot, at_once=demand.at_once)
        self._seats = {
            worker.name: seat(
                [each.workers[worker.name] for each in took if worker.name in each.workers],
                servers=len(worker.urls),
                deadline_s=min(worker.deadline_s or math.inf, settings.panel.deadline_s),
            )
            for worker in settings.workers
        }
        if settings.summariser:
            self._seats[SUMMARISER] = seat([each.summary for each in took])
        at_work = settings.load.max_at_work
        self._most_inside = at_work + settings.load.max_waiting
        self._slots = min(at_work, demand.at_once) if demand.one_machine else at_work
        self._at_work = simpy.Resource(self._env, self._slots)
        self._inside = self._refused = self._below_quorum = 0
        self._worked_s = 0.0
        self._seconds: list[float] = []

    def run(self) -> Forecast:
        self._env.run(self._env.process(self._arrivals()))
        busy = {name: seat.worked_s / seat.slots for name, seat in self._seats.items()}
        busy["the panel as a whole"] = self._worked_s / self._slots
        busiest = max(busy, key=lambda name: busy[name])
        quantiles = np.quantile(self._seconds or [math.nan], (0.5, 0.99))
        counted = CASES - WARM_UP
        return Forecast(
            rate=self._demand.rate,
            p50_s=float(quantiles[0]),
            p99_s=float(quantiles[1]),
            refused=self._refused / counted,
            below_quorum=self._below_quorum / counted,
            busiest=busiest,
            busy=busy[busiest] / self._env.now,
        )

    def _arrivals(self) -> Waiting:
        """All cases, and then their ends."""
        cases = []
        for number in range(CASES):
            yield self._env.timeout(self._lot.expovariate(self._demand.rate))
            cases.append(self._env.process(self._case(counts=number >= WARM_UP)))
        yield self._env.all_of(cases)

    def _case(self, counts: bool) -> Waiting:
        """From its coming to its verdict, as the gateway's service.py and panel.py have it."""
        took, is_kept = self._lot.choice(self._took), self._lot.random() < self._demand.repeats
        if self._inside >= self._most_inside:
            self._refused += counts
            return
        self._inside += 1
        came = self._env.now
        yield self._env.timeout(took.own)
        answered = is_kept or (yield from self._asked(took))
        self._inside -= 1
        if not answered:
            self._below_quorum += counts
        elif counts:
            self._seconds.append(self._env.now - came)

    def _asked(self, took: Took) -> Waiting:
        """Whether there is a verdict."""
        with self._at_work.request() as turn:
            yield turn
            began = self._env.now
            calls = [
                self._env.process(self._seats[name].ask(seconds))
                for name, seconds in took.workers.items()
            ]
            yield self._env.all_of(calls)
            answers = [call.value for call in calls].count(True)
            is_enough = answers >= min(self._quorum, len(calls))
            if is_enough and took.summary and SUMMARISER in self._seats:
                yield from self._seats[SUMMARISER].ask(took.summary)
            self._worked_s += self._env.now - began
        return is_enough
