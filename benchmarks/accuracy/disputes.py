"""Does what leaves claim anything that nobody said? Disputed cases, read by rules of another kind.
python -m benchmarks.accuracy.disputes [--data FOLDER] [--panel panel.toml] [--doctors 3] [--show 0]

MEDIQA-M3G's doctors are the panel, as in `free_text`; where they differ, the answer is worded in
each style as the gateway words it, by the summariser of the panel file, which must be running
(CONSILIUM_SUMMARISER_URL), or by the vote. What comes out is read by rules that share nothing with
the gateway's: what it puts in quotation marks (in the style `answer`, all of it) must stand in one
doctor's answer, word for word and in one piece; what is around the marks must be words of the frame
that a person has listed here. Printed are who worded how many, and every text that fails; with
--show so many others, to be read. The last line is JSON.
"""

import argparse
import asyncio
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
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
        r"respuesta|del|panel|es|dicha|por|de|también|se|dijo|afirmaci(ón|ones)|más|doctor"
    ),
    "zh": re.compile(r"[小组的答案是个成员中有这样说另外种法]|doctor"),
}


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
    for language, style, by, _, wrong in told:
        counts = found.setdefault(f"{language} {style}", Counter())
        counts[by] += 1
        counts["unsupported"] += wrong
    for name, counts in found.items():
        print(f"{name:18}", "   ".join(f"{what} {count}" for what, count in counts.items()))
    for language, style, by, text, wrong in told:
        if wrong:
            print(f"UNSUPPORTED {language} {style} by {by}: {text!r}")
    for language, style, by, text, _ in random.Random(0).sample(told, given.show):
        print(f"{language} {style} by {by}: {text!r}")
    print(json.dumps({"disputed": len(told) // len(STYLES), **found}))


async def read_all(
    data: Path, seat: SummariserSettings | None, doctors: int
) -> list[tuple[Language, Style, str, str, bool]]:
    """Of every disputed case in every style: who worded it, how, and whether it fails."""
    http, free = new_http_client(), asyncio.Semaphore(AT_A_TIME)
    told: list[tuple[Language, Style, str, str, bool]] = []

    async def read(question: str, panel: list[str], language: Language) -> None:
        opinion = opinion_of(panel, question, language)
        if opinion.unanimous:
            return
        async with free:
            for style in STYLES:
                by, text = await worded(question, opinion, language, style, seat, http)
                wrong = bool(unsupported(text, panel, language, style))
                told.append((language, style, by, text, wrong))

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
    """What of a text no doctor said: pieces, and words of the frame that are not listed."""
    said = [f" {' '.join(words(answer))} " for answer in panel]
    pieces = [text] if style == "answer" else QUOTED.findall(text)
    found = [
        piece for piece in pieces if not any(f" {' '.join(words(piece))} " in each for each in said)
    ]
    if style != "answer":
        around = (word for word in words(QUOTED.sub(" ", text)) if not word.isdecimal())
        found += [word for word in around if not FRAME[language].fullmatch(word)]
    return found


def words(text: str) -> list[str]:
    """Without articles, and without what was cut at the end, of which a part may be left."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    found = WORD.findall(plain)
    cut = text.endswith("…")
    return [word for word in found[: len(found) - cut] if not ARTICLE.fullmatch(word)]


if __name__ == "__main__":
    with needs.told():
        main()
