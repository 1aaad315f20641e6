"""Does what leaves claim anything that nobody said? Disputed cases, read by rules of another kind.
python -m benchmarks.accuracy.disputes [--data FOLDER] [--panel panel.toml] [--doctors 3] [--show 0]

MEDIQA-M3G's doctors are the panel, as in `free_text`; where they differ, the answer is worded in
each style as the gateway words it, by the summariser of the panel file, which must be running
(CONSILIUM_SUMMARISER_URL), or by the vote. What comes out is read by rules that share nothing with
the gateway's: what it puts in quotation marks (in the style `answer`, all of it) must stand in one
doctor's answer, word for word and in one piece, where nothing beside it in the same clause denies
it. As many must be told to say it as say just that, and no more than have a word of it; who is
named must be one of these. What is around the marks must be words of the frame that a person has
listed here. Of doubts it sees one kind: asked only are the texts that tell without a question mark
what doctors said with one, all who did. Printed are who worded how many, and every text that fails;
with --show so many others, to be read, each with what the doctors said. The last line is JSON.
"""

import argparse
import asyncio
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import needs
from benchmarks.accuracy.free_text import LANGUAGES, STYLES, drawn, encounters, opinion_of
from gateway.asking.model_server import Http, new_http_client
from gateway.asking.summariser import summarise
from gateway.case import Case
from gateway.contract import Language, Options, Style
from gateway.settings import load_settings
from gateway.tables import SummariserSettings
from gateway.verdict.weigh import Opinion

