"""Exact match: the share of answers that are the reference.

Case, outer blanks and one final full stop do not count.
"""


def normalise(text: str) -> str:
    """Lower-cased, trimmed, without one final full stop."""
    text = text.lower().strip()
    return text[:-1].strip() if text.endswith((".", "。")) else text


def matches(answer: str, reference: str) -> bool:
    return normalise(answer) == normalise(reference)
