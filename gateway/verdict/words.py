"""The words that `meaning` goes by: tables, by language, and no rules.

A phrase that is not here is part of what an answer says. So a table may be short, and every line
must be certain. Spanish is written here as it should be, and read as it is typed in haste: without
accents.
"""

import re
from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Any

from gateway.contract import Language

UNACCENTED = str.maketrans("áéíóú", "aeiou")  # ñ is another letter

YES = {"yes", "yeah", "yep", "true", "correct", "affirmative"}
YES |= {"si", "correcto", "verdadero", "afirmativo"}
YES |= {"對", "是", "是的", "对", "对的", "有", "包含", "包括", "可以", "存在", "能"}
NO = {"no", "nope", "false", "falso"}
NO |= {
    "沒有",
    "無",
    "不",
    "不是",
    "不是的",
    "否",
    "没有",
    "无",
    "不包含",
    "不包括",
    "不可以",
    "不存在",
    "不能",
}

# Whole answers to a question that asks for yes or no; of the others, where it is asked whether
# something is there.
NOT_SO = {
    "it is not",
    "it isn't",
    "there is not",
    "there isn't",
    "it does not",
    "no lo es",
    "no hay",
    "no lo hay",
    "并没有",
    "并不是",
    "未见",
    "未发现",
}
THERE = {"present", "positive", "presente", "positivo"}
NOT_THERE = {"absent", "not present", "not seen", "not visible", "none", "none seen", "negative"}
NOT_THERE |= {"ausente", "no se observa", "no se ve", "negativo"}

# Whole answers to a question how many there are; a bare "no" answers another.
NONE = {"none", "nil", "ninguno", "ninguna", "no hay", "no hay ninguno", "no hay ninguna"}
NONE |= {"没", "没有", "沒有", "无", "無", "不存在", "一个也没有", "一个都没有"}
NONE |= {"图中没有", "图像中没有", "图片中没有"}
NUMBERS = {
    word: str(number)
    for words in (
        "zero one two three four five six seven eight nine ten",
        "cero uno dos tres cuatro cinco seis siete ocho nueve diez",
        "零 一 二 三 四 五 六 七 八 九 十",
    )
    for number, word in enumerate(words.split())
} | {"两": "2"}

# Behind a number; the last names the meaning.
MEASURES = (
    "millimeters, millimeter, millimetres, millimetre, milímetros, milímetro, 毫米, mm",
    "centimeters, centimeter, centimetres, centimetre, centímetros, centímetro, 厘米, cm",
    "milliliters, milliliter, millilitres, millilitre, mililitros, mililitro, 毫升, ml",
    "percent, per cent, por ciento, %",
)
UNITS = {
    word.translate(UNACCENTED): line.split(", ")[-1]
    for line in MEASURES
    for word in line.split(", ")
}

# Whole answers in lower case, with spaces for hyphens; the first names the meaning.
SAME = (
    "mri, mr, mri scan, mr scan, mri image, mr image, mr imaging, magnetic resonance, "
    "magnetic resonance imaging, magnetic resonance image, rm, resonancia magnética, "
    "imagen por resonancia magnética, 核磁共振, 磁共振, 核磁共振成像, 磁共振成像, 核磁",
    "ct, ct scan, ct image, cat scan, computed tomography, computed tomography scan, tc, "
    "computerized tomography, computerised tomography, tac, tomografía computarizada, "
    "tomografía axial computarizada, 计算机断层扫描, 电子计算机断层扫描, ct扫描",
    "x ray, xray, x rays, x ray film, x ray image, plain film, plain radiograph, radiograph, "
    "radiografía, rayos x, x光, x光片, x射线, x线",
    "ultrasound, ultrasound scan, ultrasonography, sonography, sonogram, ecografía, ultrasonido, "
    "超声, 超声波",
    "pet, pet scan, positron emission tomography",
    "transverse, transverse plane, transverse section, axial, axial plane, axial section, "
    "plano axial, plano transversal, 横断面, 轴位",
    "coronal, coronal plane, coronal section, plano coronal, 冠状面, 冠状位",
    "sagittal, sagittal plane, sagittal section, plano sagital, 矢状面, 矢状位",
    "t1, t1 weighted, t1加权",
    "t2, t2 weighted, t2加权",
    "gray, grey",
    "bilateral, bilaterally, both sides, ambos lados, 双侧, 两侧",
    "both lungs, bilateral lungs, ambos pulmones, 双肺, 两肺, 双侧肺",
)
SYNONYMS = {
    phrase.translate(UNACCENTED): line.split(", ")[0]
    for line in SAME
    for phrase in line.split(", ")
}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _at_the_start_of_a_sentence(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|(?<=[\n。,])|(?<=[.!?,] )){pattern}(?=.)")


