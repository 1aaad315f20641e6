"""An opinion told in a style, in the case's language: always true, whoever else may word it better.

What a worker says stands between quotation marks, in one line and without such marks of its own:
no answer can pose as the panel's words about itself. Of many claims the heaviest are told and the
rest are counted. One that nobody makes (the known modality, nearly said) is told as such.
"""

from dataclasses import dataclass

from gateway.contract import Language, Style
from gateway.verdict.text.claims import QUESTION_MARKS
from gateway.verdict.weigh import Cluster, Opinion

TOLD = 8  # claims, the winner with them
SHORT = 160  # characters of one claim


@dataclass(frozen=True)
class Phrases:
    """One language's: of the winner, of what else is claimed, and of what is counted alone; the
    second of two is of what nobody claims."""

    quotes: str
    winner: tuple[str, str]
    also: str
    each: tuple[str, str]
    comma: str
    more: tuple[str, str]  # one, several
    end: str
    row: tuple[str, str]


PHRASES: dict[Language, Phrases] = {
    "en": Phrases(
        quotes="“”",
        winner=(
            "The panel's answer is {claim}, said by {k} of {n}",
            "The panel's answer is {claim}, as the image is known to be; nearly said by some of "
            "{n}",
        ),
        also="; also said: ",
        each=("{claim} ({k})", "{claim} (nearly)"),
        comma=", ",
        more=("1 more claim", "{m} more claims"),
        end=".",
        row=("{rank}. {claim} ({k} of {n}: {workers})", "{rank}. {claim} (0 of {n}; nearly said)"),
    ),
    "es": Phrases(
        quotes="«»",
        winner=(
            "La respuesta del panel es {claim}, dicha por {k} de {n}",
            "La respuesta del panel es {claim}, como se sabe de la imagen; casi dicha por algunos "
            "de {n}",
        ),
        also="; también se dijo: ",
        each=("{claim} ({k})", "{claim} (casi)"),
        comma=", ",
        more=("1 afirmación más", "{m} afirmaciones más"),
        end=".",
        row=("{rank}. {claim} ({k} de {n}: {workers})", "{rank}. {claim} (0 de {n}; casi dicha)"),
    ),
    "zh": Phrases(
        quotes="“”",
        winner=(
            "小组的答案是{claim}，{n}个成员中有{k}个这样说",
            "小组的答案是{claim}，已知图像如此；{n}个成员中有的几乎这样说",
        ),
        also="；另有：",
        each=("{claim}（{k}个）", "{claim}（几乎这样说）"),
        comma="、",
        more=("另外1种说法", "另外{m}种说法"),
        end="。",
        row=(
            "{rank}. {claim}（{n}个中{k}个：{workers}）",
            "{rank}. {claim}（{n}个中0个；几乎这样说）",
        ),
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

    def told(cluster: Cluster, said_or_not: tuple[str, str]) -> str:
        k = len(cluster.workers)
        return said_or_not[not k].format(claim=_quoted(cluster, phrases), k=k, **count)

    said = told(winner, phrases.winner)
    also = [told(other, phrases.each) for other in others]
    also += _more(opinion, phrases)
    return said + (phrases.also + phrases.comma.join(also) if also else "") + phrases.end


def _differential(opinion: Opinion, phrases: Phrases) -> str:
    rows = [
        phrases.row[not cluster.workers].format(
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
        asked = plain[-1] if plain[-1] in QUESTION_MARKS else ""
        plain = f"{plain[: SHORT - 1].rstrip()}…{asked}"
    return f"{phrases.quotes[0]}{plain}{phrases.quotes[1]}"
