"""Stored opinions, worded by a summariser that is running now."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import track

from consilium.wire import shown
from gateway.asking.model_server import CallFailed, Completion, Http, new_http_client, probe
from gateway.asking.summariser import ask, is_faithful
from gateway.contract import Language
from gateway.settings import SUMMARISER, Settings
from gateway.tables import SummariserSettings
from gateway.verdict.weigh import Opinion
from services.evaluation.heard import Heard
from services.evaluation.stored_run import EvaluationError


@dataclass(frozen=True)
class Reworded:
    """By case, the verdict's words: `bound` to the winner, as the gateway has it, or `free` to say
    what any worker said. `by` counts who worded the bound ones."""

    bound: list[str]
    free: list[str]
    by: dict[str, int]


def reworded(cases: Sequence[Heard], opinions: Sequence[Opinion], settings: Settings) -> Reworded:
    """Asks about the disputed ones only, as `summarise = "auto"` does; one after the other, so that
    no reply depends on a batch.

    Raises:
        EvaluationError: no summariser is seated, or none is running.
    """
    summariser = settings.summariser
    if summariser is None:
        raise EvaluationError("The panel file seats no summariser; add [summariser].")
    replies = asyncio.run(_replies(cases, opinions, summariser))
    bound, free, by = [], [], []
    for case, opinion, reply in zip(cases, opinions, replies, strict=True):
        vote, asked = opinion.winner.text, (case.cell.language, case.example.question)
        faithful = reply is not None and is_faithful(reply, opinion, *asked)
        bound.append(reply.text if reply and faithful else vote)
        free.append(reply.text if reply and _is_said(reply, opinion, *asked) else vote)
        by.append("unanimity" if opinion.unanimous else "summariser" if faithful else "vote")
    return Reworded(bound, free, dict(Counter(sorted(by))))


def _is_said(reply: Completion, opinion: Opinion, language: Language, question: str) -> bool:
    """Whether the reply would be faithful if another answer had won."""
    return any(
        is_faithful(reply, replace(opinion, clusters=(cluster,)), language, question)
        for cluster in opinion.clusters
    )


async def _replies(
    cases: Sequence[Heard], opinions: Sequence[Opinion], summariser: SummariserSettings
) -> list[Completion | None]:
    """None where it is not asked, does not speak the language, or fails."""

    async def reply(case: Heard, opinion: Opinion) -> Completion | None:
        if opinion.unanimous or case.cell.language not in summariser.languages:
            return None
        try:
            return await ask(case.case, opinion, summariser, http)
        except CallFailed:
            return None

    async with new_http_client() as http:
        await _require(http, summariser.url)
        pairs = list(zip(cases, opinions, strict=True))
        progress = track(pairs, "wording", console=Console(stderr=True))
        return [await reply(case, opinion) for case, opinion in progress]


async def _require(http: Http, url: str) -> None:
    is_up = (await probe(http, url, SUMMARISER)).reachable
    if not is_up:
        raise EvaluationError(
            f"No summariser answers at {shown(url)}; start it: consilium summariser."
        )
