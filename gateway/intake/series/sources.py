"""Where the files of a series are: sent with the case, all in one, or in the archive.

Headers are read without their pixels; a whole file is read, or fetched, when its turn comes.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, Protocol
from zipfile import BadZipFile

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement

from gateway.archive.dicomweb import NOT_THERE, Archive
from gateway.case import CaseImage
from gateway.contract import ArchivedImages
from gateway.intake.dicom.file import ITEMS, InMemory, read, told_by_tag
from gateway.intake.dicom.objects import MADE_FROM_PICTURES, MODALITIES, made_by
from gateway.intake.dicom.values import number
from gateway.intake.off_loop import off_loop
from gateway.intake.pixels import codec_errors_told, is_dicom
from gateway.intake.series import unzip
from gateway.intake.series.order import TAGS
from gateway.intake.series.signatures import ZIP, is_whole_series
from gateway.refusals import (
    ArchiveFailed,
    InvalidCase,
    NotInArchive,
    TooLarge,
    UnsupportedMedia,
)
from gateway.tables import Limits

TAG_NUMBERS = {f"{tag_for_keyword(keyword):08X}": keyword for keyword in TAGS}
OTHERS = "The archive gave other instances than were asked for."
MOST_LISTED = 20
HEADER_BYTES = 10_000  # of a slice; `TAGS` hold a tenth of it
ITEM_BYTES = 100  # of an item of a sequence, beside its values: in memory it takes far more


class Source(Protocol):
    faults: tuple[str, ...]
    ahead: int  # how many files are on their way while one is shown

    async def headers(self) -> Sequence[Any]:
        """Of each file, as far as `TAGS` go; called before the others."""

    def memory(self, files: Sequence[int]) -> int:
        """Bytes that these take when their turn comes, beside what was sent."""

    async def file(self, at: int) -> Any:
        """The whole of it: its header with its pixels, as it was read."""

    def reference(self, files: Sequence[int]) -> dict[str, Any]:
        """Where in the archive these are, in the words of `SeriesShown`."""

    def metadata_of(self, pictures: Sequence[CaseImage]) -> tuple[dict[str, Any], ...]:
        """What the archive says of the instances that they show (DICOM JSON), if it is kept."""


def sent(files: Sequence[bytes], limits: Limits) -> Source:
    """Files that came with the case; raises a `Refused`."""
    if len(files) == 1 and files[0].startswith(ZIP):
        return _zipped(files[0], limits)
    if len(files) == 1 and is_whole_series(files[0]):
        return _volume(files[0], limits)
    if any(map(is_whole_series, files)):
        raise InvalidCase("images: a zip or a NIfTI holds a whole series, and is sent alone.")
    if sum(map(len, files)) > limits.max_series_mb * 1_000_000:
        raise TooLarge(f"The series is over {limits.max_series_mb:g} MB. Send fewer slices.")
    there = [unzip.Member(partial(io.BytesIO, data), 0) for data in files]
    return SentFiles(there, limits)


def _zipped(data: bytes, limits: Limits) -> Source:
    found = unzip.series_in(data, limits.max_slices, int(limits.max_series_mb * 1_000_000))
    if found.dicoms:
        faults = _left_out(found.others + len(found.niftis), "DICOM image")
        return SentFiles(found.dicoms, limits, faults)
    if len(found.niftis) > 1:
        raise InvalidCase(f"The zip holds {len(found.niftis)} NIfTIs. Send one of them.")
    return _volume(found.niftis[0].open, limits, _left_out(found.others, "NIfTI"))


def _left_out(others: int, kind: str) -> tuple[str, ...]:
    if not others:
        return ()
    them = "1 file in the zip is" if others == 1 else f"{others} files in the zip are"
    return (f"{them} no {kind}, and left out.",)


def _volume(nifti: bytes | unzip.Open, limits: Limits, faults: tuple[str, ...] = ()) -> Source:
    try:
        # Imported at the first: nibabel is an extra.
        from gateway.intake.series.nifti import Volume
    except ModuleNotFoundError as error:
        raise UnsupportedMedia(
            "This gateway reads no NIfTI. Send DICOMs, or ask for the extra nifti to be installed."
        ) from error
    return Volume(nifti, limits, faults)


class SentFiles:
    """DICOMs that came with the case, each by itself or all in a zip whose `faults` are told."""

    ahead = 1

    def __init__(
        self, files: Sequence[unzip.Member], limits: Limits, faults: tuple[str, ...] = ()
    ) -> None:
        """Raises TooLarge."""
        self._max_header_bytes = limits.max_slices * HEADER_BYTES
        self._files, self.faults = files, faults
        if len(files) > limits.max_slices:
            raise TooLarge(f"The series has {len(files)} files; send at most {limits.max_slices}.")

    async def headers(self) -> Sequence[Any]:
        found, size = [], 0
        for at in range(len(self._files)):
            found.append(await off_loop(partial(self._header, at)))
            size += _size(found[-1])
            if size > self._max_header_bytes:
                raise TooLarge("The headers of the series are too large. Send fewer slices.")
        return found

    def memory(self, files: Sequence[int]) -> int:
        return _at_a_time(self.ahead) * max(self._files[at].size for at in files)

    async def file(self, at: int) -> Any:
        return await off_loop(partial(self._whole, at))

    def reference(self, files: Sequence[int]) -> dict[str, Any]:
        return {}

    def metadata_of(self, pictures: Sequence[CaseImage]) -> tuple[dict[str, Any], ...]:
        return ()

    def _header(self, at: int) -> Any:
        with self._opened(at) as (file, place):
            if not is_dicom(file.read(unzip.BEGINNING)):
                raise InvalidCase(f"{place} is no DICOM, and slices are of such. Leave slices out.")
            file.seek(0)
            return _header(file, place)

    def _whole(self, at: int) -> Any:
        with self._opened(at) as (file, place), told_by_tag(place):
            # At once: a zip unpacks all that lies before whatever is looked at again.
            return read(InMemory(file.read()), place)

    @contextmanager
    def _opened(self, at: int) -> Iterator[tuple[IO[bytes], str]]:
        place = f"File {at + 1} of {len(self._files)}"
        with codec_errors_told(place):
            try:
                with self._files[at].open() as file:
                    yield file, place
            except BadZipFile as error:
                raise ValueError("another checksum than the zip says") from error


class Archived:
    """Files in the archive, of which only those are fetched that are shown."""

    faults: tuple[str, ...] = ()
    ahead = 2  # one is fetched while the one before it is read

    def __init__(self, archive: Archive, asked: ArchivedImages, keeps_metadata: bool = False):
        self._archive, self._asked = archive, asked
        self._keeps_metadata = keeps_metadata
        self._metadata: dict[str, dict[str, Any]] = {}  # what the archive says of each instance
        self._instances: list[str] = []
        self._sizes: list[int] = []

    async def headers(self) -> Sequence[Any]:
        study, wanted = self._asked.study, self._asked.instances
        self._series = self._asked.series or await self._only_series(study)
        metadata = await self._archive.metadata(study, self._series)
        headers = await off_loop(partial(_from_json, metadata))
        if any(_uids(header)[:2] != (study, self._series) for header in headers):
            raise ArchiveFailed(OTHERS)
        if wanted is not None:
            kept = [at for at, header in enumerate(headers) if _uids(header)[2] in wanted]
            headers, metadata = [headers[at] for at in kept], [metadata[at] for at in kept]
            if {_uids(header)[2] for header in headers} != set(wanted):
                raise NotInArchive(NOT_THERE)
        self._instances = [_uids(header)[2] for header in headers]
        self._sizes = [_pixel_bytes(header) for header in headers]
        if self._keeps_metadata:
            self._metadata = dict(zip(self._instances, metadata, strict=True))
        return headers

    def memory(self, files: Sequence[int]) -> int:
        return _at_a_time(self.ahead) * max(self._sizes[at] for at in files)

    async def file(self, at: int) -> Any:
        asked = self._asked.study, self._series, self._instances[at]
        data = await self._archive.instance(*asked)
        place = f"File {at + 1} of {len(self._instances)}"

        def given() -> Any:
            with codec_errors_told(place), told_by_tag(place):
                return read(InMemory(data), place)

        header = await off_loop(given)
        if _uids(header) != asked:
            raise ArchiveFailed(OTHERS)
        return header

    def reference(self, files: Sequence[int]) -> dict[str, Any]:
        instances = dict.fromkeys(self._instances[at] for at in files)
        return {"study": self._asked.study, "series": self._series, "instances": tuple(instances)}

    def metadata_of(self, pictures: Sequence[CaseImage]) -> tuple[dict[str, Any], ...]:
        shown = [each.shown.series.instances for each in pictures if each.shown.series]
        instances = dict.fromkeys(uid for uids in shown for uid in uids)
        return tuple(self._metadata[uid] for uid in instances if uid in self._metadata)

    async def _only_series(self, study: str) -> str:
        listed = await off_loop(partial(_from_json, await self._archive.series_of(study)))
        # Captures, such as a verdict that went back, stand aside where there is what they show.
        for stands in (
            lambda told: told & MODALITIES.keys(),
            lambda told: not told & MADE_FROM_PICTURES,
        ):
            uids = [_uids(each)[1] for each in listed if stands(made_by(each))]
            if uids := list(dict.fromkeys(uids)):  # of two patients an archive lists one twice
                break
        if len(uids) == 1:
            return uids[0]
        if not uids:
            raise InvalidCase("dicomweb.study: it has no series with images.")
        named = ", ".join(uids[:MOST_LISTED])
        raise InvalidCase(f"dicomweb.series: the study has {len(uids)}; send one of {named}.")


def _at_a_time(ahead: int) -> int:
    """The one that is shown, and each that is on its way as it came and taken apart."""
    return 1 + 2 * ahead


def _header(file: Any, place: str) -> Any:
    with told_by_tag(place):
        return read(file, place, stop_before_pixels=True, specific_tags=list(TAGS))


def _pixel_bytes(header: Any) -> int:
    """Of a file of two bytes a pixel; what is compressed takes less."""
    with told_by_tag("The series"):
        sides = [number(header, tag) or 1 for tag in ("Rows", "Columns", "NumberOfFrames")]
    return 2 * int(math.prod(sides))


def _size(header: Any) -> int:
    """Bytes of its values, as they were read, and of the items that hold some of them."""
    size = 0
    for element in header.values():
        if isinstance(element, RawDataElement):
            value = element.value or b""
            size += len(value) + ITEM_BYTES * sum(map(value.count, ITEMS))
        elif element.VR == "SQ":
            size += sum(ITEM_BYTES + _size(item) for item in element.value)
    return size


def _from_json(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The DICOM JSON model (PS3.18 annex F) of several objects, by keyword, as far as `TAGS` go:
    as plain values, since pydicom's own elements take ten times as long."""
    try:
        return [
            {keyword: _value(each[tag]) for tag, keyword in TAG_NUMBERS.items() if tag in each}
            for each in found
        ]
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ArchiveFailed("What the archive says of the series cannot be read.") from error


def _value(element: dict[str, Any]) -> Any:
    """None where there is none, a list of several."""
    values = element.get("Value") or []
    if element["vr"] == "SQ":
        return [{keyword_for_tag(tag): _value(item[tag]) for tag in item} for item in values]
    if element["vr"] != "PN" and any(isinstance(value, dict | list) for value in values):
        raise ValueError("a value that is none")
    return values[0] if len(values) == 1 else values or None


def _uids(header: Any) -> tuple[str, str, str]:
    """Of its study, its series and itself."""
    return (
        str(header.get("StudyInstanceUID")),
        str(header.get("SeriesInstanceUID")),
        str(header.get("SOPInstanceUID")),
    )
