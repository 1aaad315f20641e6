"""Whether a model says that it will not answer, or cannot: then it has no vote.

What may be an answer is one: "I cannot see an effusion" denies it, "unclear" and "不清楚" may tell
of an edge, "unknown" of a cause, "indeterminate" of a lesion. And who does not know, but says what
it may be, has said so: "I'm not sure, but it may be edema".
"""

import re

_SORRY = r"(?:(?:i(?:'m| am) (?:very )?sorry|sorry|i apologi[sz]e|unfortunately)[,.;]?\s(?:but )?)?"
_CANNOT = r"(?:cannot|can't|can not|(?:unable|not able) to)"
_I = r"i(?:'m| am)? "
_ASSISTING = (
    r"help|assist|provide|offer|give|answer|comply|diagnose|interpret|analy[sz]e|view|process"
)
_FINDING_OUT = r"(?:determined?|tell|say|know|answer(?:ed)?|decided?|assess(?:ed)?|judged?)"
# What goes on after a comma may be an answer.
_OF_THAT = (
    r"(?: (?:it|this|to|what|which|whether|if|how|where|from|based|with|given|the)\b[^,;.]*)?"
)
# Whatever follows.
OPENS = re.compile(
    rf"{_SORRY}(?:as an ai\b|{_I}{_CANNOT} (?:{_ASSISTING})\b)"
    r"|(?:lo siento|lo lamento|disculpa)[,.;]?\s(?:pero )?no (?:puedo|me es posible)\b"
    r"|como (?:una )?(?:ia|inteligencia artificial|modelo de lenguaje)\b"
    r"|(?:很?抱歉|对不起)[,，。]?(?:但)?我?(?:无法|不能|没有办法)|作为(?:一个|一名)?(?:ai|人工智能)",
    re.IGNORECASE,
)
# Where it is all that is said.
WHOLE = re.compile(
    rf"{_SORRY}(?:"
    rf"(?:i )?(?:don't|do not) know{_OF_THAT}|n/a|not applicable"
    rf"|(?:i(?:'m| am) )?(?:not (?:sure|certain)|unsure){_OF_THAT}"
    rf"|(?:{_I})?{_CANNOT} {_FINDING_OUT}{_OF_THAT}"
    rf"|(?:it |this |that |the answer )?(?:cannot|can't|can not) be {_FINDING_OUT}{_OF_THAT}"
    rf"|(?:it is |it's )?(?:impossible|not possible) to {_FINDING_OUT}{_OF_THAT}"
    rf"|(?:there is )?(?:insufficient|not enough) information{_OF_THAT}"
    r"|(?:yo )?no (?:lo )?s[eé]|no estoy segur[oa]|no (?:se puede|es posible|puedo) "
    r"(?:determinar|saber|decir|responder)(?:lo)?"
    r"(?: (?:con|a partir|por|en|si|la|el|qu[eé])\b[^,;.]*)?"
    r"|我?(?:不知道|不确定|不確定)"
    r"|我?(?:无法|不能|無法)(?:从[^,，;；。]{1,12}中?)?(?:确定|判断|回答|得知|確定|判斷)"
    r")",
    re.IGNORECASE,
)
AROUND = " \n.!。！*_\"'“”()[]（）"


def declines(text: str) -> bool:
    """Whether nothing is answered."""
    plain = " ".join(text.replace("’", "'").split()).strip(AROUND)
    return OPENS.match(plain) is not None or WHOLE.fullmatch(plain) is not None
