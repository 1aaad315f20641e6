"""Whether a model says that it will not answer, or cannot: then it has no vote.

What may be an answer is one: "I cannot see an effusion" denies it, "unclear" and "不清楚" may tell
of an edge, "unknown" of a cause, "indeterminate" of a lesion. And who does not know, or must not
diagnose, but says what it may be, has said so: "I'm not sure, but it may be edema". Who goes on
with nothing but advice has not: "I cannot answer, but please consult a doctor". That there is no
image answers nothing that is asked about it, and neither does it to ask for one, or for a doctor.
"""

import re


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


# What leads to a refusal or a doubt, and is none.
EXCUSE = _compiled(
    r"(?:(?:i(?:'m| am) (?:very |so )?sorry|sorry|(?:i )?apologi[sz]e|my apologies|unfortunately|"
    r"lo siento|lo lamento|disculp[ae]|perd[oó]n|lamentablemente)\b[,.;]?\s?(?:but |pero )?"
    r"|(?:很?抱歉|对不起)[,，。]?但?)?"
    r"(?:(?:as|i(?:'m| am)(?: just| only)?) an? (?:ai|artificial intelligence|(?:large )?language "
    r"model)\b(?: (?!i\b)[\w-]+){0,6}?(?:[,.;]\s?|\s(?:and |so )?(?=i\b)|$)"
    r"|como (?:una? )?(?:ia|inteligencia artificial|modelo de lenguaje)\b(?: (?!no\b)\w+){0,6}?"
    r"(?:[,.;]\s?|\s(?=no\b)|$)"
    r"|作为(?:一个|一名)?(?:ai|人工智能)[^，,。我无不]{0,10}[，,]?)?"
)
_CANNOT = (
    r"(?:cannot|can't|can not|(?:unable|not able|not qualified|not allowed) to|"
    r"(?:(?:do not|don't) have|lack) the ability to)"
)
_I = r"i(?:'m| am)? "
_ASSISTING = (
    r"help|assist|provide|offer|give|answer|comply|diagnose|interpret|analy[sz]e|view|process"
)
_THE_IMAGE = (
    r"(?:the |this |any |your |that |an? )?(?:medical )?"
    r"(?:images?|pictures?|x-?rays?|scans?|radiographs?)"
)
_NOT_SEEN = r"(?:be able to )?(?:see|find|detect|observe|identify|exclude|think|believe)\b"
# Whatever it is that one cannot do; what is not to be seen in an image is told.
REFUSES = _compiled(
    rf"{_I}{_CANNOT} (?:(?:{_ASSISTING})\b|(?:see|access|open) {_THE_IMAGE}\b)"
    rf"|{_I}(?:do not|don't) (?:have access to {_THE_IMAGE}\b|see {_THE_IMAGE}$)"
    r"|no (?:puedo|me es posible|soy capaz de) (?:ayudar|ofrecer|dar|proporcionar|diagnosticar|"
    r"interpretar|analizar|hacer un|emitir|ver (?:las? )?im[aá]gen)\w*"
    r"|我?(?:无法|不能|没有办法)(?:[为给][你您])?(?:提供|给出|[做作]出|进行|诊断|帮助|协助|"
    r"(?:查看|看到|看见|打开|访问|读取|分析)[^,，;；。]{0,4}(?:图像|图片|影像)(?![中里上内的]))"
)
# Behind an excuse.
REFUSES_EXCUSED = _compiled(
    rf"(?:i|we) (?:{_CANNOT}|am (?:not|unable)|do not|don't|must decline|won't|will not)\b"
    rf"(?! {_NOT_SEEN}(?! {_THE_IMAGE}\b))"
    r"|i'm (?:not|unable)\b|it(?:'s| is| would be) (?:not (?:possible|appropriate)|inappropriate)\b"
    r"|no (?:puedo|me es posible|soy|estoy|tengo)\b(?! (?:ver|observar|identificar) (?!las? im))"
    r"|我?(?:无法|不能|没有办法|没有能力|不具备|不是)(?!看[到见]|发现|排除)"
)
_FINDING_OUT = r"(?:determined?|tell|say|know|answer(?:ed)?|decided?|assess(?:ed)?|judged?)"
# What goes on after a comma may be an answer.
_OF_THAT = (
    r"(?: (?:exactly|it|this|to|what|which|whether|if|how|where|from|based|with|given|the|that|"
    r"about|for|in|on|who|when|why|because|since|without|due)\b[^,;.]*)?"
)
_DE_ESO = r"(?: (?:con|a|por|en|si|la|el|qu[eé]|de|para|est[ae]|sin|debido)\b[^,;.]*)?"
_MATTER = r"(?:information|details?|data|context|evidence)"
_IMAGE = rf"(?:{_THE_IMAGE}|it|this|i|we)"
_DATOS = r"(?:informaci[oó]n|datos|detalles?)"
_BASTANTE = rf"(?:suficientes? {_DATOS}|{_DATOS} (?:suficientes?|necesari[oa]s?))"
_IMAGEN_ZH = "(?:图像|图片|影像)"
_DATOS_ZH = "(?:信息|资料|数据|依据|证据)"
_GIVEN = r"(?:provided|given|attached|uploaded|included|supplied|shared|available|visible|shown)"
_NO_IMAGE = (
    r"(?:there (?:is|are)(?: not|n't) (?:an?|any)|"
    r"(?:(?:there (?:is|are|was|were)|i (?:see|have)) )?no) (?:images?|pictures?|photos?)"
    rf"(?: (?:(?:is|are|was|were|(?:has|have) been) )?{_GIVEN}{_OF_THAT})?"
    rf"|{_THE_IMAGE} (?:is|are|was|were)(?: not|n't) {_GIVEN}{_OF_THAT}|without {_THE_IMAGE}"
    r"|(?:no (?:hay|tengo|veo)|sin) (?:ninguna |la |una |las )?im[aá]gen(?:es)?"
    r"(?: (?:adjunta|disponible|proporcionada|visible)s?)?"
    r"|no se (?:ha |han )?(?:proporcion|adjunt|muestr|observ|aprecia|recib|v[eé])\w* "
    r"(?:ninguna |la |una |las )?im[aá]gen(?:es)?"
    rf"|我?(?:没有|无|未见?|看不到)(?:提供|上传|附上?|看到|见到|收到)?(?:任何)?{_IMAGEN_ZH}"
)
_DOCTOR = r"(?:doctor|physician|radiologist|clinician|specialist|professional|expert)s?"
_ADVICE = (
    r"please (?:provide|upload|attach|share|send|submit)\b[^,.;]*\b"
    rf"(?:images?|pictures?|photos?|x-?rays?|scans?|{_MATTER})(?: (?:first|again|so)\b[^,.;]*)?"
    rf"|(?:please|you should|i (?:recommend|suggest|advise)(?: you)?(?: to)?) "
    r"(?:consult|see|contact|ask)(?:ing)?\b[^,.;]*\b"
    rf"{_DOCTOR}{_OF_THAT}"
    r"|por favor|(?:proporcione|adjunte|suba|envíe|cargue|comparta) (?:la|una|las) im[aá]gen(?:es)?"
    r"|(?:consulte|acuda)(?: (?:a|con))? (?:un|una|su|el) (?:m[eé]dico|radi[oó]logo|especialista|"
    r"profesional)[^,.;]*"
    rf"|请您?(?:先|再|重新)?(?:提供|上传|发送|附上)[^,，;；。]{{0,8}}{_IMAGEN_ZH}"
    r"|请您?(?:咨询|联系)[^,，;；。]{0,8}(?:医生|医师|专家|专业人[士员])"
)
# Where it is all that a clause says, who says it does not know.
UNKNOWING = _compiled(
    rf"{_NO_IMAGE}|{_ADVICE}"
    rf"|(?:i )?(?:don't|do not) know(?: the answer)?{_OF_THAT}|n/a|not applicable"
    rf"|(?:i have )?no idea{_OF_THAT}"
    rf"|(?:i(?:'m| am) )?(?:not (?:sure|certain)|unsure){_OF_THAT}"
    rf"|(?:{_I})?{_CANNOT} {_FINDING_OUT}{_OF_THAT}"
    rf"|(?:(?:it|this|that|(?:the|this|that|your) (?:answer|question)) )?"
    rf"(?:cannot|can't|can not) be {_FINDING_OUT}{_OF_THAT}"
    rf"|(?:it is |it's )?(?:impossible|not possible|hard|difficult) to {_FINDING_OUT}{_OF_THAT}"
    rf"|(?:(?:there is|there's) )?(?:insufficient|not enough) {_MATTER}{_OF_THAT}"
    rf"|(?:there (?:is|are) not|there (?:is|are)n't|{_IMAGE} (?:do(?:es)?(?: not|n't) "
    rf"(?:have|provide|contain|give|offer|show|include)|lacks?)) "
    rf"(?:enough|sufficient) (?:\w+ )?{_MATTER}{_OF_THAT}"
    rf"|{_IMAGE} (?:has|have|provides?|contains?|gives?|offers?) insufficient {_MATTER}{_OF_THAT}"
    rf"|(?:the )?{_MATTER} (?:is|are) (?:insufficient|not (?:enough|sufficient)){_OF_THAT}"
    rf"|(?:i|we) need (?:more|further|additional) {_MATTER}{_OF_THAT}"
    rf"|(?:more|further|additional) {_MATTER} (?:is|are) (?:needed|required){_OF_THAT}"
    rf"|{_IMAGE} (?:is|are) too \w+ (?:for me )?to {_FINDING_OUT}{_OF_THAT}"
    r"|(?:yo )?no (?:lo )?s[eé]|no estoy segur[oa]|(?:no tengo|ni) idea|no aplica(?:ble)?"
    r"|(?:(?:la|esta) pregunta )?(?:(?:yo )?no (?:se puede|(?:me )?es posible|puedo|sabría)|"
    rf"es imposible|imposible) (?:de )?(?:determinar|saber|decir|responder)(?:l[oa])?{_DE_ESO}"
    r"|(?:la|esta) imagen no (?:me )?permite (?:determinar|saber|decir|responder)(?:l[oa])?"
    rf"{_DE_ESO}"
    r"|(?:no (?:hay|tengo|existe)|(?:la imagen )?no (?:proporciona|contiene|tiene|ofrece|muestra)) "
    rf"{_BASTANTE}{_DE_ESO}"
    rf"|(?:la )?{_DATOS} (?:(?:es |son )?insuficientes?|no (?:es|son) suficientes?){_DE_ESO}"
    r"|我?(?:不知道|不太?确定|不確定)(?:答案)?"
    r"|我?(?:无法|不能|無法|难以|没法)(?:从[^,，;；。]{1,12}中?)?(?:确定|判断|回答|得知|確定|判斷)"
    r"(?:(?:这个|该|此|这一|您的|你的)?(?:问题|答案))?"
    rf"|(?:{_IMAGEN_ZH}(?:中|的)?)?(?:没有|未|缺乏)(?:提供)?足够的?{_DATOS_ZH}"
    r"(?:来?[^,，;；。]{0,8}(?:回答|判断|确定)[^,，;；。]{0,8})?"
    rf"|{_IMAGEN_ZH}?(?:的|中的?)?{_DATOS_ZH}(?:不足|不够)(?:以[^,，;；。]{{1,12}})?"
)
_BUT = (
    r"(?:\b(?:but|however|nevertheless|nonetheless|that said|pero|sin embargo|no obstante)\b"
    r"|但是?|不过|然而|可是)[,，:]?\s?"
)
# A clause ends with its mark, or before a word that takes it back.
CLAUSE = _compiled(rf"[,.;，。；!]{{0,3}}\s?{_BUT}|[,.;!]\s|[，。；！]")
# Behind a refusal an answer begins with such a word, or with what is seen.
BEGINS = _compiled(
    rf"[,.;，。；]?\s?{_BUT}"
    rf"|(?<=[.;])\s(?={_THE_IMAGE} (?:shows?|demonstrates?|reveals?)|there (?:is|are)\b|i see\b|"
    rf"la imagen muestra|se observa|hay\b)|[。；](?=(?:{_IMAGEN_ZH}|图中)(?:显示|可见)|可见)"
)
# No answer begins so: advice, an offer, that there is no image, why one does not know.
ADVISES = _compiled(
    r"[^,.;，。；]{0,80}(?:\b(?:please|consult\w*|recommend\w*|advis\w+|you (?:should|can|may|"
    r"might|could|need|must|would|have)|professionals?|doctors?|physicians?|radiologists?|"
    r"clinicians?|specialists?|experts?|attach\w*|upload\w*|information|guidance|advice|happy|glad|"
    r"help|assist|no (?:image|picture)s?|i can (?:only )?(?:offer|provide|explain|describe|discuss|"
    r"answer|try|share|give)|(?:further|additional|more) \w+ (?:is|are|would|may)|por favor|"
    r"recomiend\w*|aconsej\w*|profesional(?:es)?|m[eé]dicos?|especialistas?|radi[oó]logos?|"
    r"informaci[oó]n|ayudar\w*|usted)\b|请|您|建议|咨询|医生|专业|就医|帮助|信息)"
    r"|(?:because|since|due to|given|without|whether|as|porque|ya que|debido a|sin|因为|由于)\b"
    r"[^,.;]*$"
)
# Who is not sure has doubted what follows.
DEFINITE = _compiled(
    r"\b(?:definit\w+|certain\w*|sure|confiden\w+|conclusi\w+|exact\w*|precis\w+|segur\w+|"
    r"concluyente|exact[oa])\b|明确|确切|准确|肯定|确[定诊]"
)
AROUND = " \n.!。！*_\"'“”()[]（）"


