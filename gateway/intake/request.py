"""HTTP request → Case: read within limits, checked, and of every image its pixels alone."""

import asyncio
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import pybase64
from pydantic import ValidationError
from starlette.requests import Request

from gateway.archive.dicomweb import Archive
from gateway.case import Case, CaseImage
from gateway.contract import (
    AskedImage,
    AskedWindow,
    CaseFields,
    CaseRequest,
    Language,
    Modality,
    Preview,
    ReadersWord,
)
from gateway.intake.body.form import Form, form_of
from gateway.intake.body.json_text import MAX_MARKS, json_object
from gateway.intake.body.whole import JSON, MEGABYTE, json_of, kind_of, whole_of
from gateway.intake.body.wrong_fields import refuse_fields
from gateway.intake.language import asked_in
from gateway.intake.off_loop import off_loop
from gateway.intake.pixels import (
    check_whole,
    codec_errors_told,
    is_dicom,
    is_known_whole,
    only_pixels,
    stripped,
)
from gateway.intake.series.signatures import is_whole_series
from gateway.refusals import (
    InvalidCase,
    Refused,
    TooLarge,
    UnreadableImage,
    UnsupportedMedia,
)
from gateway.settings import Settings
from gateway.tables import Limits
from gateway.verdict.text.meaning import meanings

T = TypeVar("T")
# A body, and an image in it, of so much is read sooner than it is handed to a thread.
HERE_BYTES, HERE_PARTS, HERE_CHUNKS, HERE_PIXELS = MEGABYTE, 16, 1_000, 512 * 512
# By then the workers were asked, and the core is free.
HEAD_START_S = 0.01
# Beyond an image, or a window, for each slice: choices, and more slices than may be, to be told.
MORE_PARTS = 1_000
# An answer is a few words, and every worker's is compared with every choice.
MAX_CHOICE_CHARS = 200
FORM = "multipart/form-data"
NO_IMAGE = "images: there is none; send at least one."
URL_ALPHABET = str.maketrans("-_", "+/")


class ImageFile(NamedTuple):
    """An image file, and what of it is to be shown; what the workers get of it, where that is known
    without decoding."""

    data: bytes
    frame: int | None = None
    window: AskedWindow | None = None
    picture: CaseImage | None = None


@dataclass(frozen=True)
class Draft:
    """What has the form of a case, within limits; none of its images is decoded yet."""

    fields: CaseFields
    images: list[ImageFile]
    language: Language

    @property
    def is_series(self) -> bool:
        return _is_series(self.fields, [image.data for image in self.images])


async def read(request: Request, settings: Settings) -> Draft:
    """What a request asks; raises a `Refused` that says what to send instead."""
    limits, kind = settings.limits, kind_of(request)
    if kind not in (JSON, FORM):
        raise UnsupportedMedia(f"Send Content-Type {JSON} or {FORM}.")
    body = await whole_of(request, settings)

    def draft(most: int) -> Draft:
        if kind == JSON:
            return _from_json(json_object(body, "The body", most), limits)
        return _from_form(form_of(request.headers["content-type"], body, most), limits)

    if len(body) <= HERE_BYTES:
        with suppress(TooLarge):  # too much to be read here
            return draft(HERE_PARTS)
    most = MAX_MARKS if kind == JSON else _most_parts(limits)
    return await off_loop(lambda: draft(most))


def _most_parts(limits: Limits) -> int:
    return max(limits.max_slices, limits.max_images) + MORE_PARTS


async def draft_of(content: dict[str, Any], limits: Limits) -> Draft:
    """The same of a JSON object like `CaseRequest`."""
    return await off_loop(lambda: _from_json(content, limits))


async def preview_of(request: Request, settings: Settings) -> Preview:
    """What the workers would get of a form's one image; raises a `Refused`."""
    if kind_of(request) != FORM:
        raise UnsupportedMedia(f"Send Content-Type {FORM}.")
    body, kind = await whole_of(request, settings), request.headers["content-type"]
    limits, most = settings.limits, _most_parts(settings.limits)
    return await off_loop(lambda: _preview(form_of(kind, body, most), limits))


async def word_of(request: Request, settings: Settings) -> tuple[ReadersWord, Draft | None]:
    """What a reader says of a verdict, and the case that is to be kept with it, if one was sent;
    raises a `Refused`."""
    content = await json_of(request, settings)
    if content.get("case") is not None and not (
        settings.feedback and settings.feedback.keep == "cases"
    ):
        raise InvalidCase("case: this gateway keeps none. Send the word without it.")
    try:
        word = ReadersWord.model_validate(content)
    except ValidationError as error:
        refuse_fields(error)
    for name in ("verdict", "answer", "comment"):
        _check_text(name, getattr(word, name) or "")
    draft = None if word.case is None else await draft_of(content["case"], settings.limits)
    return word, draft


