"""Numbers and measures as one would type them: "twenty-one" is 21, "1,000" is 1000, "3.0cm" 3 cm,
"third" 3°, "between 3 and 4 cm" 3-4 cm, "more than 3" >3.

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
    "micrometers, micrometer, micrometres, micrometre, micrómetros, micrómetro, 微米, μm, um",
    "milliliters, milliliter, millilitres, millilitre, mililitros, mililitro, 毫升, ml",
    "percent, per cent, por ciento, %",
)
UNITS = {
    word.translate(UNACCENTED): line.split(", ")[-1]
    for line in MEASURES
    for word in line.split(", ")
}
MEASURE = rf" ?({'|'.join(UNITS)})(?![a-z])"
UNIT = re.compile(rf"(?<=\d){MEASURE}")
ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9, "x": 10}
ROMANS = f"({'|'.join(sorted(ROMAN, key=len, reverse=True))})"
DIGIT = re.compile(r"\d")
NO_WHOLE = re.compile(r"(?<![\w.,])\.(?=\d)")  # .5
DECIMAL = re.compile(r"(?<![\w.,])(\d+)\.(\d+)(?!\d|[.,]\d)")
GROUPED_BY_COMMAS = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
GROUPED_BY_DOTS = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:\.\d{3})+(?![\d.])")
TIMES = re.compile(r"(?:(?<=\d)|(?<=\d [cm]m)) ?(?:x|×|\*|by|por|乘) ?(?=\d)")
OF_100 = re.compile(r"百分之(\d+(?:\.\d+)?)")
SAME_UNIT = re.compile(r" ([cm]m) x (?=[\d.]+(?: x [\d.]+)* \1\b)")  # 3 cm x 4 cm
# "1/2 cm", "1 3/4 cm"; "3/4 cm" may be three or four, and "2 1/2 cm cysts" two.
PART = re.compile(
    r"(?<![\w.,/-])(?<!\d )(?:(?P<whole>\d{1,3}) (?P<above>[1-7])/(?P<below>[248])"
    rf"(?={MEASURE}(?! ?[a-z]))|1/(?P<of_one>[248])(?={MEASURE}))"
)
TWICE = re.compile(r"\b(\d+) \(\1\)")  # two (2)
COMPARISONS = "<>≤≥±~"
SIGNED = re.compile(rf"(?<=[{COMPARISONS}]) (?=\d)")


@dataclass(frozen=True)
class Numerals:
    """How one language writes them. `spoken` is a number in words, `word` one of these: its value
    stands in `values`, or in `scales` if it multiplies what stands before it. `grouped` is a number
    in digits whose thousands are parted, `decimal` what ends in a decimal comma, `ranges` are a
    lower end with its unit and an upper one with its own. `graded` is a Roman number with what
    tells that it is one. `ordinal` is a place in a row, in digits or in words, of which `places`
    has the last. `signs` are comparisons, each with the sign that says so. Without a digit, and
    without one of the words that are `known`, there is none of these.
    """

    spoken: re.Pattern[str]
    word: re.Pattern[str]
    values: dict[str, int]
    scales: dict[str, int]
    grouped: re.Pattern[str]
    decimal: re.Pattern[str]
    ranges: tuple[re.Pattern[str], ...]
    graded: re.Pattern[str]
    ordinal: re.Pattern[str]
    places: dict[str, int]
    signs: tuple[tuple[re.Pattern[str], str], ...]
    known: frozenset[str]


def in_digits(text: str, language: Language) -> str:
    """A text in lower case and without accents, with its numbers and units spelled one way."""
    numerals = NUMERALS[language]
    if not DIGIT.search(text) and numerals.known.isdisjoint(numerals.word.findall(text)):
        return text
    text = numerals.ordinal.sub(lambda found: _place(found[0], numerals), text)
    text = numerals.spoken.sub(lambda found: _value(found[0], numerals), text)
    if not DIGIT.search(text) and not numerals.graded.search(text):
        return text
    text = numerals.grouped.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = numerals.decimal.sub(r"\1.", text)
    text = DECIMAL.sub(_without_zeros, NO_WHOLE.sub("0.", text))
    text = numerals.graded.sub(lambda found: f"{found[1]}{ROMAN[found[2]]}", text)
    text = OF_100.sub(r"\1%", text)
    text = PART.sub(_with_part, text) if "/" in text else text
    text = UNIT.sub(lambda unit: f" {UNITS[unit[1]]}", text)
    for written in numerals.ranges:
        text = written.sub(_range, text)
    for compared, sign in numerals.signs:
        text = compared.sub(sign, text)
    text = SIGNED.sub("", text.replace("≈", "~"))
    return TWICE.sub(r"\1", SAME_UNIT.sub(" x ", TIMES.sub(" x ", text)))


def _value(spoken: str, numerals: Numerals) -> str:
    whole, _, decimals = spoken.partition("点")
    total = group = current = 0
    for word in numerals.word.findall(whole):
        scale = numerals.scales.get(word, 1)
        if scale >= 1000:  # of all before it, up to the next such
            total, group, current = total + (group + current or 1) * scale, 0, 0
        elif scale > 1:
            group, current = group + (current or 1) * scale, 0
        else:
            current += numerals.values.get(word, 0)
    behind = "".join(NUMBERS[digit] for digit in decimals)
    total += group + current
    return f"{total}.{behind}" if behind else str(total)


def _place(said: str, numerals: Numerals) -> str:
    """Its number, which is another than that of so many."""
    if said[0].isdecimal():
        return re.sub(r"\D+", "", said) + "°"
    words = numerals.word.findall(said)
    return f"{sum(numerals.values.get(word, numerals.places.get(word, 0)) for word in words)}°"


def _range(found: re.Match[str]) -> str:
    """With one unit; where two are named that differ, as it stands."""
    low, unit, high, other = found.groups()
    if unit and unit != other:
        return found[0]
    return f"{low}-{high}" + (f" {other}" if other else "")


def _ranges(*written: tuple[str, str]) -> tuple[re.Pattern[str], ...]:
    """By what stands before the lower end, and what between the two."""
    end, unit = r"(\d++(?:\.\d++)?)", f"(?: ?({'|'.join(sorted(set(UNITS.values())))}))?"
    return tuple(
        re.compile(rf"(?<!\d){opens}{end}{unit}(?:{parts}){end}{unit}(?![a-z\d]|\.\d)")
        for opens, parts in written
    )


def _signs(**words: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Before a number."""
    of = {"more": ">", "less": "<", "least": "≥", "most": "≤", "about": "~"}
    return tuple((re.compile(rf"(?:{said}) ?(?=\d)"), of[name]) for name, said in words.items())


