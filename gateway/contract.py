"""The public schema: what a caller sends, and what a caller gets."""

import re
import sys
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

Language = Literal["en", "es", "zh"]
# How an image was made, as far as workers' competence may depend on it.
Modality = Literal[
    "ct",
    "mri",
    "xray",
    "ultrasound",
    "nuclear",
    "photograph",
    "fundus",
    "endoscopy",
    "microscopy",
]
# The windows that radiologists read a CT in: centre and width, in Hounsfield units.
WINDOWS: dict[str, tuple[float, float]] = {
    "brain": (40, 80),
    "subdural": (80, 200),
    "lung": (-600, 1500),
    "bone": (400, 1800),
    "soft_tissue": (50, 400),
}
WindowName = Literal["brain", "subdural", "lung", "bone", "soft_tissue"]
Summarise = Literal["auto", "always", "never"]
Style = Literal["answer", "sentence", "differential"]
ErrorKind = Literal[
    "timeout",
    "refused",
    "unreachable",
    "garbage",
    "empty",
    "cut_short",
    "not_needed",
    "not_eligible",
]
VerdictStatus = Literal["answered", "abstained"]
Word = Literal["right", "wrong"]
Keep = Literal["marks", "cases"]
Stores = Literal["sr", "sc"]
SummaryBy = Literal["vote", "unanimous", "summariser"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Sent(_Frozen):
    """What a caller sends: null stands for the default of whatever has one."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, sent: Any) -> Any:
        if not isinstance(sent, dict):
            return sent
        fields = cls.model_fields
        return {
            name: value
            for name, value in sent.items()
            if value is not None or name not in fields or fields[name].is_required()
        }


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("send a number, not true or false")
    return value


A_NUMBER = BeforeValidator(_no_flag)  # Python takes true for 1


class Options(_Sent):
    """How the panel is to be asked. A value that is not listed here is not served."""

    workers: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Ask only these workers; null asks all of them."
    )
    summarise: Summarise = Field(
        default="auto", description="auto: only when the panel is not of one mind."
    )
    style: Style = Field(
        default="answer",
        description="What `answer` is: the winning answer; a sentence that also says how many "
        "claim it and what else is claimed; or every claim by its rank, with who makes it.",
    )
    rounds: Annotated[Literal[1, 2], A_NUMBER] = Field(
        default=1,
        description="2: where they differ, each worker reads the others' answers and may revise.",
    )
    wait: Literal["all", "enough"] = Field(
        default="all",
        description="all: to the deadline; enough: until the missing voices cannot change the "
        "winner.",
    )
    deadline_s: Annotated[float | None, A_NUMBER] = Field(
        default=None, gt=0, le=600, description="Seconds for the workers; null: the panel's own."
    )
    max_risk: Annotated[float | None, A_NUMBER] = Field(
        default=None,
        ge=0,
        le=1,
        description="Abstain where the answer is likelier than this to be wrong; null: never.",
    )
    coverage: Annotated[float | None, A_NUMBER] = Field(
        default=None,
        ge=0.5,
        le=0.99,
        description="Also return the smallest set of answers that holds the right one in such a "
        "part of the cases like those calibrated on; null: none.",
    )
    grounding: bool = Field(
        default=False,
        description="Wait for the verdict's grounding; false: it is told where it is known.",
    )
    reasoning: bool = Field(
        default=False, description="Also tell what a summariser that thinks first has thought."
    )
    entailment: bool = Field(
        default=True,
        description="Where the panel has a model for it, that one is asked as well which claims "
        "mean the same; false: rules alone decide.",
    )
    store: Stores | None = Field(
        default=None,
        description="Also store the verdict in the archive that the images came from: sr, a DICOM "
        "Structured Report; sc, a page as a picture; null: not.",
    )


GREATEST = sys.float_info.max


def _window(value: Any) -> Any:
    """In one sentence, where a union would tell of each of its kinds."""
    if isinstance(value, str) and value in WINDOWS:
        return value
    if isinstance(value, list | tuple) and len(value) == 2:
        numbers = [n for n in value if isinstance(n, int | float) and not isinstance(n, bool)]
        # Compared, since what is to be no float may be an integer of 400 digits.
        if len(numbers) == 2 and all(abs(n) <= GREATEST for n in numbers) and numbers[1] > 0:
            return tuple(map(float, numbers))
    raise ValueError(f"send {', '.join(WINDOWS)}, or [centre, width] with a width above 0")


# A preset of CT, or centre and width in the image's own units, after its modality LUT.
AskedWindow = Annotated[
    WindowName | tuple[float, float],
    BeforeValidator(_window, json_schema_input_type=WindowName | tuple[float, float]),
]


SLICES = re.compile(r"(?:(even|max|average)(?: |$))?(?:([1-9]\d{0,5})-([1-9]\d{0,5}))?")
KEY_SLICES = re.compile(r"[1-9]\d{0,5}(,[1-9]\d{0,5})*")


def _slices(text: str) -> str:
    plain = re.sub(r" *([,-]) *", r"\1", " ".join(text.split()))
    if plain and (SLICES.fullmatch(plain) or KEY_SLICES.fullmatch(plain)):
        return plain
    raise ValueError(
        "send even, max or average, a range such as 40-120 or max 40-120, or slices such as "
        "12,40,88, counted from 1"
    )


# "max 40-120", or "12,40,88".
AskedSlices = Annotated[str, AfterValidator(_slices)]


def uid(text: str) -> str:
    """PS3.5 9.1; raises ValueError for what is none."""
    if len(text) <= 64 and re.fullmatch(r"[0-9]+(\.[0-9]+)+", text):
        return text
    raise ValueError("is no DICOM UID; send numbers with dots between, at most 64 characters")


Uid = Annotated[str, AfterValidator(uid)]


class AskedImage(_Sent):
    """One image of a case, and what of it is to be shown to the workers."""

    data: str = Field(description="base64 or data URI; PNG, JPEG, WebP, TIFF, DICOM.")
    frame: Annotated[int | None, A_NUMBER] = Field(
        default=None,
        ge=1,
        description="Which frame of a DICOM, from 1; null: the one that it calls representative, "
        "else the first.",
    )
    window: AskedWindow | None = Field(
        default=None,
        description="Which greys of a DICOM: a preset of CT, or [centre, width]; null: its own.",
    )


MAX_VIEW_CHARS = 40


A_BLANK_IF_NULL = BeforeValidator(
    lambda view: "" if view is None else view, json_schema_input_type=str | None
)


def _view(text: str) -> str:
    plain = " ".join(text.split())
    if plain.isprintable() and len(plain) <= MAX_VIEW_CHARS:
        return plain
    raise ValueError(f"send a few words, such as frontal; at most {MAX_VIEW_CHARS} characters")


def _views(views: tuple[str, ...]) -> tuple[str, ...] | None:
    return views if any(views) else None


def _asked_image(value: Any) -> Any:
    if isinstance(value, str):
        return {"data": value}
    if isinstance(value, dict | AskedImage):
        return value
    raise ValueError("send an image as base64, or as an object with its base64 in `data`")


class ArchivedImages(_Sent):
    """Images that the gateway fetches from the one archive that it knows, by their UIDs."""

    study: Uid = Field(description="Study Instance UID.")
    series: Uid | None = Field(
        default=None, description="Series Instance UID; null: the study's only one with images."
    )
    instances: tuple[Uid, ...] | None = Field(
        default=None, min_length=1, description="SOP Instance UIDs; null: all of the series."
    )
    window: AskedWindow | None = Field(
        default=None, description="As of an image; one for the whole series."
    )


class CaseFields(_Sent):
    """What JSON and multipart requests have in common."""

    question: str = Field(min_length=1, description="In the language that `language` names.")
    language: Language | None = Field(
        default=None,
        description="null: the question's own, where its script and its words leave no doubt, "
        "else en.",
    )
    context: str | None = Field(default=None, description="Clinical context, read by the workers.")
    modality: Modality | None = Field(
        default=None,
        description="How the images were made, if that is known; null: what a DICOM says. Answers "
        "are weighed by it; no worker is told.",
    )
    choices: tuple[str, ...] | None = Field(
        default=None, min_length=2, max_length=64, description="The only answers allowed."
    )
    views: (
        Annotated[
            tuple[Annotated[str, A_BLANK_IF_NULL, AfterValidator(_view)], ...],
            AfterValidator(_views),
        ]
        | None
    ) = Field(
        default=None,
        description="What each image is, in their order, such as frontal and lateral: the workers "
        "read it before the question. A blank one, or null, tells nothing. Not of a series.",
    )
    slices: AskedSlices | None = Field(
        default=None,
        description="The images are the files of one series, or a file of many frames: which "
        "slices of it are shown, counted from 1 in the order of their positions. even: as many as "
        "the panel takes, evenly spaced; 40-120: such of these; 12,40,88: these; max or average: "
        "all in one picture, max 40-120 those. null: each image is one picture; a zip, a NIfTI, or "
        "what the archive gives is taken for even.",
    )
    dicomweb: ArchivedImages | None = Field(
        default=None, description="In place of images, where the gateway has an archive."
    )
    options: Options = Options()


class CaseRequest(CaseFields):
    """The JSON body of `POST /vqa`. GET /panel states the limits on sizes and numbers."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("images"))

    images: tuple[
        Annotated[
            AskedImage, BeforeValidator(_asked_image, json_schema_input_type=str | AskedImage)
        ],
        ...,
    ] = Field(
        description="base64 or data URI, or an object that says what of it is shown; or one zip "
        "of a series, or a NIfTI. Left out where `dicomweb` names them.",
    )

    @model_validator(mode="before")
    @classmethod
    def _images_are_here_or_in_the_archive(cls, sent: Any) -> Any:
        named = isinstance(sent, dict) and sent.get("dicomweb") is not None
        return {**sent, "images": ()} if named and sent.get("images") is None else sent


class ReadersWord(_Sent):
    """What a reader says of a verdict; the JSON body of `POST /feedback`."""

    verdict: str = Field(min_length=1, max_length=64, description="Its `id`.")
    word: Word
    answer: str | None = Field(
        default=None,
        min_length=1,
        max_length=2_000,
        description="What is right. Without `case` no more is kept of it than who said the same.",
    )
    comment: str | None = Field(
        default=None, max_length=2_000, description="Kept with `case` alone."
    )
    case: CaseRequest | None = Field(
        default=None,
        description="The case as it was asked. Who sends it agrees that question, context, images, "
        "answer and comment are kept; null: marks alone.",
    )

    @model_validator(mode="after")
    def _a_case_says_what_is_right(self) -> "ReadersWord":
        if self.case and not (self.answer or "").strip():
            raise ValueError("send `answer`, what is right, beside a case that is to be kept")
        return self


class WordKept(_Frozen):
    verdict: str
    word: Word
    case: bool = Field(description="Whether the case was kept; false: marks alone.")


class OwnWord(_Frozen):
    """A word of the tenant's own."""

    verdict: str
    word: Word
    given: str = Field(description="When the verdict was given; ISO 8601, UTC.")
    case: dict[str, Any] | None = Field(
        default=None, description="What was kept of it, beside its images."
    )


class AnswerError(_Frozen):
    kind: ErrorKind
    detail: str
    max_chars: int | None = Field(
        default=None,
        description="Where the case was too long for it: so many characters of question and "
        "context pass.",
    )


class Alternative(_Frozen):
    """How another answer of the same worker would have begun, and how likely that was to it."""

    begins: str
    whole: bool = Field(description="It would have been no more than that.")
    probability: float


class Remembered(_Frozen):
    """A case of a worker's training data, as its data set has it."""

    id: str = Field(max_length=200)
    question: str = Field(max_length=2_000)
    answer: str = Field(max_length=2_000)
    likeness: float = Field(ge=0, le=1, description="To the case asked about; 1 is the same.")


class Likeness(_Frozen):
    """How like a worker's own cases a case is, as it tells of itself; 1 is the same."""

    image: float = Field(ge=0, le=1)
    question: float = Field(ge=0, le=1)
    manner: str = Field(
        pattern=r"^[^/]{1,255}$",  # what a file of one's own may be called
        description="The data set whose questions are worded most like this one.",
    )


class OfImage(_Frozen):
    """What a worker said to one image of a case, which it saw alone."""

    image: int = Field(description="Its number, from 1, as the images were sent.")
    text: str
    confidence: float | None


class Tokens(_Frozen):
    """What a model server counted of a reply that was used, in its own model's tokens."""

    prompt: int = Field(description="With what became of the images.")
    reply: int

    @classmethod
    def sum(cls, counted: Iterable["Tokens | None"]) -> "Tokens | None":
        """None where nobody counts."""
        told = [each for each in counted if each is not None]
        reply = sum(each.reply for each in told)
        return cls(prompt=sum(each.prompt for each in told), reply=reply) if told else None


class Answer(_Frozen):
    """What one worker said, or (with `error`) why it said nothing."""

    worker: str
    round: int = 1
    text: str | None = None
    confidence: float | None = Field(
        default=None, description="Raw: the answer's probability, token by token. Not calibrated."
    )
    alternatives: tuple[Alternative, ...] = Field(
        default=(), description="What else it came near to saying, the likeliest first."
    )
    remembers: tuple[Remembered, ...] = Field(
        default=(),
        description="Of a worker that remembers: the cases that spoke loudest, for this answer or "
        "for another.",
    )
    likeness: Likeness | None = Field(
        default=None, description="Of a worker that remembers: how like its cases this one is."
    )
    by_image: tuple[OfImage, ...] = Field(
        default=(),
        description="Of a worker that sees one image at a time, in a case of several: what it said "
        "to each. Its answer is what it believes most on average.",
    )
    weight: float | None = Field(
        default=None,
        description="Its part of the weight of what it said; those of all answers sum to 1.",
    )
    seconds: float
    tokens: Tokens | None = Field(
        default=None, description="For all that it was asked; null: its server does not count."
    )
    error: AnswerError | None = None


class Familiarity(_Frozen):
    """How like this case is to those that the panel was calibrated on. `image` and `question` are
    the part of those cases that were no more like what the panel knows: of cases such as they,
    every value between 0 and 1 is as common. null: nobody who could tell was heard."""

    image: float | None = None
    question: float | None = None
    unfamiliar: bool = Field(
        description="It is of another sort: no confidence that was learned holds for it."
    )
    why: str | None = Field(
        default=None, description="What is unfamiliar, or why that is not known."
    )


class SetMember(_Frozen):
    text: str
    share: float = Field(description="What all workers together believe in it.")


class PredictionSet(_Frozen):
    """The smallest set of answers that holds the right one in `coverage` of the cases like those
    that the panel was calibrated on, the likeliest first."""

    coverage: float
    answers: tuple[SetMember, ...] | None = Field(description="null: none is claimed.")
    why: str | None = Field(default=None, description="Why none is claimed.")


class Dissent(_Frozen):
    """A claim that did not win, and who made it."""

    text: str
    workers: tuple[str, ...]
    weight: float = Field(description="As `agreement` is the verdict's, which is never less.")


class Summary(_Frozen):
    """Who worded the answer. `faithful` is null where no summariser's reply was judged."""

    by: SummaryBy
    faithful: bool | None
    seconds: float
    why: str | None = Field(
        default=None,
        description="Where an answer is in another script than the case's language, that, in this "
        "language: no summariser words such a verdict. Else null.",
    )
    tokens: Tokens | None = Field(
        default=None, description="Whatever became of its reply; null: none, or it does not count."
    )
    reasoning: str | None = Field(
        default=None,
        description="What the summariser thought first, held against nothing; only where "
        "`options.reasoning` asks for it.",
    )


class Entailment(_Frozen):
    """What a model was asked beyond the rules: which claims mean the same."""

    pairs: int = Field(description="Of claims that rules leave apart; it is asked both ways.")
    joined: int = Field(description="Claims that now stand under another one.")
    failed: bool = Field(description="It did not always answer: what it did not judge is apart.")
    seconds: float
    tokens: Tokens | None = Field(
        default=None, description="For all that it was asked now; null: none, or it does not count."
    )


class SeriesShown(_Frozen):
    """Which part of a series one picture is."""

    first: int = Field(description="Slice, from 1, in the order of their positions.")
    last: int = Field(description="The same as `first` where one slice is shown.")
    of: int = Field(description="How many slices the series has.")
    projection: Literal["max", "average"] | None = Field(
        default=None, description="How the slices became one picture; null: it is one slice."
    )
    faults: tuple[str, ...] = Field(
        default=(), description="What is odd about the series: gaps, doubles, a tilted gantry."
    )
    study: Uid | None = Field(default=None, description="Where it came from the archive.")
    series: Uid | None = None
    instances: tuple[Uid, ...] = Field(default=(), description="What the picture was made from.")


BurnedIn = Literal["refuse", "mask", "warn"]


class ImageShown(_Frozen):
    """What of one image the workers were shown."""

    view: str | None = Field(
        default=None,
        description="What it is, as the caller says in `views`. Left out where nothing is said.",
        exclude_if=lambda view: view is None,
    )
    frame: int = Field(default=1, description="Which, from 1; of a file of one picture 1.")
    of: int = Field(default=1, description="How many frames or pages the file has.")
    window: tuple[float, float] | None = Field(
        default=None,
        description="Centre and width of the greys, in the DICOM's own units (of a CT: HU): asked "
        "for, else the file's first, else the range that was found in it. Null where there is none "
        "such: not a DICOM, colours, a VOI LUT, one value only.",
    )
    converted: bool = Field(
        default=False, description="It was decoded; false: passed on as it was sent, stripped."
    )
    burned_in: Literal["left", "masked"] | None = Field(
        default=None,
        description="There is text in its pixels, which the workers see, or which was blacked out. "
        "Left out where none was found, or looked for.",
        exclude_if=lambda burned_in: burned_in is None,
    )
    series: SeriesShown | None = Field(
        default=None,
        description="Of a series: what of it this is. Left out for an image of its own.",
        exclude_if=lambda series: series is None,
    )


class Preview(_Frozen):
    """One image as the workers will get it; nothing is asked."""

    picture: str = Field(description="A data URI of a PNG or JPEG.")
    shown: ImageShown
    dicom: bool = Field(description="Whether another frame or window may be asked for.")
    modality: Modality | None = Field(description="What a DICOM says; null where it does not.")


class Stored(_Frozen):
    """What became of the verdict in the archive."""

    instance: Uid | None = Field(default=None, description="SOP Instance UID of what is there.")
    error: str | None = Field(default=None, description="Why nothing is.")


LEARNED_FROM = Field(
    default=None,
    description="The questions on which voices were calibrated, and whose were not; null: all "
    "voices are equal.",
)


class Verdict(_Frozen):
    id: str
    status: VerdictStatus = "answered"
    answer: str | None
    best_guess: str | None = None
    language: Language
    agreement: float | None = Field(
        description="The answer's weight: what all workers believe in it, of what they believe in "
        "any answer that was given; without a competence file, its part of the votes. It decides; "
        "the dissent has the rest. Null for a single voice, and for an answer that nobody claims: "
        "where all name another modality than the known one, who nearly said it stands for it."
    )
    confidence: float | None = Field(
        default=None,
        description="The probability that the answer is right, as learned on questions the workers "
        "had not seen; null for a panel or a language for which that was not learned, and for an "
        "unfamiliar case.",
    )
    familiarity: Familiarity | None = Field(
        default=None, description="null for a panel that was not calibrated."
    )
    prediction_set: PredictionSet | None = Field(
        default=None, description="Where options.coverage asks for one."
    )
    grounding: float | None = Field(
        default=None,
        description="How far the answers depend on the images: 0, the workers say the same to an "
        "even grey picture; 1, nothing of it. Null where it is not known yet.",
    )
    images: tuple[ImageShown, ...] = Field(
        default=(), description="What was shown of each image, in their order."
    )
    answers: tuple[Answer, ...]
    workers: tuple[str, ...] = Field(
        default=(), description="Who claims the answer; some may also claim what dissents."
    )
    dissent: tuple[Dissent, ...]
    entropy: float | None = Field(
        default=None,
        description="How far the panel is from one mind, in nats: the entropy of the weights of "
        "the answer and the dissent. 0: all are for one. Null for a single voice.",
    )
    entailment: Entailment | None = Field(
        default=None, description="null: no model was asked which claims mean the same."
    )
    summary: Summary
    learned_from: str | None = LEARNED_FROM
    panel: str = Field(description="Hash of the workers as panel.toml has them, and the policy.")
    seconds: float
    cached: bool = False
    cached_from: str | None = Field(default=None, description="The id of the first such verdict.")
    stored: Stored | None = Field(default=None, description="Where options.store asks for it.")


class Provisional(_Frozen):
    """How the vote stands while workers are still being waited for. It may turn."""

    answer: str
    workers: tuple[str, ...] = Field(description="Whose answers count together for it.")
    agreement: float | None
    heard: int
    asked: int


MODEL = Field(description="What its server says it loaded; null where that is not known.")


WARNING = Field(
    default=None, description="Its servers list another model than the seat's: which they do."
)


class Replica(_Frozen):
    """One of the servers of a worker that has several, in panel.toml's order."""

    reachable: bool
    resting_s: float | None = None
    model: str | None = MODEL
    left_out: str | None = Field(
        default=None, description="Why no case is brought to it: it serves another model."
    )


class Seat(_Frozen):
    """One worker of the panel, and how it is now."""

    name: str
    family: str
    languages: tuple[Language, ...]
    max_images: int
    reachable: bool = Field(description="It calls itself healthy, and does not rest.")
    resting_s: float | None = Field(
        default=None,
        description="It left a question of the gateway's own unanswered, and no case is brought to "
        "it; seconds until it is asked that again. null: it does not rest.",
    )
    model: str | None = MODEL
    warning: str | None = WARNING
    calibrated: bool | None = Field(
        default=None,
        description="false: a new seat, whose voice begins at a prior; null: all voices are equal.",
    )
    replicas: tuple[Replica, ...] = Field(
        default=(), description="Its servers, where it has several; it is well while one is."
    )
    words: int = Field(
        default=0, description="Readers' words, of those kept, that tell whether it was right."
    )
    right: float | None = Field(default=None, description="In what part of those it was.")


class ShadowSeat(_Frozen):
    """A candidate, which is asked behind verdicts and counts for nothing, beside the panel."""

    name: str
    family: str
    reachable: bool
    resting_s: float | None = None
    model: str | None = MODEL
    warning: str | None = WARNING
    replicas: tuple[Replica, ...] = ()
    cases: int = Field(description="It answered since the gateway started.")
    agrees: float | None = Field(description="In what part of those with the verdict.")
    words: int = Field(description="Readers' words that tell whether it was right.")
    right: float | None = Field(description="In what part of those it was.")
    panel_right: float | None = Field(description="In what part of the same the verdict was.")


class SummariserSeat(_Frozen):
    languages: tuple[Language, ...]
    reachable: bool
    model: str | None = MODEL


class PanelReport(_Frozen):
    """Who sits on the panel, how well they are, and what a case may hold."""

    panel: str
    quorum: int
    deadline_s: float
    workers: tuple[Seat, ...]
    shadows: tuple[ShadowSeat, ...] = ()
    summariser: SummariserSeat | None
    learned_from: str | None = LEARNED_FROM
    reload_error: str | None = Field(
        default=None, description="Why the panel file as it is now was not taken up."
    )
    store_reachable: bool = Field(
        description="Without it cases are answered all the same, and nothing is kept."
    )
    feedback: Keep | None = Field(
        default=None,
        description="What POST /feedback keeps: marks, or the cases of who agrees; null: nothing.",
    )
    max_images: int
    max_image_mb: float
    max_body_mb: float
    max_question_chars: int
    max_context_chars: int
    min_image_side: int
    max_image_aspect: float
    burned_in: BurnedIn | None = Field(
        default=None, description="What is done about text in an image's pixels; null: nothing."
    )
    max_slices: int
    max_series_mb: float
    series_s: float
    archive: bool = Field(
        default=False, description="Whether a case may name images in an archive."
    )
    archive_stores: bool = Field(
        default=False, description="Whether it may ask by options.store that its verdict go there."
    )
