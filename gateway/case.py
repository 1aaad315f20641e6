"""A case as the gateway works on it: what intake made of a request."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pybase64

from gateway.contract import ImageShown, Language, Modality, Options


@dataclass(frozen=True)
class CaseImage:
    """One image as the workers get it: a PNG or JPEG of pixels alone, and its bytes' SHA-256."""

    data: bytes
    identity: str
    size: tuple[int, int]  # width and height
    modality: Modality | None = None  # what its DICOM header said
    shown: ImageShown = field(default_factory=ImageShown)  # what of the file it is

    @property
    def uri(self) -> bytes:
        """It as a data URI."""
        kind = b"jpeg" if self.data.startswith(b"\xff\xd8") else b"png"
        return b"data:image/" + kind + b";base64," + pybase64.b64encode(self.data)

    @cached_property
    def part(self) -> bytes:
        """How a chat request carries it, as JSON: made once, however many workers read it."""
        return b'{"type": "image_url", "image_url": {"url": "' + self.uri + b'"}}'


@dataclass(frozen=True)
class Case:
    """A question and its images after intake: checked, stripped and ready to be asked.

    What was said to one tenant is never said again to another.
    """

    id: str
    question: str
    images: tuple[CaseImage, ...]
    language: Language
    context: str | None
    choices: tuple[str, ...] | None
    options: Options
    modality: Modality | None = None
    tenant: str = "public"
    # Where the verdict goes back to the archive: what that says of what is shown, in DICOM JSON.
    metadata: tuple[dict[str, Any], ...] = ()
    others: tuple[str, ...] = ()  # what the other workers said, for a second round

    @property
    def views(self) -> tuple[str | None, ...]:
        """What each image is, as the caller says; empty where that is said of none."""
        views = tuple(image.shown.view for image in self.images)
        return views if any(views) else ()
