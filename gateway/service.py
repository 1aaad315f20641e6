"""One panel at work: from a case to its verdict. Another panel may take its place meanwhile."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Collection, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from gateway.archive.dicomweb import Archive
from gateway.asking import model_server, summariser
from gateway.asking.entailment import by_entailment
from gateway.asking.model_server import Probed, probe
from gateway.asking.panel import Panel
from gateway.asking.shadow import Shadows
from gateway.case import Case
from gateway.contract import (
    PanelReport,
    Seat,
    ShadowSeat,
    Stored,
    Stores,
    SummariserSeat,
    Verdict,
)
from gateway.drift import Drift
from gateway.refusals import InvalidCase, Refused
from gateway.settings import SUMMARISER, Settings, SettingsError
from gateway.store.flights import Flights, Tell
from gateway.store.memory import keep, key_of, open_store, recall
from gateway.store.readers import Readers, Score
from gateway.verdict.prediction_set import prediction_set
from gateway.watch.metrics import Metrics
from gateway.watch.tracing import span

REPORT_S = 0.5
NO_SCORE = Score()
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^/\s]+/)+")
log = logging.getLogger("consilium.gateway")


class Service:
    """Answers cases by the panel of its settings, inside `async with`; `processes` of them share
    what may be at work at a time."""

    def __init__(self, settings: Settings, metrics: Metrics, processes: int = 1):
        self.settings, self.metrics, self._processes = settings, metrics, processes
        self.store = open_store(settings.panel.store)
        days = settings.feedback.days if settings.feedback else 0
        self.readers = Readers(settings.feedback_folder, days)
        self.shadows = Shadows(metrics, self.readers)
        self.reload_error: str | None = None
        self._flights = Flights()
        self._drift = Drift(metrics.drift, settings.competence)

    async def __aenter__(self) -> "Service":
        self.http = model_server.new_http_client()
        self._seat(self.settings, resting={})
        self._hearing = asyncio.create_task(self._hear())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hearing.cancel()
        self.panel.close()
        self.shadows.close()
        await self.http.close()
        await self.store.close()
        self.readers.close()

    async def _hear(self) -> None:
        """Lets rest whom another gateway has found to answer nobody."""
        async with aclosing(self.store.warnings()) as warnings:
            async for server in warnings:
                self.panel.rest(server)

    def _seat(self, settings: Settings, resting: Mapping[str, Collection[str]]) -> None:
        self.settings = settings
        servers = {worker.name: len(worker.urls) for worker in settings.seats}
        self.metrics.seated(settings.panel_hash, servers)
        self.panel = Panel(settings, self.http, self.store, self.metrics, resting)
        if self._drift.known != settings.competence:
            self._drift = Drift(self.metrics.drift, settings.competence)
        self._at_work = asyncio.Semaphore(max(settings.load.max_at_work // self._processes, 1))
        self._found: asyncio.Future[tuple[bool, Probed]] | None = None
        self._found_until = 0.0

    def reload(self) -> None:
        """Seats the panel that the file names now; open cases are answered by the old one.

        Raises:
            SettingsError: the file is not to be used; the old panel stays, and `report` says why.
        """
        try:
            settings = self.settings.as_it_is_now()
        except SettingsError as error:
            # It is shown to callers, whom the server's folders do not concern.
            self.reload_error = _without_folders(str(error), self.settings.file.parent)
            log.error(json.dumps({"event": "panel_not_taken_up", "why": str(error)}))
            raise
        self.reload_error = None
        changes = _changes(self.settings, settings)
        log.info(json.dumps({"event": "panel_taken_up", "panel": settings.panel_hash} | changes))
        resting = {name: servers.resting for name, servers in self.panel.servers.items()}
        self.panel.close()
        self._seat(settings, resting)

    async def answer(
        self, case: Case, panel: Panel, began: float, tell: Tell = lambda _: None
    ) -> Verdict:
        """Stored, shared with who asks the same just now, or asked for; by the `panel` that was at
        work when the case came, whichever is now.

        Raises InvalidCase where the case asks for what this panel has not learned, and what
        Panel.consult raises.
        """
        if case.options.max_risk is not None and not panel.judge(case).knows_risk:
            raise InvalidCase(
                f"options.max_risk: how often this panel is wrong in {case.language} has not been "
                "learned. Send null.",
                code="not_learned",
            )
        if case.options.coverage is not None and not panel.judge(case).knows_sets:
            raise InvalidCase(
                f"options.coverage: sets of answers in {case.language} were not learned by this "
                "panel. Send null.",
                code="not_learned",
            )
        key = key_of(case, panel.settings.panel_hash, panel.settings.secret_bytes)
        work = partial(self._stored_or_asked, case, key, panel, began)
        verdict, own = await self._flights.join(key, work, tell)
        if not own:
            self.metrics.shared.inc()
            verdict = _again(verdict, case, began)
        if case.options.store is None:
            return verdict
        return await self._sent_back(verdict, case, case.options.store, panel.settings)

    async def _stored_or_asked(
        self, case: Case, key: str, panel: Panel, began: float, tell: Tell
    ) -> Verdict:
        if known := await recall(self.store, key, Verdict):
            return await self._recalled(known, case, panel, began)
        async with self.store.alone(key):
            # Another gateway may have been at it.
            if known := await recall(self.store, key, Verdict):
                return await self._recalled(known, case, panel, began)
            async with self._at_work:
                verdict, whole = await _asked(case, panel, began, tell)
            if panel is self.panel and case.options.workers is None:
                self._drift.saw(verdict, tuple(image.identity for image in case.images))
            if whole:
                # What was shown is the caller's own: another file may look the same, and the UIDs
                # of an archive are nothing to keep.
                await keep(self.store, key, verdict.model_copy(update={"images": ()}))
        return verdict

    async def _recalled(self, known: Verdict, case: Case, panel: Panel, began: float) -> Verdict:
        self.metrics.recalled.labels("verdict").inc()
        if known.grounding is None:  # it may be known by now
            grounding = await panel.grounding(case, known.answers, time.monotonic())
            known = known.model_copy(update={"grounding": grounding})
        return _again(known, case, began)

    async def _sent_back(
        self, verdict: Verdict, case: Case, kind: Stores, settings: Settings
    ) -> Verdict:
        """The verdict, which tells whether it is stored: it is answered all the same if not."""
        # Imported at the first: pydicom would double the gateway's start-up.
        from gateway.archive import returning

        archive = self.archive(case.tenant, settings)
        assert archive, "intake refuses the case"
        try:
            sent = returning.send(archive, verdict, case.question, kind, case.metadata)
            stored = Stored(instance=await sent)
        except Refused as error:
            log.warning(json.dumps({"event": "verdict_not_stored", "why": str(error)}))
            stored = Stored(error=str(error))
        return verdict.model_copy(update={"stored": stored})

    def archive(self, tenant: str, settings: Settings | None = None) -> Archive | None:
        """As that tenant sees it; None without [archive]."""
        settings = settings or self.settings
        if settings.archive is None:
            return None
        return Archive(self.http, settings.archive, tenant, settings.limits)

    async def report(self) -> PanelReport:
        """Who sits there, and how well they are."""
        settings, panel = self.settings, self.panel
        # Asked once in a while, however many want to know: a flood of that must reach no worker.
        if self._found is None or time.monotonic() > self._found_until:
            self._found = asyncio.ensure_future(self._probe(panel))
            self._found_until = time.monotonic() + REPORT_S
        store_reachable, summariser = await asyncio.shield(self._found)
        scores = self.readers.scores()
        return PanelReport(
            panel=settings.panel_hash,
            quorum=settings.panel.quorum,
            deadline_s=settings.panel.deadline_s,
            workers=tuple(
                Seat(
                    name=worker.name,
                    family=worker.family,
                    languages=worker.languages,
                    max_images=settings.takes(worker),
                    calibrated=settings.is_calibrated(worker.name),
                    words=scores.get(worker.name, NO_SCORE).words,
                    right=scores.get(worker.name, NO_SCORE).part_right,
                    **panel.servers[worker.name].report(),
                )
                for worker in settings.workers
            ),
            shadows=self._compared(panel, scores),
            summariser=None
            if settings.summariser is None
            else SummariserSeat(
                languages=settings.summariser.languages,
                reachable=summariser.reachable,
                model=summariser.model,
            ),
            learned_from=settings.learned_from,
            reload_error=self.reload_error,
            store_reachable=store_reachable,
            feedback=settings.feedback.keep if settings.feedback else None,
            **settings.limits.model_dump(),
            archive=settings.archive is not None,
            archive_stores=settings.archive is not None and settings.archive.store,
        )

    def _compared(self, panel: Panel, scores: Mapping[str, Score]) -> tuple[ShadowSeat, ...]:
        """The shadows beside the panel."""
        seats = []
        for shadow in panel.settings.shadows:
            agreed = self.shadows.agreed[shadow.name, True]
            cases = agreed + self.shadows.agreed[shadow.name, False]
            score = scores.get(shadow.name, NO_SCORE)
            seats.append(
                ShadowSeat(
                    name=shadow.name,
                    family=shadow.family,
                    cases=cases,
                    agrees=agreed / cases if cases else None,
                    words=score.words,
                    right=score.part_right,
                    panel_right=score.panel_part_right,
                    **panel.servers[shadow.name].report(),
                )
            )
        return tuple(seats)

    async def _probe(self, panel: Panel) -> tuple[bool, Probed]:
        """Whether the store answers, and what the summariser's server says of itself; has the
        panel look at all the others."""
        seat = panel.settings.summariser
        store_reachable, summariser, _ = await asyncio.gather(
            self.store.reachable(),
            probe(self.http, seat.url, SUMMARISER) if seat else _nobody(),
            asyncio.gather(*(servers.look() for servers in panel.servers.values())),
        )
        panel.doubt_the_silent()
        return store_reachable, summariser


async def _nobody() -> Probed:
    return Probed(reachable=False)


async def _asked(case: Case, panel: Panel, began: float, tell: Tell) -> tuple[Verdict, bool]:
    """A new verdict, and whether it is whole: nobody failed, nobody was left out, no fall-back."""
    settings = panel.settings
    asked_at = time.monotonic()
    answers = await panel.consult(case, tell)
    grounding = await panel.grounding(case, answers, asked_at)
    judge, coverage = panel.judge(case), case.options.coverage
    opinion = judge.weigh(answers)
    with span("entailment"):
        judge, entailment = await by_entailment(
            case, judge, opinion, settings, panel.http, panel.store
        )
    if entailment and entailment.joined:
        opinion = judge.weigh(answers)
    with span("summarise"):
        wording = await summariser.summarise(case, opinion, settings.summariser, panel.http)
    abstains = opinion.is_riskier_than(case.options.max_risk)
    verdict = Verdict(
        id=case.id,
        status="abstained" if abstains else "answered",
        answer=None if abstains else wording.answer,
        best_guess=wording.answer if abstains else None,
        language=case.language,
        images=tuple(image.shown for image in case.images),
        agreement=opinion.agreement,
        confidence=opinion.confidence,
        familiarity=opinion.familiarity,
        prediction_set=prediction_set(coverage, judge, opinion) if coverage else None,
        grounding=grounding,
        answers=opinion.answers,
        workers=opinion.winner.workers,
        dissent=opinion.dissent,
        entropy=opinion.entropy,
        entailment=entailment,
        summary=wording.summary,
        learned_from=settings.learned_from,
        panel=settings.panel_hash,
        seconds=time.perf_counter() - began,
    )
    failed = any(a.error and a.error.kind != "not_eligible" for a in verdict.answers)
    failed = failed or bool(entailment and entailment.failed)
    return verdict, not failed and not wording.fell_back


def _without_folders(text: str, own: Path) -> str:
    """Files by their names alone: those in `own`, whatever is in its name, and absolute ones."""
    if own.name:
        text = text.replace(f"{own}/", "")
    return FOLDERS.sub("", text)


def _again(verdict: Verdict, case: Case, began: float) -> Verdict:
    """The same verdict for another caller."""
    changed: dict[str, Any] = {
        "id": case.id,
        "images": tuple(image.shown for image in case.images),  # another file may look the same
        "cached": True,
        "cached_from": verdict.cached_from or verdict.id,
        "seconds": time.perf_counter() - began,
    }
    return verdict.model_copy(update=changed)


def _changes(old: Settings, new: Settings) -> dict[str, list[str]]:
    """Seats, keys, and the tables that are read at start alone, by their names. Without what they
    hold: an address may carry a password."""
    before, now = ({worker.name: worker for worker in each.seats} for each in (old, new))
    tables: list[tuple[str, Any, Any]] = [
        (f"worker {name}", before[name], now[name]) for name in now if name in before
    ]
    tables += [
        (name, getattr(old, name), getattr(new, name))
        for name in ("panel", "summariser", "limits", "load", "archive")
    ]
    changed = [
        f"{name}.{'url' if key == 'urls' else key}"
        for name, one, other in tables
        for key in (dict(one or {}) | dict(other or {}))
        if getattr(one, key, None) != getattr(other, key, None)
    ]
    learned = [(each.competence, each.grey_answers) for each in (old, new)]
    if learned[0] != learned[1] and "panel.competence" not in changed:
        changed.append("panel.competence")  # the same files, written anew
    return {
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
        "changed": changed,
        "needs_restart": [
            name
            for name in ("audit", "feedback", "http")
            if getattr(old, name) != getattr(new, name)
        ],
    }