AT_A_TIME = 4  # cases: the summariser has ten seconds for each, as it has in the gateway
QUOTED = re.compile("[“«](.*?)[”»]", re.DOTALL)
WORD = re.compile(r"[^\W\d_\u3400-\u9fff]+|\d+|[\u3400-\u9fff]")
ARTICLE = re.compile("an?|the|el|las?|los|una?")
FRAME: dict[Language, re.Pattern[str]] = {
    "en": re.compile(r"panel|s|answer|is|said|by|of|also|more|claims?|doctor"),
    "es": re.compile(
        r"respuesta|del|panel|es|dicha|por|de|tambien|se|dijo|afirmaci(on|ones)|mas|doctor"
    ),
    "zh": re.compile(r"[小组的答案是个成员中有这样说另外种法]|doctor"),
}
# What denies, before a piece or behind it; and what denies a denial, which comes first.
OPEN = re.compile(
    r"(?:cannot|can t|can not|could not|not) (?:be )?(?:ruled? out|excluded?)|no doubt|"
    r"no se puede descartar|sin duda|不能排除|不排除|不除外|无疑"
)
BEFORE = re.compile(
    r"\b(?:no|not|isn t|doesn t|don t|aren t|without|never|nor|denies|sin|ni|nunca|tampoco)\b|"
    r"不是|不像|不考虑|不属于|没有|无|未|非"
)
BEHIND = re.compile(
    r"\b(?:excluded|(?<!to be )ruled out|unlikely|descartad[oa]|poco probable)\b|"
    r"已排除|可排除|可能性不大"
)
CLAUSE = re.compile(r"[.,;:!?()，。；：！？（）、\n]")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    needs.data_folder(arguments)
    arguments.add_argument("--panel", type=Path, default=Path("panel.toml"))
    arguments.add_argument("--doctors", type=int, default=3)
    arguments.add_argument("--show", type=int, default=0)
    given = arguments.parse_args()
    data = given.data
    seat = load_settings(given.panel).summariser
    if seat:
        needs.answering(seat.url, f"start the summariser of {given.panel}, consilium summariser")
    told = asyncio.run(read_all(data, seat, given.doctors))
    found: dict[str, dict[str, int]] = {}
    for language, style, by, text, wrong, panel in told:
        counts = found.setdefault(f"{language} {style}", Counter())
        counts[by] += 1
        counts["unsupported"] += wrong
        counts["asked only"] += any(is_asked_only(each, panel) for each in pieces_of(text, style))
    for name, counts in found.items():
        print(f"{name:18}", "   ".join(f"{what} {count}" for what, count in counts.items()))
    for language, style, by, text, wrong, panel in told:
        if wrong:
            print(f"UNSUPPORTED {language} {style} by {by}: {text!r} of {panel}")
    for language, style, by, text, _, panel in random.Random(0).sample(told, given.show):
        print(f"{language} {style} by {by}: {text!r} of {panel}")
    print(json.dumps({"disputed": len(told) // len(STYLES), **found}))


Told = tuple[Language, Style, str, str, bool, list[str]]


async def read_all(data: Path, seat: SummariserSettings | None, doctors: int) -> list[Told]:
    """Of every disputed case in every style: who worded it, how, whether it fails, and of what."""
    http, free = new_http_client(), asyncio.Semaphore(AT_A_TIME)
    told: list[Told] = []

    async def read(question: str, panel: list[str], language: Language) -> None:
        opinion = opinion_of(panel, question, language)
        if opinion.unanimous:
            return
        async with free:
            for style in STYLES:
                by, text = await worded(question, opinion, language, style, seat, http)
                wrong = bool(unsupported(text, panel, language, style))
                told.append((language, style, by, text, wrong, panel))

    try:
        for language in LANGUAGES:
            found = encounters(data, language, doctors)
            panels = [(each.question, drawn(each, doctors, seed=0)[0]) for each in found]
            await asyncio.gather(*(read(question, panel, language) for question, panel in panels))
    finally:
        await http.close()
    return told


async def worded(
    question: str,
    opinion: Opinion,
    language: Language,
    style: Style,
    seat: SummariserSettings | None,
    http: Http,
) -> tuple[str, str]:
    """By whom, and the text; "fall-back" is the vote in place of a reply that was not used."""
    case = Case("", question, (), language, None, None, Options(style=style))
    wording = await summarise(case, opinion, seat, http)
    return "fall-back" if wording.fell_back else wording.summary.by, wording.answer


def unsupported(text: str, panel: Sequence[str], language: Language, style: Style) -> list[str]:
    """What of a text no doctor said: pieces, those that are counted wrongly, and words of the frame
    that are not listed."""
    pieces = pieces_of(text, style)
    found = [piece for piece in pieces if not any(says(answer, piece) for answer in panel)]
    if style != "answer":
        behind = QUOTED.split(text)[2::2]  # each piece's numbers, up to the next piece
        for rank, (piece, told) in enumerate(zip(pieces, behind, strict=True)):
            wrong = is_miscounted(piece, told, panel, of_all=rank == 0 or style == "differential")
            found += [f"{piece}{told}"] if wrong else []
        around = (word for word in words(QUOTED.sub(" ", text)) if not word.isdecimal())
        found += [word for word in around if not FRAME[language].fullmatch(word)]
    return found


def pieces_of(text: str, style: Style) -> list[str]:
    """What it says that doctors said."""
    return [text] if style == "answer" else QUOTED.findall(text)


def is_asked_only(piece: str, panel: Sequence[str]) -> bool:
    """Whether it stands there without a question mark, and in every answer that has it with one."""
    if piece.rstrip(" .。…").endswith(("?", "？")):
        return False
    asked = re.compile(rf"¿\s*{re.escape(piece)}|{re.escape(piece)}\s*[?？]", re.IGNORECASE)
    having = [answer for answer in panel if piece.casefold() in answer.casefold()]
    return bool(having) and all(map(asked.search, having))


def says(answer: str, piece: str) -> bool:
    """Whether the piece stands there, and nothing in its clause denies it."""
    wanted, clauses = words(piece), [words(clause) for clause in CLAUSE.split(answer)]
    flat = [(word, clause) for clause, each in enumerate(clauses) for word in each]
    for start in range(len(flat) - len(wanted) + 1):
        end = start + len(wanted)
        if [word for word, _ in flat[start:end]] != wanted:
            continue
        before = in_a_row(w for w, clause in flat[:start] if clause == flat[start][1])
        behind = in_a_row(w for w, clause in flat[end:] if clause == flat[end - 1][1])
        if not BEFORE.search(OPEN.sub(" ", before)) and not BEHIND.search(OPEN.sub(" ", behind)):
            return True
    return False


def in_a_row(said: Iterable[str]) -> str:
    """Chinese has no blanks between its words."""
    return re.sub(r"(?<=[\u3400-\u9fff]) (?=[\u3400-\u9fff])", "", " ".join(said))


def is_miscounted(piece: str, told: str, panel: Sequence[str], of_all: bool) -> bool:
    """Whether what is told behind a piece, how many say it, of how many and who, cannot be true."""
    wanted, said = words(piece), [words(answer) for answer in panel]
    may = [doctor for doctor, each in enumerate(said, start=1) if set(wanted) & set(each)]
    must = sum(each == wanted for each in said)
    named = [int(number) for number in re.findall(r"doctor-(\d+)", told)]
    counts = [int(number) for number in re.findall(r"(?<!doctor-)\b\d+|\d+(?=个)", told)]
    if not counts or (of_all and (len(counts) < 2 or max(counts[:2]) != len(panel))):
        return True
    k = min(counts[:2]) if of_all else counts[0]
    names = not named or (set(named) <= set(may) and len(named) == k)
    return not (max(must, 1) <= k <= len(may) and names)


def words(text: str) -> list[str]:
    """Without articles and accents, and without what was cut at the end, of which a part may be
    left."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    found = WORD.findall("".join(each for each in plain if not unicodedata.combining(each)))
    cut = text.rstrip("?？").endswith("…")
    return [word for word in found[: len(found) - cut] if not ARTICLE.fullmatch(word)]


if __name__ == "__main__":
    with needs.told():
        main()
