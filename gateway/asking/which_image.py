"""Which of a case's images a question is about: the ones it names, or all of them together. One
that it leaves out, or only compares with, is not the one that it is about.

Read by tables of phrases, by language: an image's place, or what the caller says that it is. A
place is a word, a Roman or another figure, or the last one's. A figure that counts something else
("a slice 3 mm thick") names no image.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.contract import Language
from gateway.verdict.text.spelling import UNACCENTED

ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII"]
EITHER = {accented: f"[{chr(accented)}{chr(plain)}]" for accented, plain in UNACCENTED.items()}


@dataclass(frozen=True)
class Phrases:
    """`named` are images by their places; `beside` places alone, which are images' beside one that
    is named ("than in the first"); `apart` one that is left out or compared with; `together` is
    what no image alone can answer; `lead` the place before what is asked, `{named}` there; `this`
    what stands for a name elsewhere; `viewed` an image by what it is, `{view}` there."""

    numbers: dict[str, int]
    named: re.Pattern[str]
    beside: re.Pattern[str]
    apart: re.Pattern[str]
    together: re.Pattern[str]
    lead: str
    this: str
    viewed: str


def together(question: str, language: Language) -> bool:
    """Whether only the images together can answer it, though none be named."""
    phrases = PHRASES[language]
    return any(told.search(question) for told in (phrases.together, phrases.apart))


def named(text: str, count: int, language: Language) -> set[int]:
    """The images, of `count`, that are named, by their numbers from 1; of one that is not there, a
    number that is not there either."""
    phrases = PHRASES[language]
    names = [match[0] for match in phrases.named.finditer(text)]
    if names:
        names += [match[0] for match in phrases.beside.finditer(text)]
    return {number for name in names for number in _numbers(name, count, phrases)}


def viewed(text: str, views: Sequence[str | None], language: Language) -> dict[str, int]:
    """Of `views`, what each image is: the words that name one by it ("the lateral view"), and its
    number from 1. What several of them are names none."""
    found: dict[str, int] = {}
    spelled = [_spelled(view) for view in views]
    for number, words in enumerate(spelled, 1):
        if words and spelled.count(words) == 1:
            any_of_them = "|".join(map(re.escape, words))
            name = _compiled(PHRASES[language].viewed.format(view=f"(?:{any_of_them})"))
            found |= {match[0]: number for match in name.finditer(text)}
    return found


def unnamed(question: str, language: Language, names: Iterable[str] = ()) -> str:
    """The question about the one image that is named, without its name, be it its place or one of
    `names`."""
    phrases = PHRASES[language]
    for name in [*(match[0] for match in phrases.named.finditer(question)), *names]:
        lead = phrases.lead.format(named=re.escape(name))
        rest = re.sub(lead, "", question, count=1, flags=re.IGNORECASE)
        there = rest != question and rest
        question = rest if there else question.replace(name, phrases.this)
    return question[:1].upper() + question[1:]


def _spelled(view: str | None) -> tuple[str, ...]:
    """A view in every language, or as its sender has it."""
    own = (view or "").strip().lower()
    return next((words for words in SAME_VIEW if own in words), (own,) if own else ())


def _numbers(name: str, count: int, phrases: Phrases) -> list[int]:
    found = re.findall(
        r"\d+|最后一|[一二三四五六七八九十]|[a-záéíóúñ]+", OF_ALL.sub("", name).lower()
    )
    words = [word.translate(UNACCENTED) for word in found]
    known = phrases.numbers
    return [
        int(word) if word.isdecimal() else known[word] or count
        for word in words
        if word.isdecimal() or word in known
    ]


def _compiled(pattern: str) -> re.Pattern[str]:
    """With accents and without."""
    return re.compile(pattern.translate(EITHER), re.IGNORECASE)


def _places(*lines: str, last: str) -> dict[str, int]:
    """Words for places; 0 is the last one's."""
    words = {word: number for line in lines for number, word in enumerate(line.split(), 1)}
    words |= {word.lower(): number for number, word in enumerate(ROMAN, 1)}
    return {
        word.translate(UNACCENTED): n
        for word, n in (words | dict.fromkeys(last.split(), 0)).items()
    }


def _several(one: str, join: str) -> str:
    return f"{one}(?:{join}{one}){{0,9}}"


SAME_VIEW = (
    ("frontal", "正位"),
    ("lateral", "侧位"),
    ("pa", "posteroanterior", "后前位"),
    ("ap", "anteroposterior", "前后位"),
    ("oblique", "oblicua", "斜位"),
    ("axial", "轴位", "横断位", "横断面"),
    ("coronal", "冠状位", "冠状面"),
    ("sagittal", "sagital", "矢状位", "矢状面"),
)
OF_ALL = re.compile(r" (?:of|de) \d+\)?$")
FIGURE = r"\d{1,9}(?![.,]\d|[a-z\d]|-[^\W\d])"
ROMANS = rf"(?-i:{'|'.join(ROMAN)})(?=\W*$|[:,)])"

