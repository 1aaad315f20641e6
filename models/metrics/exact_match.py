"""Exact match: the share of answers that are the reference.

Case, blanks but for where they part words, and one final full stop do not count.
"""


def normalise(text: str) -> str:
    """Lower-cased, words parted by one blank, without one final full stop."""
    text = " ".join(text.lower().split())
    return text[:-1].strip() if text.endswith((".", "。")) else text


def matches(answer: str, reference: str) -> bool:
    return normalise(answer) == normalise(reference)