@dataclass(frozen=True)
class Words:
    """What one language says around an answer. Patterns are met by lower-case text.

    `label` (never without the word `answer`) stands before an answer, `explanation` before what
    only explains it, `because` where a sentence turns to that. `frames` may open an answer and
    `tails` close it without adding to it; `copula` parts what was asked from the answer, `article`
    and `place` stand before it. `states` is in a sentence that says that something is so. `joins`
    is what may stand for the last comma of a list.

    `fillers` and `negators` are words of a sentence: without both, its content is left. `asks` are
    a question's words for what is not known. What meets `asking` only asks, a question that meets
    `there` asks whether something is. With one of `compares` an answer is no mere number: more than
    4 are not 4. `telling` words never go with an explanation.
    """

    answer: str
    label: re.Pattern[str]
    explanation: re.Pattern[str]
    because: re.Pattern[str]
    frames: re.Pattern[str]
    tails: re.Pattern[str]
    copula: re.Pattern[str]
    states: re.Pattern[str]
    article: re.Pattern[str]
    place: re.Pattern[str]
    joins: re.Pattern[str]
    fillers: Set[str]
    negators: Set[str]
    asks: Set[str]
    asking: re.Pattern[str]
    there: re.Pattern[str]
    counts: re.Pattern[str]
    wheres: re.Pattern[str]
    compares: Set[str]
    telling: Set[str]

    def unaccented(self) -> "Words":
        return replace(self, **{name: _unaccented(value) for name, value in vars(self).items()})


def _unaccented(value: Any) -> Any:
    if isinstance(value, re.Pattern):
        return re.compile(value.pattern.translate(UNACCENTED), value.flags)
    if isinstance(value, str):
        return value.translate(UNACCENTED)
    return frozenset(map(_unaccented, value))


_IMAGE = r"(?:image|picture|photo|photograph|figure|scan)s?"
_IMAGEN = r"(?:imagen|imágenes|foto|fotografía|figura)"

ENGLISH = Words(
    answer="answer",
    label=_at_the_start_of_a_sentence(
        r"(?:(?:therefore|thus|so|hence),? )?(?:the |my )?(?:panel's )?"
        r"(?:final |correct |short |best )?answer(?: to (?:the|this|your) question)?"
        r"(?: is\b ?:?| ?:|\n) ?"
    ),
    explanation=re.compile(r"\b(?:explanation|reason|reasoning|rationale|justification) ?: "),
    because=re.compile(r"^(?:because|since|as evidenced by|as (?:it|the|this|there)) "),
    frames=re.compile(
        rf"(?:(?:based on|according to|from|in) (?:the |this |these |given |provided |above "
        rf"|medical )+{_IMAGE}(?: provided| shown| above)?, )?"
        r"(?:the panel decided:? |(?:the )?(?:panel's )?decision(?: is\b)?:? "
        rf"|(?:the|this|these) (?:given |provided |above |medical )*{_IMAGE} "
        r"(?:shows?|depicts?|displays?|demonstrates?|reveals?|contains?|is|are|appears? to be)"
        r"(?: that)?:? (?:an? (?:image|picture|view|slice) of )?"
        r"|(?:it|this|that|these|they)(?:'s| is| are| appears? to be) "
        r"|there(?:'s| is| are) |(?:i|we|you) (?:can )?see )?"
    ),
    tails=re.compile(
        r"(?: (?:is|are)(?: clearly)? (?:seen|visible|shown|present|depicted|displayed|observed))?"
        rf"(?: (?:in|on) (?:the|this|these) (?:given |provided |medical )*{_IMAGE})?$"
    ),
    copula=re.compile(
        r"(?: is| are| was| were| appears? to be)"
        r"(?: (?:taken|acquired|obtained|captured|made) (?:using|with|by))?:? "
    ),
    states=re.compile(
        r"\b(?:is|are|was|were|has|have|do|does|there|shows?|contains?|see|seen|visible|present)\b"
    ),
    article=re.compile(r"^(?:the|an?) (?=\w\w)"),
    place=re.compile(r"^(?:located |found |seen )?(?:in|on|at|within) (?:the )?"),
    joins=re.compile(r" and | & "),
    fillers=_set(
        "the a an is are was were be been being do does did has have had can it its this that "
        "these those there here they i we you in of on at to with any some image images picture "
        "pictures photo figure scan provided given based according shown show shows showing seen "
        "see visible present presence observed noted found identified detected demonstrated "
        "demonstrates depicted evident appear appears contain contains containing include includes "
        "exist exists evidence sign signs used using use taken take made obtained acquired "
        "captured belong belongs patient patient's s so and"
    ),
    negators=_set("no not without absent absence none never"),
    asks=_set("what which where how many who whose why when"),
    asking=re.compile(
        r"\?|^(?:so |and )?(?:is|are|was|were|do|does|did|has|have|can|could|will|would|should)\b"
    ),
    there=re.compile(r"^(?:is|are|was|were) there\b|\bpresent\b"),
    counts=re.compile(r"how many|number of"),
    wheres=re.compile(r"where\b"),
    compares=_set(
        "more less fewer least most over under above below about around approximately almost "
        "nearly up than greater larger smaller"
    ),
    telling=_set(
        "left right both bilateral unilateral upper lower middle superior inferior anterior "
        "posterior medial lateral central peripheral apical basal top bottom center first second "
        "lung lungs heart liver spleen kidney kidneys brain stomach bowel intestine colon rectum "
        "bladder esophagus trachea bronchus pancreas gallbladder bone bones rib ribs spine spinal "
        "cord mandible larynx duodenum pelvis chest abdomen head neck eye eyes lobe lobes "
        "hemisphere ventricle ventricles cerebellum brainstem aorta mediastinum hilum pleura "
        "breast uterus ovary prostate thyroid adrenal skull maybe possibly perhaps unclear "
        "uncertain cannot however but although though probably probable likely unlikely unsure "
        "sure might may could suspected suspicious suspect equivocal indeterminate doubt doubtful "
        "exclude excluded ruled wrong opposite contrary mistaken mistake incorrect untrue sorry "
        "correction corrected actually apologies apologize error reverse instead rather wait "
        "apparently presumably otherwise retract negative positive true false correct"
    ),
)

