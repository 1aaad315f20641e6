"""The panel's answers → the verdict's, in the case's language and style, faithful to the panel.

The summariser may word the answer; it may not overrule the vote, so it is told which answer won
(a small model left to count the votes guesses). Its reply counts only if it means what the winning
answers mean; its sentence, only if it tells all that is claimed and no more. Otherwise, and where
it fails, is late, is cut short or does not speak the language, the vote itself answers and says so;
and so where a worker answered in another script, which a small model repeats or translates by luck.
A differential is a list, which no model words.

One that thinks first (`thinking_tokens`) is given so many tokens more, and what it thought is never
its answer: where no end of its thinking is seen, the vote answers.
"""

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import Any

from gateway.asking.model_server import CallFailed, Completion, Http, answer_bounds, complete
from gateway.case import Case
from gateway.contract import AnswerError, Language, Style, Summary
from gateway.settings import SUMMARISER
from gateway.tables import SummariserSettings
from gateway.verdict.faithful import tells
from gateway.verdict.styles import TOLD, styled
from gateway.verdict.text.claims import QUESTION_MARKS
from gateway.verdict.text.meaning import meaning
from gateway.verdict.text.sentences import HAN
from gateway.verdict.weigh import Opinion, in_case_order

DEADLINE_S = 10.0
LATIN_WORD = re.compile(r"[^\W\d_]{3,}[a-zà-ÿ]")  # one of four letters, no abbreviation
OTHER_SCRIPT: dict[Language, str] = {
    "en": "an answer is in another language than the question",
    "es": "una respuesta está en otro idioma que la pregunta",
    "zh": "有的回答与问题不是同一种语言",
}
MAX_TOKENS = 48
MAX_SENTENCE_TOKENS = 256


@dataclass(frozen=True)
class Wording:
    """The verdict's answer. `fell_back`: the summariser was wanted, and its reply was not used."""

    answer: str
    summary: Summary
    fell_back: bool = False


async def summarise(
    case: Case, opinion: Opinion, summariser: SummariserSettings | None, http: Http
) -> Wording:
    """Word the panel's opinion; never fails, the vote stands in for a summariser that does.

    A panel that abstains guesses, whatever the style: its guess is an answer.
    """
    style: Style = (
        "answer" if opinion.is_riskier_than(case.options.max_risk) else case.options.style
    )
    vote = styled(opinion, style, case.language)
    why = OTHER_SCRIPT[case.language] if _in_another_script(case, opinion) else None
    if case.options.summarise == "auto" and opinion.unanimous:
        return Wording(vote, Summary(by="unanimous", faithful=None, seconds=0, why=why))
    able = summariser is not None and _can_word(style, opinion, case.language, summariser)
    if summariser is None or not able or why or case.options.summarise == "never":
        return Wording(vote, Summary(by="vote", faithful=None, seconds=0, why=why))
    began = time.perf_counter()
    try:
        async with asyncio.timeout(DEADLINE_S):
            reply = await ask(case, opinion, summariser, http, style)
        if style == "answer":
            faithful = is_faithful(reply, opinion, case.language, case.question)
        else:
            faithful = tells(reply.text, opinion, case.language)
    except (TimeoutError, CallFailed):
        failed = Summary(by="vote", faithful=None, seconds=time.perf_counter() - began)
        return Wording(vote, failed, fell_back=True)
    seconds = time.perf_counter() - began
    if not faithful:
        unused = Summary(by="vote", faithful=False, seconds=seconds, tokens=reply.tokens)
        return Wording(vote, unused, fell_back=True)
    thoughts = reply.thoughts if case.options.reasoning else None
    told = Summary(
        by="summariser", faithful=True, seconds=seconds, tokens=reply.tokens, reasoning=thoughts
    )
    # Of choices it has said the one that won: in whose spelling, is the caller's matter.
    chosen = case.choices is not None and style == "answer"
    return Wording(opinion.winner.text if chosen else reply.text, told)


def _in_another_script(case: Case, opinion: Opinion) -> bool:
    """Whether a worker answers in another script than the case's language, in words of its own:
    not where the caller named the choices, and in Chinese not by "CT" or "T2"."""
    if case.choices is not None:
        return False
    texts = [answer.text or "" for answer in opinion.voices]
    if case.language != "zh":
        return any(HAN.search(text) for text in texts)
    return any(LATIN_WORD.search(text) and not HAN.search(text) for text in texts)


def _can_word(
    style: Style, opinion: Opinion, language: Language, summariser: SummariserSettings
) -> bool:
    if language not in summariser.languages:
        return False
    if style == "answer":
        return True
    # Its words are counts of who claims what: of a claim that nobody makes they tell nothing.
    countable = len(opinion.clusters) <= TOLD and all(each.workers for each in opinion.clusters)
    return style == "sentence" and language in summariser.sentence and countable


async def ask(
    case: Case,
    opinion: Opinion,
    summariser: SummariserSettings,
    http: Http,
    style: Style = "answer",
) -> Completion:
    """Its reply as it is, without a deadline; raises CallFailed."""
    make = request if style == "answer" else sentence_request
    body = make(case, opinion, summariser)
    if summariser.thinking_tokens:
        body["max_tokens"] += summariser.thinking_tokens
        del body["stop"]  # thoughts have many lines
        # A server that does not part them would hold the first thought to the choices.
        body.pop("structured_outputs", None)
    reply = await complete(http, summariser.url, json.dumps(body).encode())
    if summariser.thinking_tokens and reply.thoughts is None:
        raise CallFailed(AnswerError(kind="cut_short", detail="Its thinking has no end."))
    return reply


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


def sentence_request(
    case: Case, opinion: Opinion, summariser: SummariserSettings
) -> dict[str, Any]:
    """Every claim with how many of how many make it, the winner first."""
    voices = len(opinion.voices)
    claims = [
        f"- {' '.join(cluster.text.split())} ({len(cluster.workers)}/{voices})"
        for cluster in opinion.clusters
    ]
    prompt = summariser.sentence[case.language].format(
        question=" ".join(case.question.split()), claims="\n".join(claims)
    )
    return {
        "model": SUMMARISER,
        "messages": [{"role": "user", "content": prompt.strip()}],
        "temperature": 0,
        "stop": ["\n"],
        "max_tokens": MAX_SENTENCE_TOKENS,
    }


def after(opening: str, reply: str) -> str:
    """The reply as it goes on from the opening: with a space, but for Chinese."""
    return f" {reply}" if opening and opening.isascii() else reply


def is_faithful(
    reply: Completion, opinion: Opinion, language: Language, question: str = ""
) -> bool:
    """Whether the reply says no more and no less than the winning answers to the question: what it
    says to explain itself nobody on the panel said. What they only ask it may not claim."""
    told = {reply.text}
    if opinion.winner.text.endswith(QUESTION_MARKS):
        if not (asks := reply.text.rstrip(" .。")).endswith(QUESTION_MARKS):
            return False
        told.add(asks.strip("¿?？ "))
    return any(
        meaning(each, language, question, whole=True) == opinion.winner.meaning for each in told
    )
