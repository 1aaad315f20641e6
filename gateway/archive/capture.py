"""A verdict → a Secondary Capture: a page of text, for viewers that show no report."""

import textwrap
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.archive.structured_report import SERIES_NUMBER
from gateway.archive.words import RESEARCH, figures, lines, uid_of
from gateway.contract import Verdict
from gateway.refusals import InvalidCase

WIDTH, MARGIN, SIZE = 1024, 32, 20  # pixels
# Beside Pillow's own, which has English letters alone: Debian's fonts-dejavu-core, -noto-cjk and
# -wqy-zenhei.
FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc")
NO_LETTER = "\U0010ffff"


def page(verdict: Verdict, question: str, images: Sequence[Dataset]) -> Dataset:
    """`images` are the headers of what the panel was shown, as the archive has them."""
    made = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=images[0],
        pixel_array=_drawn(verdict, question),
        photometric_interpretation=hd.PhotometricInterpretationValues.MONOCHROME2,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),
        series_instance_uid=uid_of("page's series", verdict, question, images),
        series_number=SERIES_NUMBER + 1,
        series_description=RESEARCH,
        sop_instance_uid=uid_of("page", verdict, question, images),
        instance_number=1,
        manufacturer="Consilium",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    made.Laterality = ""  # type 2C of PS3.3 C.7.3.1, and nothing is known of it
    return made


def _drawn(verdict: Verdict, question: str) -> np.ndarray:
    """White on black, [rows, columns]."""
    numbers = ((name, f"{value:.2f}") for name, value in figures(verdict).items())
    told = [*lines(verdict, question), *numbers]
    texts = [f"{name}: {said}" for name, said in told]
    font = _font({*"".join(texts)})
    columns = int((WIDTH - 2 * MARGIN) / max(font.getlength(each) for each in {*"".join(texts)}))
    text = "\n".join(line for each in texts for line in textwrap.wrap(each, columns))
    height = 2 * MARGIN + (text.count("\n") + 1) * (SIZE + 8)
    image = Image.new("L", (WIDTH, height))
    ImageDraw.Draw(image).multiline_text((MARGIN, MARGIN), text, 255, font, spacing=8)
    return np.asarray(image)


def _font(letters: set[str]) -> ImageFont.FreeTypeFont:
    """The first that has them all; raises InvalidCase."""
    for name in (None, *FONTS):
        try:
            font = ImageFont.truetype(name, SIZE) if name else ImageFont.load_default(SIZE)
        except OSError:  # it is not installed
            continue
        assert isinstance(font, ImageFont.FreeTypeFont)
        nothing = bytes(font.getmask(NO_LETTER))
        if not any(bytes(font.getmask(each)) == nothing for each in letters if each.isprintable()):
            return font
    raise InvalidCase(
        "No font here has the letters of the page: have fonts-dejavu-core or fonts-noto-cjk "
        "installed, or store a report (sr)."
    )
