"""Do claims that rules leave apart mean the same? The summariser's model is asked, where the panel
file has a prompt for it.

Of each pair that may meet it is asked both ways, all at once, and held to yes or no; what counts is
how likely it was to say yes. What it said is kept as every answer is. A call that fails joins
nothing, and the verdict tells.
"""

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import replace

from pydantic import BaseModel

from gateway.asking.model_server import (
    CallFailed,
    Http,
    answer_bounds,
    as_answer,
    complete,
)
from gateway.case import Case
from gateway.contract import Entailment, Language, Tokens
from gateway.settings import SUMMARISER, Settings
from gateway.store.memory import Store, keep, mark_of, recall
from gateway.tables import SummariserSettings
from gateway.verdict.entailed import joined, open_pairs
from gateway.verdict.weigh import Judge, Opinion

DEADLINE_S = 10.0
TOP_LOGPROBS = 10  # so that no spelling of a yes or a no is missed
YES_NO: dict[Language, tuple[str, str]] = {
    "en": ("yes", "no"),
    "es": ("sí", "no"),
    "zh": ("是", "否"),
}


class Entails(BaseModel):
    """How likely a model was to say that one claim entails the other, and not that it does not."""

    probability: float
    tokens: Tokens | None


async def by_entailment(
    case: Case, judge: Judge, opinion: Opinion, settings: Settings, http: Http, store: Store
) -> tuple[Judge, Entailment | None]:
    """The judge who also holds for one what the model does, and what it was asked; the judge as it
    is and None where there was nothing to ask. `opinion` is the judge's."""
    seat = settings.summariser
    if seat is None or case.language not in seat.entails or not case.options.entailment:
        return judge, None
    pairs = [] if case.choices else open_pairs(opinion, judge.cell.kind, case.language)
    if not pairs:
        return judge, None
    began = time.perf_counter()
    ways = [way for one, other in pairs for way in ((one, other), (other, one))]
    found = await asyncio.gather(
        *(_kept(case, (a.text, b.text), seat, settings.secret_bytes, http, store) for a, b in ways)
    )
    entails = {
        (one.meaning, other.meaning): said.probability
        for (one, other), said in zip(ways, found, strict=True)
        if said is not None
    }
    same = joined(opinion, entails)
    told = Entailment(
        pairs=len(pairs),
        joined=len(same),
        failed=None in found,
        seconds=time.perf_counter() - began,
        tokens=Tokens.sum(said.tokens for said in found if said is not None),
    )
    return replace(judge, same=same), told


async def _kept(
    case: Case,
    claims: tuple[str, str],
    seat: SummariserSettings,
    secret: bytes,
    http: Http,
    store: Store,
) -> Entails | None:
    """None where it does not answer within the deadline, which is all the calls' at once."""
    prompt = prompt_for(seat, case.language, case.question, claims)
    key = mark_of("entails", [case.tenant, case.language, seat.model, prompt], secret)
    if known := await recall(store, key, Entails):
        return known.model_copy(update={"tokens": None})  # they were counted then
    try:
        async with asyncio.timeout(DEADLINE_S):
            said = await ask(case, prompt, seat, http)
    except (TimeoutError, CallFailed):
        return None
    await keep(store, key, said)
    return said


def prompt_for(
    seat: SummariserSettings, language: Language, question: str, claims: Iterable[str]
) -> str:
    """Every text on one line: none can pose as another part of the prompt."""
    one, other = (" ".join(claim.split()) for claim in claims)
    asked = " ".join(question.split())
    return seat.entails[language].format(question=asked, one=one, other=other).strip()


async def ask(case: Case, prompt: str, seat: SummariserSettings, http: Http) -> Entails:
    """What it says, without a deadline; raises CallFailed."""
    yes, no = YES_NO[case.language]
    asked = replace(case, question="", choices=(yes, no))
    body = {
        "model": SUMMARISER,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
        **answer_bounds(asked, 1),
    }
    body["max_tokens"] += seat.thinking_tokens or 0
    reply = as_answer(await complete(http, seat.url, json.dumps(body).encode()), asked)
    other = sum(each.probability for each in reply.alternatives if each.begins in (yes, no))
    own = 1.0 if reply.confidence is None else reply.confidence
    is_yes = own / (own + other) if own else 0.5
    return Entails(probability=is_yes if reply.text == yes else 1 - is_yes, tokens=reply.tokens)
