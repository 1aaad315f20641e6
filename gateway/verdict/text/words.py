"""The words that `meaning` goes by: tables, by language, and no rules.

A phrase that is not here is part of what an answer says. So a table may be short, and every line
must be certain. Spanish is written here as it should be, and read as it is typed in haste: without
accents.
"""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from gateway.contract import Language
from gateway.verdict.text.spelling import UNACCENTED

YES = {"yes", "yeah", "yep", "true", "correct", "affirmative"}
YES |= {"si", "correcto", "verdadero", "afirmativo"}
YES |= {"是", "是的", "对", "对的", "有", "包含", "包括", "可以", "存在", "能"}
NO = {"no", "nope", "false", "falso"}
NO |= {
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
SO = {"y", "it is", "it does", "they are", "they do", "definitely", "certainly", "absolutely"}
SO |= {"indeed", "of course", "that is correct", "that's correct"}
SO |= {"efectivamente", "por supuesto", "asi es", "lo es", "lo esta", "没错", "确实", "确实如此"}
NOT_SO = {
    "n",
    "not at all",
    "certainly not",
    "definitely not",
    "absolutely not",
    "it is not",
    "it isn't",
    "it's not",
    "there is not",
    "there isn't",
    "it does not",
    "no lo es",
    "no hay",
    "no lo hay",
    "no lo esta",
    "并没有",
    "并不是",
}
# Who asks for what is missing is told no more than that by these.
NOT_SEEN = {
    "未见",
    "未见到",
    "未看到",
    "未发现",
    "没有看到",
    "没有见到",
    "没看到",
    "没见到",
    "看不到",
}
NOT_SEEN |= {"no se aprecia", "no se aprecian", "no se observan", "no se ven"}
THERE = {"present", "positive", "pos", "there is", "there are", "presente", "positivo", "hay"}
THERE |= {"si hay", "si lo hay", "si la hay"}
NOT_THERE = {"absent", "not present", "not seen", "not visible", "none", "none seen", "negative"}
NOT_THERE |= {"neg", "no evidence", "there isn't any", "there aren't any"}
NOT_THERE |= {"ausente", "no se observa", "no se ve", "negativo", "ninguno", "ninguna"}

# Whole answers to a question how many there are; a bare "no" answers another.
NONE = {"none", "nil", "ninguno", "ninguna", "no hay", "no hay ninguno", "no hay ninguna"}
NONE |= {"没", "没有", "无", "不存在", "一个也没有", "一个都没有"}
NONE |= {"图中没有", "图像中没有", "图片中没有"}

# Whole answers in lower case, with spaces for hyphens; the first names the meaning.
SAME = (
    "mri, mr, mri scan, mr scan, mri image, mr image, mr imaging, magnetic resonance, "
    "magnetic resonance imaging, magnetic resonance image, rm, resonancia magnética, "
    "imagen por resonancia magnética, irm, 核磁共振, 磁共振, 核磁共振成像, 磁共振成像, 核磁",
    "ct, ct scan, ct image, cat scan, computed tomography, computed tomography scan, tc, "
    "ct imaging, computed tomography imaging, computerized tomography, computerised tomography, "
    "tac, tomografía computarizada, tomografía computada, tomografía axial computarizada, "
    "计算机断层扫描, 电子计算机断层扫描, 电脑断层, 电脑断层扫描, ct扫描, ct成像",
    "x ray, xray, x rays, x ray film, x ray image, plain film, plain radiograph, radiograph, "
    "x ray imaging, radiography, rx, radiografía, rayos x, x光, x光片, x射线, x线, x线片",
    "ultrasound, us, ultrasound scan, ultrasound image, ultrasound imaging, ultrasonography, "
    "sonography, sonogram, ecografía, ultrasonido, 超声, 超声波",
    "pet, pet scan, positron emission tomography",
    "transverse, transverse plane, transverse section, transverse view, transverse slice, axial, "
    "axial plane, axial section, axial view, axial slice, plano axial, plano transversal, "
    "corte axial, 横断面, 轴位",
    "coronal, coronal plane, coronal section, coronal view, coronal slice, plano coronal, "
    "corte coronal, 冠状面, 冠状位",
    "sagittal, sagittal plane, sagittal section, sagittal view, sagittal slice, plano sagital, "
    "corte sagital, 矢状面, 矢状位",
    "t1, t1 weighted, t1w, t1wi, t1 weighted image, t1 weighted imaging, t1加权, t1加权像",
    "t2, t2 weighted, t2w, t2wi, t2 weighted image, t2 weighted imaging, t2加权, t2加权像",
    "left, left side, left sided, izquierdo, lado izquierdo, 左, 左侧, 左边",
    "right, right side, right sided, derecho, lado derecho, 右, 右侧, 右边",
    "bilateral, bilaterally, both, both sides, left and right, left and right sides, ambos, ambas, "
    "ambos lados, 双侧, 两侧, 左右两侧, 左侧和右侧",
    "both lungs, bilateral lungs, left and right lungs, ambos pulmones, 双肺, 两肺, 双侧肺, "
    "双侧肺部",
    "左肺, 左侧肺, 左肺部, 左侧肺部",
    "右肺, 右侧肺, 右肺部, 右侧肺部",
    "left upper lobe, lul",
    "left lower lobe, lll",
    "right upper lobe, rul",
    "right middle lobe, rml",
    "right lower lobe, rll",
    "肺, 肺部, 肺脏",
    "肝, 肝脏",
    "肾, 肾脏",
    "脾, 脾脏",
    "心脏, 心",
    "normal, unremarkable, within normal limits",
)
# By what a JSON object names its answer, and what else it may hold without saying more.
ANSWERS = {"answer", "final answer", "final_answer", "respuesta", "答案", "回答"}
BESIDE = {"reason", "reasoning", "explanation", "rationale", "justification", "thought", "thoughts"}
BESIDE |= {"confidence", "probability", "score", "explicacion", "razon", "justificacion"}
BESIDE |= {"confianza", "解释", "理由", "原因", "置信度"}
SYNONYMS = {
    phrase.translate(UNACCENTED): line.split(", ")[0]
    for line in SAME
    for phrase in line.split(", ")
}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _at_the_start_of_a_sentence(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|(?<=[\n。,])|(?<=[.!?,] )){pattern}(?=.)")


Forms = tuple[tuple[re.Pattern[str], str], ...]


@dataclass(frozen=True)
class Words:
    """What one language says around an answer. Patterns are met by lower-case text.

    `source` may open an answer with where it was seen; `pictures` call an `image` by its
    modality. `label` (never without the word `answer`) stands before an answer, `explanation`
    before what only explains it, `because` where a sentence turns to that. `frames` may open an
    answer and `tails` close it without adding to it; `copula` parts what was asked from the
    answer, `article` and `place` stand before it. `states` is in a sentence that says that
    something is so. `joins` is what may stand for the last comma of a list; with `in_order` its
    order tells something. `denial` opens what is not there; without more words it is a bare `none`.

    `fillers` and `negators` are words of a sentence: without both, its content is left, of
    which `plural` takes the endings. Of the fillers, `links` tell in a sentence that is held to the
    question which thing is in which, or more than which; what meets `may`, and not `seen`, says
    that something may be so, and what meets `past` that it was. What was `tested` for is there, or
    is not, as the second of such a pair has it. `sums` say no more than the number beside them,
    `single` words count one. `whole` words hold a negation and deny nothing ("肺不张" is there or
    is not), or a filler.
    What is `around` a question asks nothing. One that is `polar` is answered by yes or no, whatever
    kind it is of, and a statement may have it `turned`, as the second of such a pair has its parts.
    `asks` are a question's words for what is not known, `placed` those with which it asks where
    something lies, `either` parts the things that it names, `whether` is in no statement.
    What meets `asking` only asks, a question that meets `there` asks
    whether something is, one that meets `sides` for a side, of which `initials` are the letters;
    what meets `found` says or asks whether something is in the picture, what meets `of_it` says
    more of that very thing. A question that meets the first of a pair of `echoes`, or of `chooses`,
    is answered by the second, which has its groups: with what denies it in a group, or the side. By
    `greater` words two things are compared, `degrees` tell how large, grave or old one is. With one
    of `compares` an answer is no mere number: up to 4 are not 4. `telling` words never go with an
    explanation: sides, organs, doubts, and what takes an answer back; those of `states_of_it` may
    where the question has them.
    """

    language: Language
    source: re.Pattern[str]
    pictures: re.Pattern[str]
    image: str
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
    either: re.Pattern[str]
    in_order: re.Pattern[str]
    denial: re.Pattern[str]
    none: str
    fillers: Set[str]
    negators: Set[str]
    plural: re.Pattern[str]
    sums: Set[str]
    single: Set[str]
    around: re.Pattern[str]
    polar: re.Pattern[str]
    turned: Forms
    states_of_it: Set[str]
    links: Mapping[str, str]
    may: re.Pattern[str]
    past: re.Pattern[str]
    seen: re.Pattern[str]
    tested: Forms
    asks: Set[str]
    placed: Set[str]
    whether: re.Pattern[str]
    asking: re.Pattern[str]
    there: re.Pattern[str]
    found: re.Pattern[str]
    of_it: re.Pattern[str]
    echoes: Forms
    chooses: Forms
    greater: Set[str]
    degrees: Set[str]
    counts: re.Pattern[str]
    wheres: re.Pattern[str]
    sides: re.Pattern[str]
    initials: Mapping[str, str]
    compares: Set[str]
    telling: Set[str]
    whole: Set[str] = frozenset()

    def unaccented(self) -> "Words":
        return replace(self, **{name: _unaccented(value) for name, value in vars(self).items()})


def _unaccented(value: Any) -> Any:
    if isinstance(value, re.Pattern):
        return re.compile(value.pattern.translate(UNACCENTED), value.flags)
    if isinstance(value, str):
        return value.translate(UNACCENTED)
    if isinstance(value, dict):
        return value
    if isinstance(value, tuple):
        return tuple(map(_unaccented, value))
    return frozenset(map(_unaccented, value))


_IMAGE = r"(?:image|picture|photo|photograph|figure|scan)s?"
_IN_IMAGE = rf"(?:in|on) (?:the|this|these) (?:given |provided |medical )*{_IMAGE}"
_OF = r"(?:the |this |these |given |provided |above |medical )+"
_XRAY = (
    r"(?:(?:chest|abdominal|abdomen|brain|head|pelvic|frontal|pa|ap|axial|coronal|sagittal) )*"
    r"(?:x[ -]?ray|radiograph|ct|mri|mr|ultrasound)(?: (?:image|scan|slice|film))?"
)
_IMAGEN = r"(?:imagen|imágenes|foto|fotografía|figura)"
_EN_IMAGEN = rf"en (?:la|esta) {_IMAGEN}"
_RADIOGRAFIA = (
    r"(?:radiografía|placa|tomografía|tc|resonancia(?: magnética)?|rm|ecografía)"
    r"(?: (?:de tórax|torácica|de abdomen|abdominal|de cráneo|cerebral))?"
)
_DE = r"(?:这张|这幅|该|此|所给|提供的|给出的)?"
_CT = (
    r"(?:胸部|头部|腹部|脑部)?(?:胸片|ct|mri|核磁共振|磁共振|x[光线]|超声)"
    r"(?:图像|图片|影像|片|扫描)?"
)
_TU = r"(?:图像|图片|影像|图)"

_ASKS = r"(?:is|are|was|were|do|does|did|has|have|can|could|will|would|should)"

# What may be said of the question itself ("It is not clear"), a preposition, or a side.
_PLAIN = (
    r"(?!(?:un)?(?:clear|certain|sure|known|likely|usual)\b|(?:im)?possible\b|probable\b|evident\b|"
    r"obvious\b|correct\b|true\b|false\b|right\b|left\b|in\b|on\b|of\b|a\b|an\b)"
)
_CLARO = (
    r"(?!(?:in)?(?:seguro|cierto)|clar[oa]|(?:im)?posible|(?:im)?probable|evidente|obvi[oa]|correct[oa]|"
    r"verdad|fals[oa]|izquierd|derech|en\b|el\b|la\b|una?\b)"
)

# In what state a thing is, or was.
_STATES = _set(
    "drained healed resected removed gone cleared benign malignant "
    "confidence certainty artifact artefact"
)
_ESTADOS = _set(
    "drenado drenada curado curada consolidada extirpado extirpada resecado resecada benigno "
    "benigna maligno maligna certeza confianza artefacto"
)
_ZHUANGTAI = _set("愈合 吸收 抽出 切除 消失 消退 良性 恶性 置信 伪影")

ENGLISH = Words(
    language="en",
    source=re.compile(
        rf"^(?:based on|according to|judging (?:from|by)|from|in|on) {_OF}{_IMAGE}"
        r"(?: provided| shown| above)?,? (?:(?<=, )|(?=there |it |i |we |no ))"
    ),
    pictures=re.compile(
        rf"(?:^|(?<=[,.] )){_OF}{_XRAY}(?= (?:does not |doesn't )?"
        r"(?:shows?|depicts?|displays?|demonstrates?|reveals?|contains?)\b)"
        rf"|(?:(?<=\bon )|(?<=\bin )|(?<=\bto )|(?<=\bfrom )){_OF}{_XRAY}(?=$|[.,;]| there )"
    ),
    image="the image",
    answer="answer",
    label=_at_the_start_of_a_sentence(
        r"(?:(?:therefore|thus|so|hence),? )?(?:the |my )?(?:panel's )?"
        r"(?:final |correct |short |best )?answer(?: to (?:the|this|your) question)?"
        r"(?: is\b ?:?| ?:|\n) ?"
    ),
    explanation=re.compile(r"\b(?:explanation|reason|reasoning|rationale|justification) ?: "),
    because=re.compile(r"^(?:because|since|as evidenced by|as (?:it|the|this|there)) "),
    frames=re.compile(
        r"(?:the panel decided:? |(?:the )?(?:panel's )?decision(?: is\b)?:? "
        rf"|(?:the|this|these) (?:given |provided |above |medical )*{_IMAGE} "
        r"(?:shows?|depicts?|displays?|demonstrates?|reveals?|contains?|"
        r"(?:is|are|appears? to be)(?! (?:not|absent|present|visible|shown|seen)\b))"
        r"(?: that)?:? (?:an? (?:image|picture|view|slice) of )?"
        r"|(?:it|this|that|these|they)(?:'s| is| are| appears? to be) "
        r"|there(?:'s| is| are) |(?:i|we|you) (?:can )?see |(?:the |this )?patient has )?"
    ),
    tails=re.compile(
        r" (?:(?:is|are)(?: clearly)? (?:seen|visible|shown|present|depicted|displayed|observed)"
        rf"(?: {_IN_IMAGE})?|{_IN_IMAGE})$"
    ),
    copula=re.compile(
        r"(?: is| are| was| were| appears? to be| can be (?:seen|found)| lies?)"
        r"(?: (?:taken|acquired|obtained|captured|made) (?:using|with|by))?:? |(?<=\w\w): "
        r"|(?:^| )measures? "
    ),
    states=re.compile(
        r"\b(?:is|are|was|were|has|have|do|does|there|appears?|shows?|contains?|see|seen|visible|"
        r"present|demonstrates?|depicts?|includes?|exists?|belongs?|uses?)\b"
    ),
    article=re.compile(r"^(?:the|an?) (?=\w[\w°-])"),
    place=re.compile(
        r"^(?:(?:located|found|seen|situated|present|visible|noted|observed|identified) )?"
        r"(?:in|on|at|within) (?:the )?"
    ),
    joins=re.compile(r" and | & "),
    either=re.compile(r", or |, | or "),
    in_order=re.compile(
        r"\b(?:respective(?:ly)?|each|order(?:ed)?|rank(?:ed)?|sort(?:ed)?|first|then|before|"
        r"(?:a|de)scending|(?:in|de)creasing (?:order|size)|starting|beginning|sequence|"
        r"(?:counter)?clockwise|top down|by (?:\w+ )?size|(?:most|least) .{1,40}\bto)\b"
        r"|\bfrom\b.{1,80}\bto\b"
        r"|(?:\b(?:left|right|top|bottom|superior|inferior|anterior|posterior|medial|lateral|"
        r"proximal|distal)|\w+est) to "
    ),
    denial=re.compile(r"^no (?:evidence|signs?) of (?:an? |any )?(?=\w)"),
    none="no ",
    fillers=_set(
        "the a an is are was were be been being do does did has have had can it its this that "
        "these those there here they i we you in of on at to with any some image images picture "
        "pictures photo figure scan provided given based according shown show shows showing seen "
        "see visible present presence observed noted found identified detected demonstrate "
        "demonstrated demonstrates depict depicts depicted evident "
        "appear appears imaging contain contains containing include "
        "includes exist exists evidence sign signs used using use taken take made obtained "
        "acquired captured belong belongs patient patient's s so and"
    ),
    negators=_set("no not without absent absence none never"),
    plural=re.compile(r"(?:(?<=[^s])s|(?<=s)(?:es?|is)|(?<=x|z)es|(?<=[cs]h)es)$"),
    sums=_set("number total only just exactly precisely altogether"),
    single=_set("a an single"),
    around=re.compile(
        rf"^(?:based on|according to|from|in|on) {_OF}{_IMAGE}(?: provided| shown| above)?, (?=\w)"
        r"|[.;,]? ?\(?(?:please )?(?:answer|respond|reply)(?: only| just)?(?: with| by)?:? "
        r"yes or no(?: only)?\)?\.?$|,? or not(?=\?|$)|(?: ?[-–]| ?\()? ?yes ?/ ?no\)?\.?$"
    ),
    polar=re.compile(r"(?:any|(?:any )?(?:evidence|signs?|presence) of)\b"),
    turned=(),
    links=dict.fromkeys(_set("in on at of within inside"), "in") | {"to": "to", "and": "and"},
    may=re.compile(r"\bcan(?:not|'t)?\b"),
    past=re.compile(r"\b(?:there (?:was|were|ha(?:s|ve) been)|(?:was|were|ha(?:s|ve)) there)\b"),
    seen=re.compile(
        r"\b(?:seen?|visible|found|identif|observed|detected|visuali[sz]|appreciated|noted)"
    ),
    tested=(
        (re.compile(r"\bnegative for\b"), "no"),
        (re.compile(r"\bpositive for\b"), "there is"),
    ),
    asks=_set("what which where how many who whose why when"),
    placed=_set("located location situated position lie site"),
    whether=re.compile(r"(?!)"),
    asking=re.compile(
        rf"\?|^(?:so |and )?{_ASKS}\b"
        rf"|, {_ASKS}(?:n't| not)? (?:it|there|they|this|that|he|she)(?: not)?$"  # isn't there
    ),
    there=re.compile(r"^(?:is|are|was|were) there\b|\bpresent\b(?! (?:stud|exam|image|scan))"),
    found=re.compile(
        r"\b(?:there|present|visible|seen?|shown|noted|found|observed|"
        r"identified|detected|demonstrated|depicted|evident|exists?|remains?|"
        r"(?:shows?|contains?|reveals?|demonstrates?|depicts?|displays?|has|have)"
        r"(?! (?:an? |the )?(?:normal|clear|healthy)))\b"
    ),
    counts=re.compile(r"how many|number of"),
    of_it=re.compile(r"^(?:it|this|that|they|these|those|which|here)\b"),
    echoes=(
        (
            re.compile(rf"(?:is|was) the (?:left |right )?[a-z-]+ (?P<what>{_PLAIN}[a-z-]+)\??"),
            r"(?:it(?:'s| is| was| appears) )?(not )?{what}|it (?:is|was)(n't) {what}",
        ),
        (
            re.compile(rf"(?:are|were) the (?:left |right )?[a-z-]+ (?P<what>{_PLAIN}[a-z-]+)\??"),
            r"(?:they(?:'re| are| were) )?(not )?{what}|they (?:are|were)(n't) {what}",
        ),
    ),
    chooses=(
        (
            re.compile(
                r"(?P<is>is|are) the (?:left or (?:the )?right|right or (?:the )?left) "
                r"(?P<thing>[a-z]+) (?P<what>[a-z]+)\?"
            ),
            r"(?:the )?(left|right)(?: {thing})?(?: {is} {what})?",
        ),
        (
            re.compile(
                r".+ (?:in|on) the (?:left or (?:(?:in )?the )?right"
                r"|right or (?:(?:in )?the )?left) (?P<thing>(?!of\b|side\b)[a-z]+)\?"
            ),
            r"(?:it is |it's )?(?:in )?(?:the )?(left|right)(?: {thing})?",
        ),
    ),
    greater=_set("larger bigger smaller longer shorter thicker thinner wider brighter darker"),
    degrees=_set(
        "mild moderate severe slight minimal marked trace tiny small large big huge diffuse focal "
        "acute subacute chronic old new recent early late benign malignant"
    ),
    wheres=re.compile(r"where\b"),
    sides=re.compile(r"(?:which|what) side"),
    initials={"l": "left", "r": "right"},
    compares=_set(
        "some more less fewer least most over under above below about around approximately almost "
        "nearly up than greater larger smaller"
    ),
    states_of_it=_STATES,
    telling=_STATES
    | _set(
        "left right both bilateral unilateral upper lower middle superior inferior anterior "
        "posterior medial lateral central peripheral apical basal top bottom center "
        "proximal distal ipsilateral contralateral superficial deep internal external ventral "
        "dorsal inner outer lung lungs heart liver spleen kidney kidneys brain stomach bowel "
        "intestine colon rectum bladder esophagus trachea bronchus pancreas gallbladder bone "
        "bones rib ribs spine spinal cord mandible larynx duodenum pelvis chest abdomen head neck "
        "eye eyes lobe lobes hemisphere ventricle ventricles cerebellum brainstem aorta "
        "mediastinum hilum pleura breast uterus ovary prostate thyroid adrenal skull ileum ilium "
        "jejunum cecum appendix ureter urethra hip knee ankle foot shoulder elbow wrist hand "
        "thalamus hypothalamus cervix vagina frontal temporal parietal occipital patella "
        "calcaneus talus sternum pericardium peritoneum tonsil femur tibia fibula humerus radius "
        "ulna clavicle scapula sacrum carotid parotid peroneal "
        "perineal maybe possibly perhaps unclear uncertain cannot however but although though "
        "probably probable likely unlikely unsure sure might may could suspected suspicious "
        "suspect equivocal indeterminate inconclusive questionable ambiguous nondiagnostic "
        "doubt doubtful exclude excluded ruled wrong opposite "
        "contrary mistaken mistake incorrect untrue sorry correction corrected actually apologies "
        "apologize error reverse instead rather wait apparently presumably otherwise retract "
        "negative positive true false correct formerly previously resolved resolving disappeared"
    ),
)

SPANISH = Words(
    language="es",
    source=re.compile(
        rf"^(?:según|en|de acuerdo con|con base en|basado en|basándo(?:se|me|nos) en) "
        rf"(?:la|esta|las|estas) {_IMAGEN}(?: proporcionada| mostrada)?,? "
        r"(?:(?<=, )|(?=no |se |hay ))"
    ),
    pictures=re.compile(
        rf"(?:^|(?<=[,.] ))(?:la|esta) {_RADIOGRAFIA}(?= (?:no )?(?:muestra|evidencia|revela)\b)"
        rf"|(?:(?<=\ben )|(?<=\bcon )|(?<=^según ))(?:la|esta) {_RADIOGRAFIA}"
        r"(?=$|[.,;]| (?:no|se|hay) )"
    ),
    image="la imagen",
    answer="respuesta",
    label=_at_the_start_of_a_sentence(
        r"(?:(?:por lo tanto|por tanto|así que),? )?(?:la )?"
        r"respuesta(?: final| correcta| corta| del panel)*(?: es\b ?:?| ?:) ?"
    ),
    explanation=re.compile(r"\b(?:explicación|razón|razonamiento|justificación) ?: "),
    because=re.compile(r"^(?:porque|ya que|dado que|puesto que) "),
    frames=re.compile(
        rf"(?:(?:la|esta) {_IMAGEN}(?: médica)? (?:muestra|es|corresponde a):? "
        r"|(?:se trata de|esto es|esta es|este es|es|son) "
        r"|(?:se (?:observan?|ven?|aprecian?)|hay(?! que\b)|(?:el|la) paciente tiene) )?"
    ),
    tails=re.compile(
        r" (?:(?<!\bno )(?:es visible|se observa|se ve|se aprecia)"
        rf"(?: {_EN_IMAGEN})?|{_EN_IMAGEN})$"
    ),
    copula=re.compile(
        r"(?:(?:^| )(?:es|son|está|están|se (?:encuentra|ubica|localiza|observa|ve)|mide)"
        r"|(?<=\w) fue):? "
        r"|(?<=\w\w): "
    ),
    states=re.compile(
        r"\b(?:es|son|est[áé]n?|hay|se|tienen?|muestran?|contienen?|existen?|presentan?|presentes?)\b"
    ),
    article=re.compile(r"^(?:el|la|los|las|una?) (?=\w[\w°])"),
    place=re.compile(r"^(?:ubicad[oa] |localizad[oa] )?(?:en|a|dentro de) (?:el |la |los |las )?"),
    joins=re.compile(r" y | e "),
    either=re.compile(r", | [ou] "),
    in_order=re.compile(
        r"\b(?:respectiv(?:o|a|os|as|amente)|cada|orden(?:e|ad[oa]s?)?|ordénel[oa]s|primer[oa]?|"
        r"luego|después|desde|(?:a|de)scendente|(?:de)?creciente|empezando|comenzando|secuencia|horario|"
        r"por tamaño)\b|\bdel? (?:\w+ ){1,3}al? "
    ),
    denial=re.compile(
        r"^(?:no (?:hay|existen?|se (?:observan?|ven?|aprecian?|identifican?))|sin)"
        r"(?: (?:evidencia|signos?) de)? (?=\w)"
    ),
    none="sin ",
    fillers=_set(
        "el la los las lo un una unos unas es son está están fue era hay ha han se de del en al a "
        "con que esto esta este estas estos eso imagen imágenes foto figura observa observan ve "
        "ven aprecia aprecian visualiza visualizan detecta detectan identifica identifican "
        "muestra muestran muestre visible visibles presente presentes presencia evidencia "
        "evidencias signo signos signos alguna algún algunos tiene tienen contiene contienen "
        "existe existen aparece aparecen presenta presentan según puede ver basado usó usa utilizó "
        "utiliza tomar tomada tomó utilizada utilizado usada usado para paciente y"
    ),
    negators=_set("no sin ningún ninguno ninguna ausente ausencia nunca tampoco"),
    plural=re.compile(r"(?:(?<=[aeiou])s|(?<=[^aeiou])es?)$"),
    sums=_set("número total sólo solamente únicamente exactamente"),
    single=_set("un una solo sola"),
    around=re.compile(
        rf"^(?:según|en) (?:la|esta|las|estas) {_IMAGEN}(?: proporcionada| mostrada)?, (?=[¿\w])"
        r"|[.;,]? ?\(?(?:responde|responda|contesta|conteste)(?: solo| con| únicamente)*:? s[ií] o "
        r"no\)?\.?$|,? (?:¿?s[ií] )?o no(?=\?|$)|(?: ?[-–]| ?\()? ?s[ií] ?/ ?no\)?\.?$"
    ),
    polar=re.compile(
        r"¿?(?:(?:contiene|presenta|pertenece|aparece|incluye)n?\b"
        r"|(?!.*\b(?:qué|cuál|cuánt|dónde|cómo))(?:el|la|los|las) [^?]+? "
        r"(?:es|son|está|están|tienen?|muestran?|contienen?) (?=\w))"
    ),
    turned=(
        (
            re.compile(
                r"¿?(?:es|son|está|están) (?P<what>(?!(?:el|la|los|las)\b)[^?]{1,40}?) "
                r"(?P<thing>(?:el|la|los|las) [^?]{1,60}?)(?P<than> (?:que|en|a|al) [^?]{1,60})?\??"
            ),
            "{thing} {what}{than}",
        ),
        (
            re.compile(
                r"¿?(?:es|son|está|están) "
                r"(?P<thing>(?:el|la|los|las) \w+(?: (?:izquierd|derech)\w+)?) "
                r"(?P<what>[^?]{1,60}?)(?P<than> (?:que|en|a|al) [^?]{1,60})?\??"
            ),
            "{what} {thing}{than}",
        ),
        (
            re.compile(
                r"¿?(?:hay|existen?|se (?:observa|ve|aprecia)n?) (?P<thing>[^?]{1,40}?) en "
                r"(?P<where>(?:el|la|los|las) (?!imagen)[^?]{1,40}?)"
                r"(?: en (?:la|esta) (?:imagen|foto))?\??"
            ),
            "{where} {thing}",
        ),
        (
            re.compile(
                r"¿?(?:se )?pueden? (?P<what>\w+) (?P<thing>(?:el|la|los|las) [^?]{1,60}?)\??"
            ),
            "{thing} {what}",
        ),
    ),
    links={"en": "en", "de": "en", "del": "en", "a": "a", "al": "a", "que": "que", "y": "y"},
    may=re.compile(r"\bpueden?\b"),
    past=re.compile(r"(?!)"),
    seen=re.compile(
        r"\b(?:ver|observar|apreciar|identificar|visualizar|detectar|distinguir|encontrar)"
    ),
    tested=(
        (re.compile(r"\bnegativ[oa]s? para\b"), "no hay"),
        (re.compile(r"\bpositiv[oa]s? para\b"), "hay"),
    ),
    asks=_set("qué cuál cuáles dónde cuántos cuántas cuánto cómo quién"),
    placed=_set(
        "encuentra ubica localiza sitúa ubicado ubicada localizado localizada situado situada "
        "ubicación localización posición"
    ),
    whether=re.compile(r"(?!)"),
    asking=re.compile(r"[?¿]|, (?:no es (?:así|cierto|verdad)|no crees?|verdad|cierto)$"),
    there=re.compile(r"\b(?:hay|existen?|presencia|presentes?)\b"),
    found=re.compile(
        r"\b(?:hay|existen?|presencia|presentes?|visibles?|quedan?|persisten?"
        r"|se (?:puede |pueden )?(?:observ|v[ei]|aprecia|identific|visualiz|detect|encuentra|nota)"
        r"|(?:muestran?|contienen?|tienen?|presentan?|revelan?|evidencian?)\b"
        r"(?! (?:una? |el |la )?(?:\w+ )?normal))"
    ),
    counts=re.compile(r"cuánt[oa]s"),
    of_it=re.compile(
        r"^(?:ya )?(?:es|son|está|están|estaba|era|fue|ha|han|había|mide|tiene|parece|est[aeo]s?"
        r"|eso|se (?!(?:observ|v[ei]|aprecia|identific|visualiz|detect|evidenci|muestra)\w*)\w+)\b"
    ),
    echoes=(
        (
            re.compile(
                rf"¿?(?P<is>es|son|está|están) (?P<what>{_CLARO}[a-zñ]+) (?:el|la|los|las) [a-zñ]+"
                r"(?: izquierdo| derecho)?\??"
            ),
            r"(no )?(?:{is} )?{what}",
        ),
        (
            re.compile(
                r"¿?(?P<is>es|son|está|están) (?:el|la|los|las) [a-zñ]+(?: izquierdo| derecho)? "
                rf"(?P<what>{_CLARO}[a-zñ]+)\??"
            ),
            r"(no )?(?:{is} )?{what}",
        ),
    ),
    chooses=(
        (
            re.compile(
                r"¿?(?P<is>es|está) (?P<what>[a-zñ]+) (?:el|la) (?P<thing>[a-zñ]+) (?:izquierdo o "
                r"(?:el |la )?derecho|derecho o (?:el |la )?izquierdo)\?"
            ),
            r"(?:el |la )?(?:{thing} )?(izquierdo|derecho)(?: {is} {what})?",
        ),
    ),
    greater=_set("mayor menor"),
    degrees=_set(
        "leve leves moderado moderada severo severa grave graves mínimo mínima pequeño pequeña "
        "grande grandes agudo aguda subagudo subaguda crónico crónica antiguo antigua nuevo nueva "
        "reciente difuso difusa focal benigno benigna maligno maligna"
    ),
    wheres=re.compile(r"dónde"),
    sides=re.compile(r"qué lado"),
    initials={"i": "izquierdo", "d": "derecho"},
    compares=_set(
        "algunos algunas más menos mínimo máximo hasta casi cerca unos unas sobre mayor mayores "
        "menor menores aproximadamente alrededor"
    ),
    states_of_it=_ESTADOS,
    telling=_ESTADOS
    | _set(
        "izquierdo izquierda derecho derecha ambos ambas bilateral unilateral superior inferior "
        "medio media anterior posterior medial lateral central proximal distal interno interna "
        "externo externa superficial profundo profunda ventral dorsal pulmón pulmones corazón "
        "hígado bazo riñón riñones cerebro estómago intestino colon recto vejiga esófago tráquea "
        "páncreas hueso huesos costilla costillas columna médula mandíbula laringe duodeno pelvis "
        "tórax abdomen cabeza cuello ojo ojos lóbulo lóbulos hemisferio ventrículo cerebelo aorta "
        "íleon ilion yeyuno ciego apéndice uréter uretra cadera rodilla tobillo pie hombro codo "
        "muñeca mano fémur tibia peroné húmero radio cúbito clavícula escápula sacro próstata "
        "tálamo frontal temporal parietal occipital rótula calcáneo vesícula "
        "esternón útero ovario mama tiroides quizás quizá acaso "
        "posiblemente posible probablemente "
        "probable pero aunque duda dudoso dudosa cuestionable ambiguo inconcluyente incierto "
        "seguro segura sospecha descartar "
        "descarta descartado descartada error errado equivocado equivocada equivoqué incorrecto "
        "opuesto contrario corrección perdón rectifico disculpa vez falso negativo positivo "
        "cierto verdad correcto antes previamente anteriormente resolvió resuelto resuelta "
        "desapareció desaparecido"
    ),
)

CHINESE = Words(
    language="zh",
    source=re.compile(rf"^(?:根据|从|在)?{_DE}(?:医学)?{_TU}(?:中|中?来?看|上|里|可知|所示)?, ?"),
    pictures=re.compile(
        rf"(?:^|(?<=[,。])){_DE}{_CT}(?=[中上]?(?:未|没有)?(?:显示|可见|提示))"
        rf"|(?:(?<=^根据)|(?<=^从)|(?<=^在)){_DE}{_CT}(?=中?上?里?(?:来看|可知|所示)?,)"
    ),
    image="图像",
    answer="答",
    label=_at_the_start_of_a_sentence(
        r"(?:因此|所以)?[,:]?(?:小组的?|最终|正确)?"
        r"(?:(?:答案|回答)(?:应该)?(?:[是为] ?:?| ?:)|答 ?:) ?"
    ),
    explanation=re.compile(r"(?:解释|原因|理由|说明) ?: ?"),
    because=re.compile(r"^(?:因为|由于)"),
    frames=re.compile(
        r"(?:(?:这张|这幅|该|此)?(?:医学)?(?:图像|图片|影像|图)中?(?:所)?(?:显示|展示)的?(?:了|是|为)?"
        r"|(?:这张|这幅|该|此)(?:医学)?(?:图像|图片|影像|图)[是为](?:一张|一幅)?"
        r"|(?:这|此)[是为](?:一张|一幅|一个)?"
        r"|(?:图像|图片|影像|图)中(?:可以看到|可见|有))?"
    ),
    # "没有图片" denies the picture itself, "一张图片" counts it.
    tails=re.compile(r"(?:(?<![没有无未见到张幅个])的?(?:图像|图片|影像))?的?$"),
    copula=re.compile(r"位于|是(?!的)|[为在于呈]|(?<=[\u3400-\u9fff]):"),
    states=re.compile(r"有|是|包含|包括|存在|显示|可见|可以|看到|发现|出现|属于"),
    article=re.compile(r"^(?!)"),
    place=re.compile(r"^(?:位于|在)"),
    joins=re.compile(r"[和与及]"),
    either=re.compile(r"[,、]? ?(?:还是|或者?)|[,、]"),
    in_order=re.compile(
        r"分别|各(?!种|类)|每|依次|顺序|次序|排序|排列|首先|先后|按.{1,10}列|顺时针|逆时针|由.{1,30}[到至]|从.{1,30}(?:(?<![看见观得找])到|至)"
    ),
    denial=re.compile(r"^(?:没有|未见到?|未发现|无)(?=\w)"),
    none="无",
    fillers=_set(
        "图像中 图片中 影像中 图中 图像 图片 影像 图上 图里 个 这张 这幅 这个 这里 这 该 此 张 幅 "
        "是否 有没有 是不是 能不能 能否 可不可以 包不包含 包含 包括 含有 存在 显示 展示 可见 "
        "可以看到 可以 看到 见到 看出 观察到 发现 出现 属于 任何 迹象 证据 患者 病人 根据 并 能 "
        "的 "
        "了 位于 吗 嘛 呢 么 是 有 在 为 中 里 于 呈"
    ),
    negators=_set(
        "没有 不是 不包含 不包括 不存在 不可以 不能 未见 未见到 未发现 并非 没 未 不 无 非 否"
    ),
    plural=re.compile(r"(?!)"),
    sums=_set("数量 数目 总数 一共 总共 共 合计 颗 枚 处 只 仅 块 片 条 根 名 例"),
    single=frozenset(),
    around=re.compile(
        r"[,。?;]? ?请?(?:只|仅)?(?:需)?(?:回答|用)[“\"']?是[”\"']?(?:或|还是|/)"
        r"[“\"']?(?:否|不是)[”\"']?(?:来?回答|作答)?。?$"
    ),
    polar=re.compile(r"(?!)"),
    turned=(),
    links={"在": "在", "位于": "在", "于": "在"},
    may=re.compile(r"可以|(?<!功)能(?!量)"),
    past=re.compile(r"(?!)"),
    seen=re.compile(r"[看见观]|发现"),
    tested=(),
    asks=_set(
        "什么 哪里 哪个 哪些 哪种 哪一个 哪一 哪 多少 多大 多长 多宽 几个 几 何处 何种 何 怎么"
    ),
    placed=_set("位置 部位"),
    whether=re.compile(r"是否|是不是"),
    there=re.compile(r"(?!)"),
    found=re.compile(r"有|存在|可见|见到|看到|发现|出现|显示(?!.{0,30}(?:正常|清晰|清楚))"),
    asking=re.compile(r"\?|[吗吧]$|有没有|有无|是否|是不是|能不能|能否"),
    counts=re.compile(r"多少|几个|几"),
    of_it=re.compile(r"^(?:它|其|这|该|此|是|为|呈|位于|属于|[现曾]?[已曾]|以前|过去|原来)"),
    echoes=(
        (
            re.compile(
                r"(?:图中|图像中|图片中)?的?[\u3400-\u9fff]{1,4}?(?:是否|是不是)?"
                r"(?P<what>正常|异常|增大|肿大|对称|大|小)了?[吗呢]?\??"
            ),
            r"(不|没有?|未)?{what}了?",
        ),
        # What a thing is said to be, or to have done; not what there is: "是否有肺不张".
        (
            re.compile(
                r"[\u3400-\u9fff]{0,12}?是否(?:[为是]|属于)?"
                r"(?P<what>(?!.*(?:有|存在|见|含|包括|显示|出现|发现|看|可能|[或和与及且疑]))"
                r"[\u3400-\u9fff]{2,8}?)了?\??"
            ),
            r"(?:这是?|图[像片]显示)?(不|没有?|未|无|不是|并非)?[是为]?{what}了?的?",
        ),
    ),
    chooses=(),
    greater=frozenset(),
    degrees=frozenset("轻中重度大小巨急慢性新旧良恶"),
    wheres=re.compile(r"哪里|何处|在哪"),
    sides=re.compile(r"哪一?[侧边]"),
    initials={"l": "左", "r": "右"},
    compares=_set("多 少 大 小 高 低 超 过 约 近 余 以 至"),
    # Of a word that also answers whether something is so ("不典型", "不均匀"), none.
    whole=_set(
        "不良 不张 不孕 不育 骨不连 关闭不全 闭合不全 功能不全 发育不全 不全性 不全流产 不完全性 "
        "不稳定型 不明原因 不典型增生 非典型增生 非典型肺炎 非典型性 非小细胞 非霍奇金 非何杰金 "
        "非特异 非酒精 非结核 非淋菌性 无名动脉 无名静脉 无菌性 无脑 无精 无汗症 无色素 未分化 "
        "成骨不全 不宁腿 不典型痣 非典型痣 中脑 中耳 中叶"
    ),
    states_of_it=_ZHUANGTAI,
    telling=_ZHUANGTAI
    | _set(
        "左 右 双 上 下 前 后 内 外 侧 两 肺 心 肝 脾 肾 脑 胃 肠 胆 胰 膀胱 食管 气管 骨 脊 颌 "
        "甲状 额 颞 顶叶 枕 丘脑 乳腺 子宫 前列腺 髌 喉 胸 腹 盆 头 颈 眼 叶 但 "
        "可能 或 也许 大概 存疑 不明确 不确定 不一定 疑 排除 错 误 更正 "
        "纠正 相反 抱歉 不对 其实 应该"
    ),
)

WORDS: dict[Language, Words] = {"en": ENGLISH, "es": SPANISH.unaccented(), "zh": CHINESE}
