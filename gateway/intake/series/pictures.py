"""A series → the pictures that the workers get of it.

Headers first, then one file after the other, and only those that are shown: what was sent is in
memory as it came, and beside it one file that was read, those on their way, one slice, and the
slab that is made of them. What those files take is kept within what all series together may
(`room.py`).
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from typing import Any

from gateway.case import CaseImage
from gateway.contract import AskedWindow, SeriesShown
from gateway.intake.dicom.file import told_by_tag
from gateway.intake.dicom.picture import show_read
from gateway.intake.off_loop import off_loop
from gateway.intake.pixels import codec_errors_told, of_picture
from gateway.intake.series.order import Projection, Series, Slice, arranged, chosen
from gateway.intake.series.room import ROOM
from gateway.intake.series.slab import Slab
from gateway.intake.series.sources import Source
from gateway.refusals import Busy, TooLarge
from gateway.tables import Limits

EVEN = "even"
TRY_AGAIN_S = 5
Files = AsyncGenerator[tuple[Slice, Any, str], None]


async def pictures_of(
    source: Source, slices: str | None, window: AskedWindow | None, room: int, limits: Limits
) -> list[CaseImage]:
    """What was asked for, of which `room` is how many pictures the panel takes.

    Raises a `Refused` that says what to send instead.
    """
    waits = False
    try:
        async with asyncio.timeout(limits.series_s):
            headers = await source.headers()
            found = await off_loop(partial(_arranged, headers, limits))
            wanted = chosen(slices or EVEN, found, room, limits.max_images)
            shown = [found.slices[at] for positions in wanted.pictures for at in positions]
            memory = source.memory([each.file for each in shown])
            waits = True
            async with (
                ROOM.of(memory, int(limits.max_series_mb * 1_000_000)),
                aclosing(_files(source, shown)) as files,
            ):
                waits = False
                return [
                    await _picture(files, source, found, wanted.projection, positions, window)
                    for positions in wanted.pictures
                ]
    except TimeoutError as error:
        if waits:
            raise Busy("Other series are being read. Send yours again.", TRY_AGAIN_S) from error
        raise TooLarge(
            f"The series was not read within {limits.series_s:g} s. Send fewer slices."
        ) from error


def _arranged(headers: Sequence[Any], limits: Limits) -> Series:
    with codec_errors_told("The series"), told_by_tag("The series"):
        return arranged(headers, limits.max_slices)


async def _picture(
    files: Files,
    source: Source,
    series: Series,
    projection: Projection | None,
    positions: Sequence[int],
    window: AskedWindow | None,
) -> CaseImage:
    """Of the next files, which are those of the slices at these positions."""
    slab = Slab(projection) if projection else None
    for _ in positions:
        each, header, place = await anext(files)
        if slab:
            await off_loop(partial(slab.add, header, place, each.frame))
        else:
            picture = await off_loop(partial(_shown, header, place, each.frame, window))
    if slab:
        picture = await off_loop(partial(slab.picture, "The series", window))
    told = SeriesShown(
        first=positions[0] + 1,
        last=positions[-1] + 1,
        of=len(series.slices),
        projection=projection,
        faults=source.faults + series.faults,
        **source.reference([series.slices[at].file for at in positions]),
    )
    return replace(picture, shown=picture.shown.model_copy(update={"series": told}))


def _shown(header: Any, place: str, frame: int, window: AskedWindow | None) -> CaseImage:
    with codec_errors_told(place):
        shown = show_read(header, place, frame, window)
    return of_picture(shown.picture, shown.modality, shown.told)


async def _files(source: Source, slices: Sequence[Slice]) -> Files:
    """Each slice with the file that it is in, and what that is called; while it is worked on, the
    next files are on their way."""
    runs = [(at, list(run)) for at, run in groupby(slices, lambda each: each.file)]
    comes = (asyncio.ensure_future(source.file(at)) for at, _ in runs)
    coming = deque(islice(comes, 1))
    try:
        for at, run in runs:
            header = await coming[0]
            coming.popleft()
            coming += islice(comes, source.ahead - len(coming))
            for each in run:
                yield each, header, f"File {at + 1}"
    finally:
        for file in coming:
            file.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
