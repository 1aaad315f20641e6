"""A verdict → a Secondary Capture: a page of text, for viewers that show no report."""

import textwrap
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.archive.structured_report import SERIES_NUMBER
from gateway.archive.words import RESEARCH, lines
from gateway.contract import Verdict

WIDTH, MARGIN, SIZE = 1024, 32, 20  # pixels
COLUMNS = 80


def page(verdict: Verdict, question: str, images: Sequence[Dataset]) -> Dataset:
    """`images` are the headers of what the panel was shown, as the archive has them."""
    return hd.sc.SCImage.from_ref_dataset(
        ref_dataset=images[0],
        pixel_array=_drawn(verdict, question),
        photometric_interpretation=hd.PhotometricInterpretationValues.MONOCHROME2,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER + 1,
        series_description=RESEARCH,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="Consilium",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )


def _drawn(verdict: Verdict, question: str) -> np.ndarray:
    """White on black, [rows, columns]."""
    figures = {"Agreement": verdict.agreement, "Confidence": verdict.confidence}
    told = [*lines(verdict, question), *((k, f"{v:.2f}") for k, v in figures.items() if v)]
    text = "\n".join(
        line for name, said in told for line in textwrap.wrap(f"{name}: {said}", COLUMNS)
    )
    height = 2 * MARGIN + (text.count("\n") + 1) * (SIZE + 8)
    image = Image.new("L", (WIDTH, height))
    font = ImageFont.load_default(SIZE)
    ImageDraw.Draw(image).multiline_text((MARGIN, MARGIN), text, 255, font, spacing=8)
    return np.asarray(image)