async def case_of(draft: Draft, settings: Settings, archive: Archive | None, tenant: str) -> Case:
    """The case, and of every image its pixels alone, which `check` may still find missing; raises a
    `Refused`."""
    fields = draft.fields
    _check_store(fields, settings)
    metadata: tuple[dict[str, Any], ...] = ()
    if draft.is_series:
        pictures, metadata = await _of_series(draft, settings, archive)
    else:
        pictures = await _each(draft.images)
    if fields.views:
        pictures = [_viewed(*each) for each in zip(pictures, fields.views, strict=True)]
    for position, picture in enumerate(pictures):
        place = _place(position, len(pictures))
        _check_shape(picture.size, place, settings.limits)
        if settings.limits.burned_in:
            pictures[position] = await off_loop(partial(_heeded, picture, place, settings.limits))
    return Case(
        id=uuid.uuid4().hex,
        question=fields.question.strip(),
        images=tuple(pictures),
        language=draft.language,
        context=(fields.context or "").strip() or None,
        choices=fields.choices,
        options=fields.options,
        modality=fields.modality or _shared_modality(pictures),
        tenant=tenant,
        metadata=metadata,
    )


def _viewed(picture: CaseImage, view: str) -> CaseImage:
    """With what the caller says that it is."""
    return replace(picture, shown=picture.shown.model_copy(update={"view": view or None}))


def _shared_modality(pictures: Sequence[CaseImage]) -> Modality | None:
    """What the headers say, where every image has one and they agree."""
    told = {picture.modality for picture in pictures}
    return told.pop() if len(told) == 1 else None


def _check_store(fields: CaseFields, settings: Settings) -> None:
    if fields.options.store is None:
        return
    if not (settings.archive and settings.archive.store):
        raise InvalidCase("options.store: this gateway stores nothing in an archive. Send null.")
    if fields.dicomweb is None:
        raise InvalidCase(
            "options.store: these images came from no archive. Name some by dicomweb, or send null."
        )


async def check(case: Case) -> None:
    """Raises UnreadableImage where pixels of an image are missing."""
    await asyncio.gather(
        *(
            off_loop(partial(check_whole, image, _place(at, len(case.images))))
            for at, image in enumerate(case.images)
            if not is_known_whole(image)
        )
    )


async def if_whole(case: Case, work: Coroutine[Any, Any, T]) -> T:
    """What the work brings. An image that is new here is checked once the workers were asked: they
    take longer than that. The work is dropped where `check` raises."""
    if all(map(is_known_whole, case.images)):
        return await work
    working = asyncio.create_task(work)
    try:
        await asyncio.wait({working}, timeout=HEAD_START_S)
        await check(case)
        return await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)  # what became of it is known


async def _each(images: list[ImageFile]) -> list[CaseImage]:
    async def decoded(at: int, sent: ImageFile) -> CaseImage:
        place = _place(at, len(images))
        return await off_loop(partial(only_pixels, sent.data, place, sent.frame, sent.window))

    missing = [decoded(at, sent) for at, sent in enumerate(images) if sent.picture is None]
    found = iter(await asyncio.gather(*missing))
    pictures = [sent.picture or next(found) for sent in images]
    dicoms = [sent.data for sent in images if is_dicom(sent.data)]
    if len(dicoms) > 1:
        await off_loop(partial(_check_one_patient, dicoms))
    return pictures


def _check_one_patient(dicoms: list[bytes]) -> None:
    # Imported where it is used: pydicom would double the gateway's start-up.
    from gateway.intake.dicom.file import InMemory, read
    from gateway.intake.dicom.patient import PATIENT, check_one_patient

    with codec_errors_told("The images"):
        how = {"stop_before_pixels": True, "specific_tags": list(PATIENT)}
        headers = [
            read(InMemory(data), _place(at, len(dicoms)), **how) for at, data in enumerate(dicoms)
        ]
        check_one_patient(headers, "The images")


