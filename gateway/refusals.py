"""Every way in which a caller can be refused.

Refused                  the case ends here; the caller reads a Problem
  MalformedRequest  400  the body cannot be read as what it claims to be
  UnreadableImage   400  an image, or its pixels, cannot be decoded
  Unauthorized      401  no key, or none that is known here
  Forbidden         403  a key that may not do this
  UnknownModel      404  a chat with a model that is not here
  UnknownVerdict    404  a word on a verdict that waits for none
  NotInArchive      404  a study, series or instance that the archive has not, or not for this key
  TooSlow           408  the body did not come in time
  TooLarge          413  the body, an image or their number is over a limit
  UnsupportedMedia  415  not an image format, or not a body type, that is served
  InvalidCase       422  readable, but not a case this panel can take
  TooMany           429  more than the key may ask in a minute
  ArchiveFailed     502  the archive does not answer, or not as it should
  TooFewAnswers     503  fewer workers than the quorum answered
  Busy              503  as many cases are under way, and waiting, as the gateway takes
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.contract import Answer

# What a person who asks meets, and can mend: an interface has words of its own for each.
Code = Literal[
    "no_image",
    "no_question",
    "too_long",  # question and context
    "other_language",  # than the question is in
    "language_not_spoken",  # by anybody who may be asked
    "images_not_taken",  # so many, by anybody who speaks the language
    "one_image_at_a_time",  # and the question is about several
    "choices_alike",
    "not_learned",  # what the options ask for
    "several_patients",
    "burned_in_text",
    "too_small_or_narrow",
    "no_picture",  # a DICOM that holds none
    "tiled",
    "compression",
]


class Problem(BaseModel):
    """RFC 9457 problem details. `answers` is there when too few workers gave one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: str
    title: str
    status: int
    detail: str
    code: Code | None = Field(
        default=None,
        description="Why, where a person who asks often meets it; left out: see `detail`.",
        exclude_if=lambda code: code is None,
    )
    answers: tuple[Answer, ...] | None = None

    @classmethod
    def of(
        cls,
        status: int,
        title: str,
        detail: str,
        code: Code | None = None,
        answers: tuple[Answer, ...] | None = None,
    ) -> "Problem":
        kind = "urn:consilium:" + title.lower().replace(" ", "-")
        return cls(type=kind, title=title, status=status, detail=detail, code=code, answers=answers)


class Refused(Exception):
    """A case that cannot be answered. The message is the problem's detail, meant for the caller."""

    status: int
    title: str
    answers: tuple[Answer, ...] | None = None
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str, retry_after_s: int | None = None, code: Code | None = None):
        super().__init__(detail)
        self.code = code
        if retry_after_s is not None:
            self.headers = {"retry-after": str(retry_after_s)}

    def problem(self) -> Problem:
        return Problem.of(self.status, self.title, str(self), self.code, self.answers)


class MalformedRequest(Refused):
    status, title = 400, "Malformed request"


class UnreadableImage(Refused):
    status, title = 400, "Unreadable image"


class Unauthorized(Refused):
    status, title = 401, "Unauthorized"
    headers: Mapping[str, str] = {"www-authenticate": "Bearer"}


class Forbidden(Refused):
    status, title = 403, "Forbidden"


class UnknownModel(Refused):
    status, title = 404, "Model not found"


class UnknownVerdict(Refused):
    status, title = 404, "Unknown verdict"


class NotInArchive(Refused):
    status, title = 404, "Not in the archive"


class TooSlow(Refused):
    status, title = 408, "Too slow"
    headers: Mapping[str, str] = {"connection": "close"}


class TooLarge(Refused):
    status, title = 413, "Too large"
    # The rest of the body may still be coming, without end.
    headers: Mapping[str, str] = {"connection": "close"}


class UnsupportedMedia(Refused):
    status, title = 415, "Unsupported media type"


class InvalidCase(Refused):
    status, title = 422, "Invalid case"


class TooMany(Refused):
    status, title = 429, "Too many requests"


class ArchiveFailed(Refused):
    status, title = 502, "Archive failed"


class Busy(Refused):
    status, title = 503, "Busy"


class TooFewAnswers(Refused):
    status, title = 503, "Too few answers"

    def __init__(self, detail: str, answers: tuple[Answer, ...], retry_after_s: int):
        super().__init__(detail, retry_after_s)
        self.answers = answers