def _with_part(found: re.Match[str]) -> str:
    whole, above, below, of_one = found.group("whole", "above", "below", "of_one")
    if of_one:
        return str(1 / int(of_one))
    return found[0] if above >= below else str(int(whole) + int(above) / int(below))


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
    below_million = rf"(?:(?:a|{below_1000}) thousand(?: (?:and )?{below_1000})?|{below_1000})"
    number = rf"(?:(?:a|{below_1000}) million(?: (?:and )?{below_million})?|{below_million}|zero)"
    scales = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
    grades = ["grade", "stage", "type", "class", "phase", "nerve"]
    firsts = _values("first second third fourth fifth sixth seventh eighth ninth")
    firsts_alone = firsts | _values(
        "tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth "
        "nineteenth twentieth",
        10,
    )
    return Numerals(
        spoken=re.compile(rf"\b{number}\b(?! (?:hundred|thousand|million)\b)"),
        word=re.compile(r"[a-z]+"),
        values=ones | teens | tens,
        scales=scales,
        grouped=GROUPED_BY_COMMAS,
        # Three digits behind a comma may be a thousand's; with no unit behind them, two a list.
        decimal=re.compile(rf"(\d),(?=\d{{1,2}}{MEASURE})"),
        ranges=_ranges((r"\bbetween ", " and "), (r"(?:\bfrom )?", "-| - | ?~ ?| to ")),
        graded=re.compile(rf"\b((?:{'|'.join(grades)}) ){ROMANS}(?=[a-d]?\b)"),
        ordinal=re.compile(
            rf"\b(?:(?:{_any(tens)}[- ])?{_any(firsts)}|{_any(firsts_alone)}|\d+(?:st|nd|rd|th))\b"
        ),
        places=firsts_alone,
        signs=_signs(
            more=r"\b(?:more|greater|larger|bigger) than\b",
            less=r"\b(?:less|fewer|smaller) than\b",
            least=r"\bat least\b",
            most=r"\bat most\b",
            about=r"\b(?:about|approximately|around|roughly)\b",
        ),
        known=frozenset([*ones, *teens, *tens, *scales, *firsts_alone, *grades, "zero"]),
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
    # "veinte y uno" is an older way to write it.
    parted = rf"(?:{_any(tens)}|diez|veinte) y {_any(ones)}"
    below_100 = rf"(?:{parted}|{_any(tens)}|{_any(teens)}|{_any(ones)})"
    below_1000 = rf"(?:{_any(hundreds)}(?: {below_100})?|{below_100})"
    below_million = rf"(?:(?:{below_1000} )?mil(?: {below_1000})?|{below_1000})"
    number = rf"(?:{below_million} mill(?:on|ones)(?: {below_million})?|{below_million}|cero)"
    scales = {"mil": 1000, "millon": 1_000_000, "millones": 1_000_000}
    grades = ["grado", "estadio", "tipo", "clase", "fase"]
    firsts = _values(
        "primero/primera/primer segundo/segunda tercero/tercera/tercer cuarto/cuarta quinto/quinta "
        "sexto/sexta séptimo/séptima octavo/octava noveno/novena décimo/décima "
        "undécimo/undécima duodécimo/duodécima"
    )
    return Numerals(
        # An article is no number, and neither is the hundred of a percent.
        spoken=re.compile(
            rf"\b(?!una?\b(?! millon))(?!(?<=por )ciento\b){number}\b"
            r"(?! mil(?:lon|lones)?\b)"
        ),
        word=re.compile(r"[a-z]+"),
        values=ones | teens | tens | hundreds,
        scales=scales,
        grouped=GROUPED_BY_DOTS,
        # As above; but two digits are no list where a comma is what parts decimals.
        decimal=re.compile(r"(?<![\w.,])(\d+),(?:(?<=\b0,)|(?!\d{3}(?!\d)))(?=\d+(?![\d,]|\.\d))"),
        ranges=_ranges((r"\bentre ", " y "), (r"(?:\bde |\bdesde )?", "-| - | ?~ ?| a | hasta ")),
        graded=re.compile(rf"\b((?:{'|'.join(grades)}) ){ROMANS}(?=[a-d]?\b)"),
        # "En primer lugar" is no place of anything.
        ordinal=re.compile(
            rf"\b(?:{_any(firsts)}\b(?! lugar\b)"
            r"|\d+(?:\.?°|(?:er|ro|ra|do|da|to|ta|vo|va|no|na)\b))"
        ),
        places=firsts,
        signs=_signs(
            more=r"\b(?:mas|mayor|mayores) (?:de|que|a)\b",
            less=r"\b(?:menos|menor|menores) (?:de|que|a)\b",
            least=r"\b(?:al menos|como minimo)\b",
            most=r"\b(?:como maximo|como mucho)\b",
            about=r"\b(?:aproximadamente|alrededor de|cerca de|unos|unas)\b",
        ),
        # An article is one before a million alone.
        known=frozenset([*ones, *teens, *tens, *hundreds, *scales, *firsts, *grades, "cero"])
        - {"un", "una"},
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
    one = r"(?:[零二两三四五六七八九十]|(?<![哪这那每任某是为])一(?!个[也都]))"
    ends = rf"[到至](?:{compound}|[二三四五六七八九十])"  # of a range
    single = (
        rf"(?:{one}(?=(?:{ends})?(?:{counted}))|(?:(?<=第)|(?<=百分之))[零一二三四五六七八九十])"
    )
    letters = "零一二两三四五六七八九十百千万亿点几"
    known = "零一二两三四五六七八九十百千ivx"
    return Numerals(
        spoken=re.compile(rf"(?<![{letters}])(?:{decimals}|{compound}|{single})(?![{letters}])"),
        word=re.compile(f"[{known}]"),
        values=_values("一 二/两 三 四 五 六 七 八 九"),
        scales={"十": 10, "百": 100, "千": 1000},
        grouped=GROUPED_BY_COMMAS,
        decimal=re.compile(rf"(\d),(?=\d{{1,2}}{MEASURE})"),
        ranges=_ranges(("", " ?(?:-|~|至|到) ?")),
        graded=re.compile(rf"((?<![a-z])){ROMANS}(?=[级期型度])"),
        ordinal=re.compile(r"(?!)"),  # 第 stands before its number
        places={},
        signs=_signs(
            more="大于|超过|多于",
            less="小于|少于",
            least="至少",
            most="至多|最多",
            about="大约|约为?",
        ),
        known=frozenset(known),
    )


NUMERALS: dict[Language, Numerals] = {"en": _english(), "es": _spanish(), "zh": _chinese()}
