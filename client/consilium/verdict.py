"""What a gateway replies. `/docs` of a running one says what each field means.

A field that a newer gateway has and this client does not know is kept as it came.
"""

from typing import Literal, Optional

from pydantic import BaseModel, ConfigDict

Language = Literal["en", "es", "zh"]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class AnswerError(_Reply):
    kind: str
    detail: str
    max_chars: Optional[int] = None


class Alternative(_Reply):
    begins: str
    whole: bool
    probability: float


class Remembered(_Reply):
    """A training case that a worker goes by."""

    id: str
    question: str
    answer: str
    likeness: float


class Likeness(_Reply):
    image: float
    question: float
    manner: str


class OfImage(_Reply):
    """What a worker said to one image of a case, which it saw alone."""

    image: int  # from 1
    text: str
    confidence: Optional[float]


class Tokens(_Reply):
    """What a model server counted."""

    prompt: int
    reply: int


class Answer(_Reply):
    """What one worker said, or (with `error`) why it said nothing."""

    worker: str
    round: int = 1
    text: Optional[str] = None
    confidence: Optional[float] = None  # raw
    alternatives: tuple[Alternative, ...] = ()
    remembers: tuple[Remembered, ...] = ()
    likeness: Optional[Likeness] = None
    by_image: tuple[OfImage, ...] = ()
    weight: Optional[float] = None
    seconds: float
    tokens: Optional[Tokens] = None
    error: Optional[AnswerError] = None


class Familiarity(_Reply):
    image: Optional[float] = None
    question: Optional[float] = None
    unfamiliar: bool
    why: Optional[str] = None


class Dissent(_Reply):
    """An answer that did not win, and who gave it."""

    text: str
    workers: tuple[str, ...]
    weight: float


class Summary(_Reply):
    by: str
    faithful: Optional[bool]
    seconds: float
    why: Optional[str] = None
    tokens: Optional[Tokens] = None
    reasoning: Optional[str] = None


class Entailment(_Reply):
    """What a model was asked beyond the rules: which claims mean the same."""

    pairs: int
    joined: int
    failed: bool
    seconds: float
    tokens: Optional[Tokens] = None


class SeriesShown(_Reply):
    """Which part of a series one picture is."""

    first: int
    last: int
    of: int
    projection: Optional[str] = None
    faults: tuple[str, ...] = ()
    study: Optional[str] = None
    series: Optional[str] = None
    instances: tuple[str, ...] = ()


class ImageShown(_Reply):
    """What of one image the workers were shown."""

    view: Optional[str] = None
    frame: int = 1
    of: int = 1
    window: Optional[tuple[float, float]] = None
    converted: bool = False
    burned_in: Optional[str] = None
    series: Optional[SeriesShown] = None


class SetMember(_Reply):
    text: str
    share: float


class PredictionSet(_Reply):
    """The smallest set of answers that holds the right one in `coverage` of cases; null: none is
    claimed, and why."""

    coverage: float
    answers: Optional[tuple[SetMember, ...]]
    why: Optional[str] = None


class Stored(_Reply):
    """What became of the verdict in the archive: where it is, or why it is not."""

    instance: Optional[str] = None
    error: Optional[str] = None


class Verdict(_Reply):
    id: str
    status: str = "answered"  # or "abstained"
    answer: Optional[str]
    best_guess: Optional[str] = None
    language: Language
    agreement: Optional[float]
    confidence: Optional[float] = None  # calibrated
    familiarity: Optional[Familiarity] = None
    prediction_set: Optional[PredictionSet] = None
    grounding: Optional[float] = None
    images: tuple[ImageShown, ...] = ()
    answers: tuple[Answer, ...]
    workers: tuple[str, ...] = ()  # who claims the answer
    dissent: tuple[Dissent, ...]
    entropy: Optional[float] = None  # in nats
    entailment: Optional[Entailment] = None
    summary: Summary
    learned_from: Optional[str] = None
    panel: str
    seconds: float
    cached: bool = False
    cached_from: Optional[str] = None
    stored: Optional[Stored] = None


class Provisional(_Reply):
    """How the vote stands while workers are still being waited for. It may turn."""

    answer: str
    workers: tuple[str, ...]
    agreement: Optional[float]
    heard: int
    asked: int


class Replica(_Reply):
    """One of the servers of a worker that has several."""

    reachable: bool
    resting_s: Optional[float] = None
    model: Optional[str]
    left_out: Optional[str] = None


class Seat(_Reply):
    """One worker of the panel, and how it is now."""

    name: str
    family: str
    languages: tuple[str, ...]
    max_images: int
    reachable: bool
    resting_s: Optional[float] = None
    model: Optional[str]
    warning: Optional[str] = None
    calibrated: Optional[bool] = None
    replicas: tuple[Replica, ...] = ()
    words: int = 0
    right: Optional[float] = None


class ShadowSeat(_Reply):
    """A candidate, which counts for nothing, beside the panel."""

    name: str
    family: str
    reachable: bool
    resting_s: Optional[float] = None
    model: Optional[str]
    warning: Optional[str] = None
    replicas: tuple[Replica, ...] = ()
    cases: int
    agrees: Optional[float]
    words: int
    right: Optional[float]
    panel_right: Optional[float]


class SummariserSeat(_Reply):
    languages: tuple[str, ...]
    reachable: bool
    model: Optional[str]


class PanelReport(_Reply):
    """Who sits on the panel, how well they are, and what a case may hold."""

    panel: str
    quorum: int
    deadline_s: float
    workers: tuple[Seat, ...]
    shadows: tuple[ShadowSeat, ...] = ()
    summariser: Optional[SummariserSeat]
    learned_from: Optional[str] = None
    reload_error: Optional[str] = None
    store_reachable: bool
    feedback: Optional[str] = None
    max_images: int
    max_image_mb: float
    max_body_mb: float
    max_question_chars: int
    max_context_chars: int
    min_image_side: int
    max_image_aspect: float
    burned_in: Optional[str] = None
    max_slices: int
    max_series_mb: float
    series_s: float
    archive: bool = False
    archive_stores: bool = False


class Problem(_Reply):
    """Why there is no verdict (RFC 9457). `answers` is there when too few workers gave one."""

    type: str
    title: str
    status: int
    detail: str
    code: Optional[str] = None
    answers: Optional[tuple[Answer, ...]] = None
