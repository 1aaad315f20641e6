"""The panel's answers → one sentence, in the case's language, faithful to the panel.

The summariser may word the answer; it may not overrule the vote, so it is told which answer won
(a small model left to count the votes guesses). Its reply counts only if it means what the winning
answers mean. Otherwise, and where it fails, is late, is cut short or does not speak the language,
the vote itself answers and says so.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from gateway.case import Case
from gateway.contract import Language, Summary
from gateway.model_server import CallFailed, Completion, Http, answer_bounds, complete
from gateway.settings import SUMMARISER, SummariserSettings
from gateway.verdict.meaning import meaning
from gateway.verdict.weigh import Opinion, in_case_order

DEADLINE_S = 10.0
MAX_TOKENS = 48


@dataclass(frozen=True)
class Wording:
    """The verdict's answer. `fell_back`: the summariser was wanted, and its reply was not used."""

    answer: str
    summary: Summary
    fell_back: bool = False


async def summarise(
    case: Case, opinion: Opinion, summariser: SummariserSettings | None, http: Http
) -> Wording:
    """Word the panel's opinion; never fails, the vote stands in for a summariser that does."""
    vote = opinion.winner.text
    if case.options.summarise == "auto" and opinion.unanimous:
        return Wording(vote, Summary(by="unanimous", faithful=None, seconds=0))
    speaks = summariser is not None and case.language in summariser.languages
    if summariser is None or not speaks or case.options.summarise == "never":
        return Wording(vote, Summary(by="vote", faithful=None, seconds=0))
    began = time.perf_counter()
    try:
        async with asyncio.timeout(DEADLINE_S):
            reply = await ask(case, opinion, summariser, http)
        faithful = is_faithful(reply, opinion, case.language, case.question)
    except (TimeoutError, CallFailed):
        failed = Summary(by="vote", faithful=None, seconds=time.perf_counter() - began)
        return Wording(vote, failed, fell_back=True)
    seconds = time.perf_counter() - began
    if not faithful:
        return Wording(vote, Summary(by="vote", faithful=False, seconds=seconds), fell_back=True)
    return Wording(reply.text, Summary(by="summariser", faithful=True, seconds=seconds))


async def ask(
    case: Case, opinion: Opinion, summariser: SummariserSettings, http: Http
) -> Completion:
    """Its reply as it is, without a deadline; raises CallFailed."""
    body = json.dumps(request(case, opinion, summariser)).encode()
    return await complete(http, summariser.url, body)


def request(case: Case, opinion: Opinion, summariser: SummariserSettings) -> dict[str, Any]:
    """Every answer's text, without a name, in an order fixed by case, and which of them won."""
    texts = in_case_order(case, [" ".join((a.text or "").split()) for a in opinion.voices])
    prompt = summariser.prompt[case.language].format(
        question=" ".join(case.question.split()),
        answers="\n".join(f"- {text}" for text in texts),
        winner=" ".join(opinion.winner.text.split()),
    )
    messages = [{"role": "user", "content": prompt.strip()}]
    opening = summariser.opening.get(case.language, "")
    if opening:
        # Put into its mouth, a small model goes on with the answer instead of about it.
        messages.append({"role": "assistant", "content": opening})
    return {
        "model": SUMMARISER,
        "messages": messages,
        "continue_final_message": bool(opening),
        "add_generation_prompt": not opening,
        "temperature": 0,
        "stop": ["\n"],  # one sentence: what a small model adds below it is its own
        **answer_bounds(case, MAX_TOKENS),
    }


def after(opening: str, reply: str) -> str:
    """The reply as it goes on from the opening: with a space, but for Chinese."""
    return f" {reply}" if opening and opening.isascii() else reply


def is_faithful(
    reply: Completion, opinion: Opinion, language: Language, question: str = ""
) -> bool:
    """Whether the reply says no more and no less than the winning answers to the question."""
    return meaning(reply.text, language, question) == opinion.winner.meaning