SPANISH = Words(
    answer="respuesta",
    label=_at_the_start_of_a_sentence(
        r"(?:(?:por lo tanto|por tanto|así que),? )?(?:la )?"
        r"respuesta(?: final| correcta| corta| del panel)*(?: es\b ?:?| ?:) ?"
    ),
    explanation=re.compile(r"\b(?:explicación|razón|razonamiento|justificación) ?: "),
    because=re.compile(r"^(?:porque|ya que|dado que|puesto que) "),
    frames=re.compile(
        rf"(?:(?:según|en|de acuerdo con|con base en|basado en|basándose en) (?:la|esta|las|estas) "
        rf"{_IMAGEN}(?: proporcionada| mostrada)?, )?"
        rf"(?:(?:la|esta) {_IMAGEN}(?: médica)? (?:muestra|es|corresponde a):? "
        r"|(?:se trata de|esto es|esta es|este es|es|son) "
        r"|(?:se (?:observan?|ven?|aprecian?)|hay) )?"
    ),
    tails=re.compile(
        r"(?:(?<!\bno) (?:es visible|se observa|se ve|se aprecia))?"
        rf"(?: en (?:la|esta) {_IMAGEN})?$"
    ),
    copula=re.compile(r"(?:^| )(?:es|son|está|están|fue|se encuentra|se ubica):? "),
    states=re.compile(r"\b(?:es|son|est[áé]n?|hay|se|tienen?|muestran?|contienen?|existen?)\b"),
    article=re.compile(r"^(?:el|la|los|las|una?) (?=\w\w)"),
    place=re.compile(r"^(?:ubicad[oa] |localizad[oa] )?(?:en|dentro de) (?:el |la |los |las )?"),
    joins=re.compile(r" y | e "),
    fillers=_set(
        "el la los las lo un una unos unas es son está están fue era hay ha han se de del en al a "
        "con que esto esta este estas estos eso imagen imágenes foto figura observa observan ve "
        "ven aprecia aprecian visualiza visualizan muestra muestran muestre visible visibles "
        "presente presentes presencia evidencia evidencias signo signos signos alguna algún "
        "algunos tiene tienen contiene contienen existe existen aparece aparecen según puede ver "
        "basado usó usa utilizó utiliza tomar tomada tomó para paciente y"
    ),
    negators=_set("no sin ningún ninguna ausente ausencia nunca tampoco"),
    asks=_set("qué cuál cuáles dónde cuántos cuántas cuánto cómo quién"),
    asking=re.compile(r"[?¿]"),
    there=re.compile(r"\b(?:hay|existen?|presencia|presentes?)\b"),
    counts=re.compile(r"cuánt[oa]s"),
    wheres=re.compile(r"dónde"),
    compares=_set(
        "más menos mínimo máximo hasta casi cerca unos unas sobre mayor mayores menor menores "
        "aproximadamente alrededor"
    ),
    telling=_set(
        "izquierdo izquierda derecho derecha ambos ambas bilateral unilateral superior inferior "
        "medio media anterior posterior medial lateral central pulmón pulmones corazón hígado bazo "
        "riñón riñones cerebro estómago intestino colon recto vejiga esófago tráquea páncreas "
        "hueso huesos costilla costillas columna médula mandíbula laringe duodeno pelvis tórax "
        "abdomen cabeza cuello ojo ojos lóbulo lóbulos hemisferio ventrículo cerebelo aorta "
        "quizás quizá acaso posiblemente posible probablemente probable pero aunque duda dudoso "
        "dudosa incierto seguro segura sospecha descartar descarta descartado descartada error "
        "errado equivocado equivocada equivoqué incorrecto opuesto contrario corrección perdón "
        "rectifico disculpa vez falso negativo positivo cierto verdad correcto"
    ),
)

