"""An opinion told in a style, in the case's language: always true, whoever else may word it better.

What a worker says stands between quotation marks, in one line and without such marks of its own:
no answer can pose as the panel's words about itself. Of many claims the heaviest are told and the
rest are counted.
"""

from dataclasses import dataclass

from gateway.contract import Language, Style
from gateway.verdict.weigh import Cluster, Opinion

TOLD = 8  # claims, the winner with them
SHORT = 160  # characters of one claim


@dataclass(frozen=True)
class Phrases:
    """One language's: of the winner, of what else is claimed, and of what is counted alone."""

    quotes: str
    winner: str
    also: str
    each: str
    comma: str
    more: tuple[str, str]  # one, several
    end: str
    row: str


PHRASES: dict[Language, Phrases] = {
    "en": Phrases(
        quotes="“”",
        winner="The panel's answer is {claim}, said by {k} of {n}",
        also="; also said: ",
        each="{claim} ({k})",
        comma=", ",
        more=("1 more claim", "{m} more claims"),
        end=".",
        row="{rank}. {claim} ({k} of {n}: {workers})",
    ),
    "es": Phrases(
        quotes="«»",
        winner="La respuesta del panel es {claim}, dicha por {k} de {n}",
        also="; también se dijo: ",
        each="{claim} ({k})",
        comma=", ",
        more=("1 afirmación más", "{m} afirmaciones más"),
        end=".",
        row="{rank}. {claim} ({k} de {n}: {workers})",
    ),
    "zh": Phrases(
        quotes="“”",
        winner="小组的答案是{claim}，{n}个成员中有{k}个这样说",
        also="；另有：",
        each="{claim}（{k}个）",
        comma="、",
        more=("另外1种说法", "另外{m}种说法"),
        end="。",
        row="{rank}. {claim}（{n}个中{k}个：{workers}）",
    ),
}


def styled(opinion: Opinion, style: Style, language: Language) -> str:
    """The opinion in that style: its answer as a worker gave it; a sentence that tells the answer,
    how many claim it, and what else is claimed; or every claim by its rank, with who makes it."""
    match style:
        case "answer":
            return opinion.winner.text
        case "sentence":
            return _sentence(opinion, PHRASES[language])
        case "differential":
            return _differential(opinion, PHRASES[language])


def _sentence(opinion: Opinion, phrases: Phrases) -> str:
    winner, *others = opinion.clusters[:TOLD]
    count = {"n": len(opinion.voices)}
    said = phrases.winner.format(claim=_quoted(winner, phrases), k=len(winner.workers), **count)
    also = [
        phrases.each.format(claim=_quoted(other, phrases), k=len(other.workers), **count)
        for other in others
    ]
    also += _more(opinion, phrases)
    return said + (phrases.also + phrases.comma.join(also) if also else "") + phrases.end


def _differential(opinion: Opinion, phrases: Phrases) -> str:
    rows = [
        phrases.row.format(
            rank=rank,
            claim=_quoted(cluster, phrases),
            k=len(cluster.workers),
            n=len(opinion.voices),
            workers=phrases.comma.join(cluster.workers),
        )
        for rank, cluster in enumerate(opinion.clusters[:TOLD], start=1)
    ]
    return "\n".join([*rows, *_more(opinion, phrases)])


def _more(opinion: Opinion, phrases: Phrases) -> list[str]:
    untold = len(opinion.clusters) - TOLD
    return [phrases.more[untold > 1].format(m=untold)] if untold > 0 else []


def _quoted(cluster: Cluster, phrases: Phrases) -> str:
    plain = " ".join(cluster.text.split()).translate(dict.fromkeys(map(ord, '“”«»„"'), "'"))
    plain = plain.rstrip(".。 ") or plain
    if len(plain) > SHORT:
        plain = f"{plain[: SHORT - 1].rstrip()}…"
    return f"{phrases.quotes[0]}{plain}{phrases.quotes[1]}"
