"""Numbers and measures as one would type them: "twenty-one" is 21, "1,000" is 1000, "3.0cm" 3 cm.

Two numbers that differ are never made one. So what two readers may read differently stays as it is:
"1.000" is a thousand in Spanish and left alone elsewhere, "1,000" a thousand elsewhere and left
alone in Spanish; "两三个", two or three, is no 23; and a Roman number is one behind "grade" alone.
"""

import re
from dataclasses import dataclass

from gateway.contract import Language
from gateway.verdict.text.spelling import UNACCENTED

# Chinese ones, which stand in other words too: alone they are numbers where they are all of it.
NUMBERS = {word: str(number) for number, word in enumerate("零一二三四五六七八九十")} | {"两": "2"}

# Behind a number; the last names the meaning.
MEASURES = (
    "millimeters, millimeter, millimetres, millimetre, milímetros, milímetro, 毫米, mm",
    "centimeters, centimeter, centimetres, centimetre, centímetros, centímetro, 厘米, 公分, cm",
    "milliliters, milliliter, millilitres, millilitre, mililitros, mililitro, 毫升, ml",
    "percent, per cent, por ciento, %",
)
UNITS = {
    word.translate(UNACCENTED): line.split(", ")[-1]
    for line in MEASURES
    for word in line.split(", ")
}
MEASURE = rf" ?({'|'.join(UNITS)})(?![^\W\d])"
UNIT = re.compile(rf"(?<=\d){MEASURE}")
ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9, "x": 10}
ROMANS = f"({'|'.join(sorted(ROMAN, key=len, reverse=True))})"
DECIMAL = re.compile(r"(?<![\w.,])(\d+)\.(\d+)(?!\d|[.,]\d)")
GROUPED_BY_COMMAS = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
GROUPED_BY_DOTS = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:\.\d{3})+(?![\d.])")
TIMES = re.compile(r"(?:(?<=\d)|(?<=\d [cm]m)) ?(?:x|×|\*|by|por|乘) ?(?=\d)")
SAME_UNIT = re.compile(r" ([cm]m) x (?=[\d.]+(?: x [\d.]+)* \1\b)")  # 3 cm x 4 cm
TWICE = re.compile(r"\b(\d+) \(\1\)")  # two (2)


@dataclass(frozen=True)
class Numerals:
    """How one language writes them. `spoken` is a number in words, `word` one of these: its value
    stands in `values`, or in `scales` if it multiplies what stands before it. `grouped` is a number
    in digits whose thousands are parted, `decimal` what ends in a decimal comma, `span` stands
    between the ends of a range, `graded` is a Roman number with what tells that it is one.
    """

    spoken: re.Pattern[str]
    word: re.Pattern[str]
    values: dict[str, int]
    scales: dict[str, int]
    grouped: re.Pattern[str]
    decimal: re.Pattern[str]
    span: re.Pattern[str]
    graded: re.Pattern[str]


def in_digits(text: str, language: Language) -> str:
    """A text in lower case and without accents, with its numbers and units spelled one way."""
    numerals = NUMERALS[language]
    text = numerals.spoken.sub(lambda found: _value(found[0], numerals), text)
    if not any(map(str.isdecimal, text)) and not numerals.graded.search(text):
        return text
    text = numerals.grouped.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = numerals.decimal.sub(r"\1.", text)
    text = DECIMAL.sub(_without_zeros, text)
    text = numerals.span.sub("-", text)
    text = numerals.graded.sub(lambda found: f"{found[1]}{ROMAN[found[2]]}", text)
    text = UNIT.sub(lambda unit: f" {UNITS[unit[1]]}", text)
    return TWICE.sub(r"\1", SAME_UNIT.sub(" x ", TIMES.sub(" x ", text)))


def _value(spoken: str, numerals: Numerals) -> str:
    whole, _, decimals = spoken.partition("点")
    total = current = 0
    for word in numerals.word.findall(whole):
        if scale := numerals.scales.get(word):
            if scale == 1000:  # of all before it
                total, current = 0, total + current
            total, current = total + (current or 1) * scale, 0
        else:
            current += numerals.values.get(word, 0)
    behind = "".join(NUMBERS[digit] for digit in decimals)
    return f"{total + current}.{behind}" if behind else str(total + current)


def _without_zeros(found: re.Match[str]) -> str:
    whole, decimals = found.groups()
    if len(decimals) == 3 and len(whole) < 4 and whole != "0":  # may be a thousand
        return found[0]
    return f"{whole}.{decimals}".rstrip("0").rstrip(".")


def _values(words: str, first: int = 1, step: int = 1) -> dict[str, int]:
    """ "uno/una dos" → uno and una 1, dos 2."""
    named = enumerate(words.translate(UNACCENTED).split())
    return {name: first + step * n for n, names in named for name in names.split("/")}


def _any(values: dict[str, int]) -> str:
    return f"(?:{'|'.join(sorted(values, key=len, reverse=True))})"