def declines(text: str) -> bool:
    """Whether nothing is answered."""
    return bool(text) and not answered(text)[0]


def answered(text: str) -> tuple[str, bool]:
    """What is said beside a refusal or that one does not know, "" where that is all, and whether it
    is in doubt for what was said before it."""
    plain = " ".join(text.replace("’", "'").split()).strip(AROUND)
    excuse = EXCUSE.match(plain)
    rest = plain[excuse.end() :] if excuse else plain
    excused, doubted = rest != plain, False
    if not plain:
        return text, False
    while rest:
        clause = CLAUSE.search(rest)
        first, others = (rest[: clause.start()], rest[clause.end() :]) if clause else (rest, "")
        if UNKNOWING.fullmatch(first.strip(AROUND)):
            rest, doubted = others, True
            continue
        refuses = REFUSES.match(rest) or (REFUSES_EXCUSED.match(rest) if excused else None)
        if refuses:
            return _behind(rest, refuses.end())
        if doubted and ADVISES.match(rest):
            return "", True
        break
    return (rest if excused or doubted else text), doubted


def _behind(text: str, start: int) -> tuple[str, bool]:
    """What is answered behind a refusal that ends at `start`, and whether that puts it in doubt."""
    for begins in BEGINS.finditer(text, start):
        answer = text[begins.end() :]
        if answer and not (ADVISES.match(answer) or REFUSES.match(answer)):
            return answer, DEFINITE.search(text, 0, begins.start()) is not None
    return "", False
