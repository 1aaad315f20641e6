"""The files of a series → its slices in the order of their positions, and which of them are shown.

By what the headers say of each frame's place in the patient (PS3.3 C.7.6.2, and C.7.6.16.2.3 and
.4 for the frames of one file), never by names or numbers. What makes no single series is refused;
what is odd about one is told.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gateway.contract import KEY_SLICES, SLICES
from gateway.intake.dicom.objects import check_is_picture
from gateway.intake.dicom.patient import PATIENT, check_one_patient
from gateway.intake.dicom.values import groups, number, of_frame, tag_and_name
from gateway.refusals import InvalidCase, TooLarge

# What tells several stacks of one series apart that lie at the same places, as echoes, phases and
# weightings do; and the functional group that says it of a frame (PS3.3 C.7.6.16.2, C.8.13.5).
STACKS = {
    "StackID": "FrameContentSequence",
    "EchoNumbers": "",
    "EchoTime": "",
    "EffectiveEchoTime": "MREchoSequence",
    "TemporalPositionIdentifier": "",
    "TemporalPositionIndex": "FrameContentSequence",
    "TriggerTime": "",
    "DiffusionBValue": "MRDiffusionSequence",
    "AcquisitionNumber": "",
    "ImageType": "",
}
# All that is read of a header here.
TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    *PATIENT,
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SpacingBetweenSlices",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *(tag for tag, macro in STACKS.items() if macro in ("", "MRDiffusionSequence")),
)
# What all files of a series have in common, and what to say where they do not.
SHARED = {
    ("StudyInstanceUID",): "are of several studies. Send one series",
    ("SeriesInstanceUID",): "are of several series. Send one of them",
    ("Modality",): "are of several modalities. Send one series",
    ("FrameOfReferenceUID",): "have several frames of reference. Send one scan",
    ("Rows", "Columns"): "are of unequal sizes. Leave out those that are no part of the stack",
}
PARALLEL = 0.01  # by which direction cosines may differ: half a degree
SKEWED = 0.1  # by which the area between rows and columns may differ from 1
SAME_PLACE_MM = 1e-3
GAP = 1.5  # times the usual step
TILTED_DEG = 1.0
Floats = NDArray[np.float64]
Projection = Literal["max", "average"]


@dataclass(frozen=True)
class Slice:
    file: int  # from 0
    frame: int  # of that file, from 1


@dataclass(frozen=True)
class Series:
    slices: tuple[Slice, ...]
    has_places: bool  # without them there is an order, but no space
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """The pictures to be made: the slices of each, as positions from 0."""

    pictures: tuple[tuple[int, ...], ...]
    projection: Projection | None


def arranged(headers: Sequence[Any], max_slices: int) -> Series:
    """The slices of all files, in order.

    Raises:
        InvalidCase, TooLarge, UnreadableImage: they are no series, or too long a one.
        NoNumber: a tag that should hold a number.
    """
    for position, header in enumerate(headers):
        check_is_picture(header, f"File {position + 1} of {len(headers)}")
    check_one_patient(headers, "The files of the series")
    stack = _without_localisers(headers)
    for tags, words in SHARED.items():
        if len({tuple(str(headers[at].get(tag) or "") for tag in tags) for at in stack}) > 1:
            raise InvalidCase(f"The files of the series {words}.")
    frames = [max(1, int(number(header, "NumberOfFrames") or 1)) for header in headers]
    if sum(frames) > max_slices:
        raise TooLarge(f"The series has {sum(frames)} slices; send at most {max_slices}.")
    slices = [Slice(at, n + 1) for at in stack for n in range(frames[at])]
    faults = []
    if left_out := len(headers) - len(stack):
        faults.append(
            "1 localiser is left out." if left_out == 1 else f"{left_out} localisers are left out."
        )
    # By number first: where places are the same, or are missing, that is what is left.
    slices.sort(key=lambda s: (number(headers[s.file], "InstanceNumber") or 0, s.file, s.frame))
    places = [
        of_frame(headers[s.file], s.frame, "PlanePositionSequence", "ImagePositionPatient", 3)
        for s in slices
    ]
    turns = [
        of_frame(headers[s.file], s.frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        for s in slices
    ]
    missing = sum(place is None or turn is None for place, turn in zip(places, turns, strict=True))
    if missing == len(slices):
        told = "No slice says where it lies: they are in the order of their numbers."
        return Series(tuple(slices), False, (*faults, *((told,) if len(slices) > 1 else ())))
    if missing:
        raise InvalidCase(
            f"{missing} of {len(slices)} slices do not say where they lie: (0020,0032) Image "
            "Position (Patient) or (0020,0037) Image Orientation (Patient). Leave them out."
        )
    spacing = _spacing([headers[at] for at in stack])
    found = _in_space(slices, headers, np.array(places), np.array(turns), spacing)
    return replace(found, faults=(*faults, *found.faults))


def _without_localisers(headers: Sequence[Any]) -> list[int]:
    """The files, but for views to plan by (C.8.2.1.1.1) among others."""
    kinds = [str(header.get("ImageType") or "").upper() for header in headers]
    others = [at for at, kind in enumerate(kinds) if "LOCALIZER" not in kind]
    return others or list(range(len(headers)))


def chosen(asked: str, series: Series, room: int, max_images: int) -> Chosen:
    """What the words of the caller mean for this series, of which `room` pictures are wanted.

    Raises:
        InvalidCase: there are no such slices.
        TooLarge: more of them than a case may have images.
    """
    length = len(series.slices)
    if KEY_SLICES.fullmatch(asked):
        keys = [int(key) for key in asked.split(",")]
        if len(keys) > max_images:
            raise TooLarge(f"slices: {len(keys)} of them; send at most {max_images}.")
        _check_within(max(keys), length)
        return Chosen(tuple((key - 1,) for key in keys), None)
    how, first, last = SLICES.fullmatch(asked).groups()  # type: ignore[union-attr]
    begin, end = int(first or 1) - 1, int(last or length)
    _check_within(end, length)
    if begin >= end:
        raise InvalidCase("slices: the range ends before it begins; send the lower one first.")
    if how in ("max", "average"):
        if not series.has_places and length > 1:
            raise InvalidCase(
                f"slices: {how} is of slices that lie behind each other, and these do not say "
                "where they lie. Send even, or their numbers."
            )
        return Chosen((tuple(range(begin, end)),), "max" if how == "max" else "average")
    count = min(room, end - begin)
    # The middle of each of so many equal parts.
    even = (begin + (2 * part + 1) * (end - begin) // (2 * count) for part in range(count))
    return Chosen(tuple((at,) for at in even), None)


def _check_within(last: int, length: int) -> None:
    if last > length:
        there = f"{length} slices; send numbers from 1 to {length}" if length > 1 else "one slice"
        raise InvalidCase(f"slices: the series has {there}.")


def _spacing(headers: Sequence[Any]) -> float | None:
    """What all of them say of the distance between slices, in mm; None where they do not agree."""
    said = {
        next(
            (
                abs(value)
                for source in groups(header, 0, "PixelMeasuresSequence")
                if (value := number(source, "SpacingBetweenSlices"))
            ),
            None,
        )
        for header in headers
    }
    return said.pop() if len(said) == 1 else None


def _in_space(
    slices: list[Slice],
    headers: Sequence[Any],
    places: Floats,
    turns: Floats,
    spacing: float | None,
) -> Series:
    """`places` is [slices, 3] in mm, `turns` [slices, 6] direction cosines of rows and columns."""
    if np.abs(turns - turns[0]).max() > PARALLEL:
        raise InvalidCase(
            "The slices of the series are not parallel. Leave out localisers and other views."
        )
    normal = np.cross(turns[0, :3], turns[0, 3:]).astype(np.float64)
    if abs(np.linalg.norm(normal) - 1) > SKEWED:
        raise InvalidCase("(0020,0037) Image Orientation (Patient) holds no directions.")
    depths: Floats = places @ normal
    order = np.argsort(depths, kind="stable")
    spots = np.empty(len(order), np.int64)
    spots[order] = np.cumsum(np.diff(depths[order], prepend=-np.inf) > SAME_PLACE_MM)
    stack, parted_by = _first_stack(slices, headers, spots)
    kept = stack[np.unique(spots[stack], return_index=True)[1]]
    faults = list(_faults(depths[kept], spacing, _tilt(places[kept], normal)))
    if parted_by:
        tags = " and ".join(map(tag_and_name, parted_by))
        faults.append(f"Several stacks lie at the same places; the first is shown, by {tags}.")
    if doubled := len(stack) - len(kept):
        faults.append(f"{_slices(doubled)} {_are(doubled)} left out: each lies where another does.")
    return Series(tuple(slices[at] for at in kept), True, tuple(faults))


def _first_stack(
    slices: list[Slice], headers: Sequence[Any], spots: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[str]]:
    """Of several stacks that each lie at all of the `spots`, the slices of the first, and the tags
    that part them; else all slices, and none."""
    stack, parted_by = np.arange(len(slices)), list[str]()
    everywhere = len(np.unique(spots))
    for tag, macro in STACKS.items():
        if len(stack) == everywhere:
            break
        said = np.array([_said(headers, slices[at], tag, macro) for at in stack])
        for value in dict.fromkeys(said):
            part = stack[said == value]
            if len(part) < len(stack) and len(np.unique(spots[part])) == everywhere:
                stack = part
                parted_by.append(tag)
                break
    return stack, parted_by


def _said(headers: Sequence[Any], of: Slice, tag: str, macro: str) -> str:
    sources = groups(headers[of.file], of.frame - 1, macro)
    return next((str(source.get(tag)) for source in sources if source.get(tag) is not None), "")


def _faults(depths: Floats, spacing: float | None, tilt_deg: float) -> Iterator[str]:
    steps = np.diff(depths)
    if len(steps):
        usual = spacing or float(np.median(steps))
        gaps = np.flatnonzero(steps > GAP * usual)
        if len(gaps):
            lost = int((steps[gaps] / usual - 1).round().sum())
            behind = ", ".join(str(at + 1) for at in gaps[:5]) + (", …" if len(gaps) > 5 else "")
            yield (
                f"{_slices(lost)} {_are(lost)} missing, by a spacing of {usual:.3g} mm: behind "
                f"{behind}."
            )
    if tilt_deg > TILTED_DEG:
        yield f"The gantry was tilted by {tilt_deg:.0f}°: the stack of slices leans."


def _tilt(places: Floats, normal: Floats) -> float:
    """Degrees between the way from slice to slice and the slices' normal."""
    way = places[-1] - places[0]
    along = abs(float(way @ normal))
    return float(np.degrees(np.arctan2(np.linalg.norm(way - (way @ normal) * normal), along)))


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