def _english() -> Numerals:
    ones = _values("one two three four five six seven eight nine")
    teens = _values(
        "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen", 10
    )
    tens = _values("twenty thirty forty fifty sixty seventy eighty ninety", 20, 10)
    below_100 = rf"(?:{_any(tens)}(?:[- ]{_any(ones)})?|{_any(teens)}|{_any(ones)})"
    below_1000 = rf"(?:(?:a|{below_100}) hundred(?: (?:and )?{below_100})?|{below_100})"
    number = rf"(?:(?:a|{below_1000}) thousand(?: (?:and )?{below_1000})?|{below_1000}|zero)"
    return Numerals(
        spoken=re.compile(rf"\b{number}\b(?! (?:hundred|thousand)\b)"),
        word=re.compile(r"[a-z]+"),
        values=ones | teens | tens,
        scales={"hundred": 100, "thousand": 1000},
        grouped=GROUPED_BY_COMMAS,
        # Three digits behind a comma may be a thousand's; with no unit behind them, two a list.
        decimal=re.compile(rf"(\d),(?=\d{{1,2}}{MEASURE})"),
        span=re.compile(r"(?<=\d)(?: - | ?~ ?| to )(?=\d)"),
        graded=re.compile(rf"\b((?:grade|stage|type|class|phase|nerve) ){ROMANS}(?=[a-d]?\b)"),
    )


def _spanish() -> Numerals:
    ones = _values("un/uno/una dos tres cuatro cinco seis siete ocho nueve")
    teens = _values(
        "diez once doce trece catorce quince dieciséis diecisiete dieciocho diecinueve veinte "
        "veintiuno/veintiuna/veintiún veintidós veintitrés veinticuatro veinticinco veintiséis "
        "veintisiete veintiocho veintinueve",
        10,
    )
    tens = _values("treinta cuarenta cincuenta sesenta setenta ochenta noventa", 30, 10)
    hundreds = _values(
        "cien/ciento doscientos/doscientas trescientos/trescientas cuatrocientos/cuatrocientas "
        "quinientos/quinientas seiscientos/seiscientas setecientos/setecientas "
        "ochocientos/ochocientas novecientos/novecientas",
        100,
        100,
    )
    below_100 = rf"(?:{_any(tens)}(?: y {_any(ones)})?|{_any(teens)}|{_any(ones)})"
    below_1000 = rf"(?:{_any(hundreds)}(?: {below_100})?|{below_100})"
    number = rf"(?:(?:{below_1000} )?mil(?: {below_1000})?|{below_1000}|cero)"
    return Numerals(
        # An article is no number, and neither is the hundred of a percent.
        spoken=re.compile(rf"\b(?!una?\b)(?!(?<=por )ciento\b){number}\b(?! mil\b)"),
        word=re.compile(r"[a-z]+"),
        values=ones | teens | tens | hundreds,
        scales={"mil": 1000},
        grouped=GROUPED_BY_DOTS,
        # As above; but two digits are no list where a comma is what parts decimals.
        decimal=re.compile(r"(?<![\w.,])(\d+),(?:(?<=\b0,)|(?!\d{3}(?!\d)))(?=\d+(?![\d,]|\.\d))"),
        span=re.compile(r"(?<=\d)(?: - | ?~ ?| a )(?=\d)"),
        graded=re.compile(rf"\b((?:grado|estadio|tipo|clase|fase) ){ROMANS}(?=[a-d]?\b)"),
    )


def _chinese() -> Numerals:
    digit = "[一二三四五六七八九]"
    below_100 = rf"(?:{digit}?十{digit}?|{digit})"
    hundreds = rf"[一二两三四五六七八九]百(?:零{digit}|{digit}十{digit}?)?"
    thousands = rf"[一二两三四五六七八九]千(?:零{below_100}|{hundreds})?"
    compound = rf"(?:{thousands}|{hundreds}|{digit}?十{digit}|{digit}十)"
    decimals = rf"(?:{compound}|[零一二三四五六七八九十])点[零一二三四五六七八九]+"
    # One character is a number before what is counted or measured; "which one" and "this is a" have
    # none, and "not one" is no one.
    counted = r"[个颗枚处只块片条根名例级期型度岁]|毫|厘|公分| ?(?:cm|mm|ml|%)"
    single = rf"(?:[零二两三四五六七八九十]|(?<![哪这那每任某是为])一(?!个[也都]))(?={counted})"
    letters = "零一二两三四五六七八九十百千万亿点几"
    return Numerals(
        spoken=re.compile(rf"(?<![{letters}])(?:{decimals}|{compound}|{single})(?![{letters}])"),
        word=re.compile(r"."),
        values=_values("一 二/两 三 四 五 六 七 八 九"),
        scales={"十": 10, "百": 100, "千": 1000},
        grouped=GROUPED_BY_COMMAS,
        decimal=re.compile(rf"(\d),(?=\d{{1,2}}{MEASURE})"),
        span=re.compile(r"(?<=\d) ?(?:-|~|至|到) ?(?=\d)"),
        graded=re.compile(rf"((?<![a-z])){ROMANS}(?=[级期型度])"),
    )


NUMERALS: dict[Language, Numerals] = {"en": _english(), "es": _spanish(), "zh": _chinese()}
