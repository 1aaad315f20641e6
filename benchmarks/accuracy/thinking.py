"""How often a summariser that thinks first comes to an end, in time, at the panel's answer.
python -m benchmarks.accuracy.thinking RUN [--panel FILE] [--cases 80] [--at-once 1] [--show 0]

Disputed cases of a stored run, drawn by chance, are put to the summariser of the panel file as the
gateway puts them, so many at once; it must be running. Without the gateway's deadline, so that what
is late is told from what comes to nothing. Printed are how many came to an end (of one that thinks:
of its thinking), in how many an answer stands behind it, how many of these are faithful, and how
many of those were there within the deadline, which the gateway would take; of the answers the
median seconds and tokens, with the tokens a second of all together; with --show so many replies, to
be read. 95 % intervals over cases. The last line is JSON.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import needs
from gateway.asking.model_server import CallFailed, Completion, Http, new_http_client
from gateway.asking.summariser import DEADLINE_S, ask, is_faithful
from gateway.settings import Settings, load_settings
from gateway.tables import SummariserSettings
from gateway.verdict.weigh import Opinion
from models.metrics.score import mean
from services.evaluation.heard import Heard, hear, refuse_strangers
from services.evaluation.learning.fit import opinion_of


@dataclass(frozen=True)
class Tried:
    """What came back after so long, None where no answer did; and whether it tells the panel's."""

    reply: Completion | None
    seconds: float
    ended: bool
    faithful: bool = False


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("run", type=Path)
    needs.data_folder(arguments)
    arguments.add_argument("--panel", type=Path, default=Path("panel.toml"))
    arguments.add_argument("--cases", type=int, default=80)
    arguments.add_argument("--at-once", type=int, default=1)
    arguments.add_argument("--show", type=int, default=0)
    given = arguments.parse_args()
    settings = load_settings(given.panel)
    seat = settings.summariser
    if seat is None:
        arguments.error(f"{given.panel} seats no summariser; add [summariser]")
    needs.answering(seat.url, f"start the summariser of {given.panel}, consilium summariser")
    disputes = disputed([given.run], given.data, settings)
    drawn = random.Random(0).sample(disputes, min(given.cases, len(disputes)))
    tried = asyncio.run(all_of(drawn, seat, given.at_once))
    for (case, opinion), each in list(zip(drawn, tried, strict=True))[: given.show]:
        said = each.reply and (each.reply.thoughts, each.reply.text)
        print(f"{case.example.question!r}, {opinion.winner.text!r}: {each.seconds:.1f} s {said}")
    print(json.dumps({"disputed": len(disputes), **measured(tried)}))


def disputed(runs: Sequence[Path], data: Path, settings: Settings) -> list[tuple[Heard, Opinion]]:
    """The cases of stored runs in which the panel of `settings` differs, by what it has learned.

    Raises:
        EvaluationError: a run that cannot be read, or of other workers.
        models.data's DataError
    """
    cases, _ = hear(runs, data)
    refuse_strangers(cases, settings)
    opinions = [(case, opinion_of(case, settings, settings.competence)) for case in cases]
    return [(case, opinion) for case, opinion in opinions if not opinion.unanimous]


async def all_of(
    cases: list[tuple[Heard, Opinion]], seat: SummariserSettings, at_once: int
) -> list[Tried]:
    free = asyncio.Semaphore(at_once)

    async def one(case: Heard, opinion: Opinion) -> Tried:
        async with free:
            return await tried_on(case, opinion, seat, http)

    async with new_http_client() as http:
        return await asyncio.gather(*(one(case, opinion) for case, opinion in cases))


async def tried_on(case: Heard, opinion: Opinion, seat: SummariserSettings, http: Http) -> Tried:
    """A server that fails ends the measurement: no reply is one that it did not bring to an end, or
    that ended with its thinking."""
    began = time.perf_counter()
    try:
        reply = await ask(case.case, opinion, seat, http)
    except CallFailed as failed:
        if failed.error.kind not in ("cut_short", "empty"):
            raise
        return Tried(None, time.perf_counter() - began, failed.error.kind == "empty")
    seconds = time.perf_counter() - began
    faithful = is_faithful(reply, opinion, case.cell.language, case.example.question)
    return Tried(reply, seconds, True, faithful)


def measured(tried: list[Tried]) -> dict[str, object]:
    shares = {
        "ended": [each.ended for each in tried],
        "answered": [each.reply is not None for each in tried],
        "faithful": [each.faithful for each in tried],
        f"faithful within {DEADLINE_S:.0f} s": [
            each.faithful and each.seconds <= DEADLINE_S for each in tried
        ],
    }
    found: dict[str, object] = {"cases": len(tried)}
    for name, values in shares.items():
        share = mean(values, range(len(tried)))
        told = f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
        print(f"{name:22} {sum(values)} of {len(values)}, {told}")
        found[name] = sum(values)
    used = [
        (each.reply.tokens.reply, each.seconds)
        for each in tried
        if each.reply and each.reply.tokens
    ]
    if used:
        tokens, seconds = zip(*used, strict=True)
        found["median tokens"] = statistics.median(tokens)
        found["median seconds"] = round(statistics.median(seconds), 2)
        found["tokens a second"] = round(sum(tokens) / sum(seconds), 1)
        print(
            f"of the answers         {found['median tokens']:.0f} tokens, "
            f"{found['median seconds']} s (medians), {found['tokens a second']} tokens a second"
        )
    return found


if __name__ == "__main__":
    with needs.told():
        main()