_units = (
    r"(?! ?(?:mm|cm|ml|t|tesla|d|dimension(?:s|al)?|(?:milli|centi)met(?:er|re)s?|hours?|days?|"
    r"weeks?|months?|years?|minutes?|seconds?)\b)"
)
_kind = "ct|mri?|x-?ray"
_noun = "image|img|picture|slice|view|scan|film|photo|photograph|radiograph|figure"
_image = rf"(?:(?:(?:{_kind}) )?(?:{_noun}|fig\.)|{_kind})(?![^\W\d])"
_images = rf"(?:(?:{_kind}) (?:{_noun})|{_noun}|{_kind})s\b"
_join = r"(?:,? (?:and|or|to) | ?[-–/&] ?|, )(?:the )?"
_ordinal = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|final"
_nth = _several(rf"(?:{_ordinal}|\d{{1,4}}(?:st|nd|rd|th))", _join)
_words = "one|two|three|four|five|six|seven|eight|nine|ten"
_n = _several(rf"(?:{FIGURE}|(?:{_words})\b|{ROMANS}){_units}", _join)
_named = (
    rf"\b(?<!-)(?:the )?{_nth} (?:{_image}|{_images})|"
    rf"\b(?<!this )(?:the )?{_image}[ (-]*(?:no\.? ?|number |#)?{_n}(?: of \d+)?\)?"
)
ENGLISH = Phrases(
    numbers=_places(
        "first second third fourth fifth sixth seventh eighth ninth tenth",
        _words.replace("|", " "),
        last="last final",
    ),
    named=_compiled(_named),
    beside=_compiled(rf"\bthe {_nth}(?: one)?(?=\W*$|,| than | and | or )"),
    apart=_compiled(
        r"\b(?:except(?: for)?|excluding|other than|apart from|aside from|ignoring|disregarding|"
        r"besides|than|since|versus|vs\.?|relative to|same as)(?: that| those)?(?: in| on| of)? "
        rf"(?:{_named})"
    ),
    # "Which view is this?" is asked of one.
    together=_compiled(
        rf"\b(?:which|what) (?:one of )?(?:the |these )?(?:{_image}|{_images}) "
        r"(?:is|are|shows?|has|have|contains?|was|were|does|looks?|differs?)\b"
        r"(?! (?:this|it|these|they|shown|seen|used|taken|done|performed|obtained|acquired)\b|"
        rf" the {_image})|\bwhich of (?:them|(?:the|these) (?:\w+ )?{_images})|"
        r"\b(?:both|all|either|neither|any|none|how many|two|three|four|\d{1,4})(?: of)?"
        rf"(?: the| these)?(?: \w+)? {_images}|\b(?:n?either) {_image}|\b{_images} {_n}|"
        rf"^(?=.*\b{_images})(?=.*\b(?:same|differ|alike|identical|order|rank|sort the))|"
        r"\bare (?:they|these) (?:the same|alike|identical|different)\b|"
        rf"\bcompar(?!able|ison view)|\b(?:between|among|across) the(?:se)?(?: \w+)? {_images}|"
        rf"\bother (?:{_image}|{_images})|\b(?:previous|prior) {_image}|\bwhat (?:has )?changed\b|"
        r"\bhas (?:\w+ ){1,3}(?:changed|grown|progressed|worsened|improved)\b|\binterval change|"
        r"\bany change\W*$|\bdid (?:\w+ ){1,3}(?:change|grow|shrink|increase|decrease|progress|"
        r"worsen|improve)\b|\bthan before\b|^what(?: is|'s) different\W*$|^which shows\b|"
        rf"\bin the (?:other one|latter|former)\b|\bdo (?:\w+ )?(?:{_images}|they) agree\b|"
        r"\bpenultimate\b|\blast but one\b|\bsecond[- ]to[- ]last\b"
    ),
    lead=r"^(?:(?:in|on|for|about) {named}(?: ?[:,.–—-] ?| )|{named} ?[:,.–—-] ?)",
    this="this image",
    viewed=rf"(?<!this )\bthe {{view}} {_image}|(?<=\b[io]n )the {{view}}(?=\W*$|,)|"
    rf"^{{view}}(?: {_image})?(?= ?[:,])",
)