CHINESE = Words(
    answer="答",
    label=_at_the_start_of_a_sentence(
        r"(?:因此|所以)?[,:]?(?:小组的?|最终|正确)?(?:答案|回答)(?:应该)?(?:[是为] ?:?| ?:) ?"
    ),
    explanation=re.compile(r"(?:解释|原因|理由|说明) ?: ?"),
    because=re.compile(r"^(?:因为|由于)"),
    frames=re.compile(
        r"(?:(?:根据|从|在)?(?:这张|这幅|该|此|所给|提供的|给出的)?(?:医学)?(?:图像|图片|影像|图)"
        r"(?:中|来看|上|里)?, ?)?"
        r"(?:(?:这张|这幅|该|此)?(?:医学)?(?:图像|图片|影像|图)中?(?:所)?(?:显示|展示)的?(?:了|是|为)?"
        r"|(?:这张|这幅|该|此)(?:医学)?(?:图像|图片|影像|图)[是为](?:一张|一幅)?"
        r"|(?:这|此)[是为](?:一张|一幅|一个)?"
        r"|(?:图像|图片|影像|图)中(?:可以看到|可见|有))?"
    ),
    tails=re.compile(r"(?:的?(?:图像|图片|影像))?的?$"),
    copula=re.compile(r"位于|[是为在于呈]"),
    states=re.compile(r"有|是|包含|包括|存在|显示|可见|可以|看到|发现|出现|属于"),
    article=re.compile(r"^(?!)"),
    place=re.compile(r"^(?:位于|在)"),
    joins=re.compile(r"[和与及]"),
    fillers=_set(
        "图像中 图片中 影像中 图中 图像 图片 影像 图上 图里 个 这张 这幅 这个 这里 这 该 此 张 幅 "
        "是否 有没有 是不是 能不能 能否 可不可以 包不包含 包含 包括 含有 存在 显示 展示 可见 "
        "可以看到 可以 看到 看出 观察到 发现 出现 属于 任何 患者 病人 根据 并 能 的 了 吗 嘛 呢 么 "
        "是 有 在 为 中 里 于 呈"
    ),
    negators=_set(
        "没有 沒有 沒 無 不是 不包含 不包括 不存在 不可以 不能 未见 未发现 并非 没 未 不 无 非 否"
    ),
    asks=_set("什么 哪里 哪个 哪些 哪种 哪一个 哪一 哪 多少 几个 几 何处 何种 何 怎么"),
    there=re.compile(r"(?!)"),
    asking=re.compile(r"\?|[吗嗎]$|有没有|有沒有|是否|是不是|能不能|能否"),
    counts=re.compile(r"多少|几个|几"),
    wheres=re.compile(r"哪里|何处|在哪"),
    compares=_set("多 少 大 小 高 低 超 过 约 近 余 以 至"),
    telling=_set(
        "左 右 双 上 下 前 后 内 外 侧 两 肺 心 肝 脾 肾 脑 胃 肠 胆 胰 膀胱 食管 气管 骨 脊 颌 "
        "喉 胸 腹 盆 头 颈 眼 叶 但 可能 或 也许 大概 不确定 不一定 疑 排除 错 錯 误 誤 更正 纠正 "
        "相反 抱歉 不对 其实 应该"
    ),
)

WORDS: dict[Language, Words] = {"en": ENGLISH, "es": SPANISH.unaccented(), "zh": CHINESE}