async def _of_series(
    draft: Draft, settings: Settings, archive: Archive | None
) -> tuple[list[CaseImage], tuple[dict[str, Any], ...]]:
    """Its pictures, and what the archive says of them if the verdict is to go back there."""
    # Imported at the first series: pydicom would double the gateway's start-up.
    from gateway.intake.series import pictures, sources

    fields, limits, images = draft.fields, settings.limits, draft.images
    source: sources.Source
    if fields.dicomweb is None:
        if any(image.frame is not None for image in images):
            raise InvalidCase("frame: of a series slices says what is shown. Leave frame out.")
        windows = {image.window for image in images} - {None}
        if len(windows) > 1:
            raise InvalidCase("window: a series is shown in one; send it once.")
        window = next(iter(windows), None)
        source = await off_loop(partial(sources.sent, [image.data for image in images], limits))
    elif archive is None:
        raise InvalidCase("dicomweb: this gateway knows no archive. Send images.")
    else:
        window, stores = fields.dicomweb.window, fields.options.store is not None
        source = sources.Archived(archive, fields.dicomweb, stores)
    room = min(limits.max_images, settings.most_images(draft.language, fields.options.workers))
    made = await pictures.pictures_of(source, fields.slices, window, room, limits)
    return made, source.metadata_of(made)


def _heeded(picture: CaseImage, place: str, limits: Limits) -> CaseImage:
    """As its burned-in text leaves it."""
    if limits.burned_in is None:
        return picture
    check_whole(picture, place)
    # Imported where it is used: few gateways look for text.
    from gateway.intake import burned_in

    return burned_in.heeded(picture, place, limits.burned_in)


def _from_json(content: dict[str, Any], limits: Limits) -> Draft:
    try:
        case = CaseRequest.model_validate(content)
    except ValidationError as error:
        refuse_fields(error)
    language = _check_fields(case, limits)
    files = [
        _from_base64(image.data, _place(position, len(case.images)))
        for position, image in enumerate(case.images)
    ]
    is_series = _is_series(case, files)
    _check_number(case, len(files), is_series, limits)
    images = [
        ImageFile(data, asked.frame, asked.window)
        for data, asked in zip(files, case.images, strict=True)
    ]
    if is_series:
        return Draft(case, images, language)
    _check_sizes(files, limits)
    return Draft(case, _stripped(images), language)


def _stripped(images: list[ImageFile]) -> list[ImageFile]:
    """At once: a small file is sooner stripped than handed to a thread. What is wrong with one, or
    takes long, is left to who decodes it."""
    found = []
    for sent in images:
        with suppress(Refused):
            if sent.frame is None and sent.window is None:
                sent = sent._replace(picture=stripped(sent.data, "", HERE_CHUNKS, HERE_PIXELS))
        found.append(sent)
    return found


def _from_form(form: Form, limits: Limits) -> Draft:
    try:
        fields = CaseFields.model_validate(form.content)
    except ValidationError as error:
        refuse_fields(error)
    language = _check_fields(fields, limits)
    is_series = _is_series(fields, form.images)
    _check_number(fields, len(form.images), is_series, limits)
    if not is_series:
        return Draft(fields, _stripped(_images_of(form, limits)), language)
    # One of each for the whole series.
    more = [""] * (len(form.images) - 1)
    shown = {name: v + more if len(v) == 1 else v for name, v in form.shown.items()}
    return Draft(fields, _as_asked(form.images, shown), language)


def _images_of(form: Form, limits: Limits) -> list[ImageFile]:
    _check_sizes(form.images, limits)
    return _as_asked(form.images, form.shown)


def _preview(form: Form, limits: Limits) -> Preview:
    if form.content or len(form.images) > 1:
        raise InvalidCase("A preview is of one image: send images, frame and window alone.")
    if not form.images:
        raise InvalidCase(NO_IMAGE, code="no_image")
    [sent] = _images_of(form, limits)
    place = _place(0, 1)
    image = only_pixels(sent.data, place, sent.frame, sent.window)
    _check_shape(image.size, place, limits)
    image = _heeded(image, place, limits)
    return Preview(
        picture=image.uri.decode(),
        shown=image.shown,
        dicom=is_dicom(sent.data),
        modality=image.modality,
    )


def _as_asked(images: list[bytes], shown: dict[str, list[str]]) -> list[ImageFile]:
    """A form's `frame` and `window` stand in the order of its images; a blank one asks nothing."""
    asked: list[dict[str, Any]] = [{} for _ in images]
    for name, values in shown.items():
        if values and len(values) != len(images):
            raise InvalidCase(
                f"{name}: send one for each image, or none; a blank one asks nothing."
            )
        for position, value in enumerate(values):
            if value.strip():
                asked[position][name] = _window_of(value) if name == "window" else value
    try:
        checked = [AskedImage(data="", **each) for each in asked]
    except ValidationError as error:
        refuse_fields(error)
    return [
        ImageFile(data, each.frame, each.window) for data, each in zip(images, checked, strict=True)
    ]