_units = (
    r"(?! ?(?:mm|cm|ml|t|teslas?|d|dimensiones|(?:milí|centí)metros?|horas?|días?|semanas?|"
    r"mes(?:es)?|años?|minutos?|segundos?)\b)"
)
_image = r"(?:imagen|foto|corte|vista|placa|proyección|radiografía|figura)\b"
_images = r"(?:imágenes|proyecciones|(?:foto|corte|vista|placa|radiografía|figura)s)\b"
_join = r"(?: (?:y|o|a) | ?[-–/] ?|, )(?:la |el )?"
_feminine = "primera segunda tercera cuarta quinta sexta séptima octava novena décima"
_masculine = "primer segundo tercer cuarto quinto sexto séptimo octavo noveno décimo"
_ordinal = f"{_feminine} última {_masculine} último".replace(" ", "|")
_nth = _several(rf"(?:{_ordinal}|\d{{1,4}}[.ªaºo°]{{1,2}})", _join)
_words = "uno|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez"
_n = _several(rf"(?:{FIGURE}|(?:{_words})\b|{ROMANS}){_units}", _join)
_named = (
    rf"\b(?:la |el |las |los )?{_nth} (?:{_image}|{_images})|"
    rf"\b(?<!est[ae] )(?:la |el )?{_image}[ (-]*(?:n[.ºo°]* ?|núm(?:ero|\.)? )?{_n}"
    r"(?: de \d+)?\)?"
)
SPANISH = Phrases(
    numbers=_places(_feminine, _masculine, _words.replace("|", " "), last="última último"),
    named=_compiled(_named),
    beside=_compiled(rf"\b(?:la|el) {_nth}(?=\W*$|,| que | y | o )"),
    apart=_compiled(
        r"\b(?:excepto|salvo|menos|excluyendo|ignorando|además de|aparte de|fuera de|desde|"
        r"respecto (?:a|de)|(?:más|menos|mayor|menor|mejor|peor|igual|mism[oa])\b.{0,40} que)"
        rf"(?: en| de)? (?:{_named})"
    ),
    together=_compiled(
        rf"\b(?:qué|cuál(?:es)?) (?:de (?:las|estas) )?(?:{_image}|{_images})"
        r"(?! (?:es(?: esta| este)?\W*$|se \w))|"
        rf"\bcuál(?:es)? de (?:ellas|(?:las|estas) {_images})|"
        r"\b(?:ambas|ambos|todas|todos|cuántas|cuántos|ninguna de|alguna de|dos|tres|cuatro|"
        rf"\d{{1,4}})(?: las| los| estas| estos)?(?: \w+)? {_images}|\b{_images} {_n}|"
        rf"^(?=.*\b{_images})(?=.*\b(?:igual|mism|diferen|distint|orden))|\bcompar(?!able)|"
        rf"\bentre las(?: \w+)? {_images}|\botras? (?:{_image}|{_images})|"
        r"\b(?:imagen|foto|placa|radiografía) (?:anterior|previa)\b|"
        r"\bhan? (?:cambiado|crecido|progresado|empeorado|mejorado)\b|"
        r"\b(?:cambi|creci|aument|disminuy|progres|empeor|mejor)(?:ó|aron|eron)\b|\bque antes\b|"
        r"\b(?:ante)?penúltim[oa]\b|\bqué es (?:diferente|distinto)\W*$|\bcoinciden\b"
    ),
    lead=r"^(?:(?:en|sobre|de|para) {named}(?: ?[:,.–—-] ?| )|{named} ?[:,.–—-] ?)",
    this="esta imagen",
    viewed=rf"(?<!est[ae] es )\b(?:la|el) {_image} {{view}}\b|(?<=\ben )la {{view}}(?=\W*$|,)|"
    rf"^(?:{_image} )?{{view}}(?= ?[:,])",
)

_image = r"(?:图像|图片|影像|切片|片子|照片|(?<![心脑肌]电)图)"
_join = r" ?[、和与及或到至/–-] ?第?"
_nth = _several(r"(?:[一二三四五六七八九十]|\d{1,4})", _join)
_n = _several(
    rf"(?:{FIGURE}(?! ?(?:毫米|厘米|维|导|倍|级|期|天|周|月|年|小时|分钟|个|张|幅))|{ROMANS}|"
    r"[一二三四五六七八九十](?=$|\W|[中里上是有显的和与及或为]))",
    rf"{_join}(?:{_image})?",
)
_named = (
    rf"(?:第{_nth}|最后一)(?:[张幅]{_image}?|[个号]?{_image})|{_image} ?{_n}|\d{{1,4}}号{_image}"
)
CHINESE = Phrases(
    numbers=_places("一 二 三 四 五 六 七 八 九 十", last="最后一"),
    named=_compiled(_named),
    beside=_compiled("(?!)"),  # the measure word names it
    apart=_compiled(rf"(?:除了?|比|与|和|跟|同|较)(?:{_named})"),
    # 对比剂 is a contrast agent, 比较大 rather big, 病理变化 what a disease has made of it.
    together=_compiled(
        rf"哪(?:一?[张幅个]|些)?{_image}|哪一?[张幅]|比较(?![大小高低严明多])|对比(?![剂度])|"
        rf"{_image}之间|(?<!病理)(?<!性)变化|(?:其他|另)一?[张幅]?{_image}|"
        rf"(?:所有|全部)的?{_image}|(?<![第\d])(?:[两三四五六几]|\d{{1,4}})[张幅]|倒数第|"
        r"比(?:之前|以前|上次|前一)|病[变灶](?:是否)?(?:增大|缩小|增多|减少|变大|变小|进展|好转)了"
    ),
    lead=r"^在?{named}(?:[中里上]的? ?[：:，,]? ?|的|[：:，,] ?)",
    this="这张图像",
    viewed=rf"(?<![是为]){{view}}(?:{_image}|片)?",
)

PHRASES: dict[Language, Phrases] = {"en": ENGLISH, "es": SPANISH, "zh": CHINESE}