def _window_of(text: str) -> Any:
    """A preset's name, or centre and width with a comma between."""
    try:
        return [float(part) for part in text.strip(" []").split(",")]
    except ValueError:
        return text.strip()


def _check_fields(fields: CaseFields, limits: Limits) -> Language:
    """The language that the case is asked in."""
    texts = [("question", fields.question, limits.max_question_chars)]
    texts += [("context", fields.context or "", limits.max_context_chars)]
    texts += [("choices", choice, MAX_CHOICE_CHARS) for choice in fields.choices or ()]
    workers = fields.options.workers or ()
    texts += [("options.workers", worker, limits.max_question_chars) for worker in workers]
    for name, text, max_chars in texts:
        if len(text) > max_chars:
            raise InvalidCase(
                f"{name}: {len(text)} characters; send at most {max_chars}.",
                code="too_long" if name in ("question", "context") else None,
            )
        _check_text(name, text)
    if not any(each.isprintable() and not each.isspace() for each in fields.question):
        raise InvalidCase("question: it is blank; ask something.", code="no_question")
    language = asked_in(fields.question, fields.language)
    meant = meanings(fields.choices or (), language, fields.question)
    for means, same in meant.items():
        at = [f"choices.{n}" for n, each in enumerate(fields.choices or ()) if each in same]
        if not means:
            raise InvalidCase(f"{at[0]}: it says nothing.")
        if len(same) > 1:
            raise InvalidCase(f"{at[1]}: it says the same as {at[0]}.", code="choices_alike")
    return language


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidCase(f"{name}: it holds half a character. Send whole ones.") from error


def _is_series(fields: CaseFields, images: list[bytes]) -> bool:
    """Whether the images are parts of one, and no pictures of their own."""
    named = fields.slices is not None or fields.dicomweb is not None
    return named or any(map(is_whole_series, images))


def _check_number(fields: CaseFields, images: int, is_series: bool, limits: Limits) -> None:
    if fields.dicomweb is not None:
        if images:
            raise InvalidCase("dicomweb: it stands in the place of images. Send one of them.")
    elif images == 0:
        raise InvalidCase(NO_IMAGE, code="no_image")
    elif images > limits.max_images and not is_series:
        raise TooLarge(
            f"{images} images; send at most {limits.max_images}. Of one series, send slices too."
        )
    if fields.views is None:
        return
    if is_series:
        raise InvalidCase("views: of a series slices says what is shown. Leave views out.")
    if len(fields.views) != images:
        raise InvalidCase(
            f"views: {len(fields.views)} for {images} image(s). Send one for each, in their order; "
            "a blank one tells nothing."
        )


def _check_sizes(files: list[bytes], limits: Limits) -> None:
    for position, data in enumerate(files):
        if len(data) > limits.max_image_mb * MEGABYTE:
            place = _place(position, len(files))
            raise TooLarge(f"{place} is over {limits.max_image_mb:g} MB. Send a smaller one.")


def _place(position: int, count: int) -> str:
    return f"Image {position + 1} of {count}"


def _check_shape(size: tuple[int, int], place: str, limits: Limits) -> None:
    short, long = sorted(size)
    if short < limits.min_image_side:
        raise InvalidCase(
            f"{place} is {size[0]} × {size[1]} pixels; send at least {limits.min_image_side} on "
            "each side.",
            code="too_small_or_narrow",
        )
    if long > limits.max_image_aspect * short:
        raise InvalidCase(
            f"{place} is {size[0]} × {size[1]} pixels; send one whose sides differ at most "
            f"{limits.max_image_aspect:g}-fold.",
            code="too_small_or_narrow",
        )


def _from_base64(text: str, place: str) -> bytes:
    text = text.strip()
    if text[:5].lower() == "data:":
        header, _, text = text.rpartition(",")  # a parameter may hold one; base64 has none
        if "base64" not in header.lower().replace(" ", "").split(";")[1:]:
            raise UnreadableImage(f"{place} is a data URI without base64. Encode it in base64.")
    elif "://" in text[:20]:
        raise InvalidCase(f"{place} is a link, and nothing is fetched. Send its bytes in base64.")
    with suppress(ValueError):
        return pybase64.b64decode(text, validate=True)
    try:
        return pybase64.b64decode(_usual_base64(text), validate=True)
    except ValueError as error:
        raise UnreadableImage(f"{place} is not valid base64. Encode its bytes again.") from error


def _usual_base64(text: str) -> str:
    """What is written in lines, in the alphabet of URLs, with percent signs, without padding."""
    plain = "".join(unquote(text).split()).translate(URL_ALPHABET).rstrip("=")
    return plain + "=" * (-len(plain) % 4)
