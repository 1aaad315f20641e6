"""Text that is burned into a picture's pixels: told, blacked out, or refused.

It is read by RapidOCR (PP-OCRv6 on onnxruntime), which comes with the extra [burned-in]. Side marks
and projections ("L", "AP", "LAT") are no text here, and so a line that holds no more than a name
as short as they are ("LEE") is none either.
"""

import io
import threading
import unicodedata
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gateway.case import CaseImage
from gateway.contract import BurnedIn
from gateway.intake.pixels import of_picture
from gateway.refusals import InvalidCase

Box = tuple[int, int, int, int]  # left, top, right, bottom

SIDE = 960  # pixels of the longer side as it is read; memory and time grow with its square
SURE = 0.6  # of what was read
FEWEST, FEWEST_HAN = 4, 2  # letters and digits of a text; a Chinese name has but two
HAN = "\u3400"  # and beyond: Chinese, Japanese, Korean
AROUND = 0.25  # of a line's height: so much more is blacked out on every side

_one_at_a_time = threading.Lock()  # each needs some hundred MB while it is read


def heeded(image: CaseImage, place: str, how: BurnedIn) -> CaseImage:
    """The image as it may be asked about; raises InvalidCase where it may not."""
    picture = Image.open(io.BytesIO(image.data))
    picture.load()
    boxes = text_in(picture)
    if not boxes:
        return image
    if how == "refuse":
        raise InvalidCase(
            f"{place} has text burned into its pixels. Black it out, or send one without.",
            code="burned_in_text",
        )
    if how == "warn":
        return replace(image, shown=image.shown.model_copy(update={"burned_in": "left"}))
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        draw.rectangle(box, fill=0)
    told = image.shown.model_copy(update={"burned_in": "masked", "converted": True})
    return of_picture(picture, image.modality, told)


def text_in(picture: Image.Image) -> list[Box]:
    """Where lines of text are, in pixels, with some room around them."""
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    with _one_at_a_time:
        read = _reader()(np.ascontiguousarray(pixels[..., ::-1]))
    if not read:
        return []
    boxes = []
    for corners, text, score in zip(read.boxes, read.txts, read.scores, strict=True):
        if score >= SURE and _is_text(text):
            (left, top), (right, bottom) = np.min(corners, axis=0), np.max(corners, axis=0)
            more = AROUND * (bottom - top)
            around = (left - more, top - more, right + more, bottom + more)
            left, top, right, bottom = (int(at / scale) for at in around)
            boxes.append((left, top, right, bottom))
    return boxes


def _is_text(read: str) -> bool:
    letters = [each for each in unicodedata.normalize("NFKC", read) if each.isalnum()]
    han = sum(each >= HAN for each in letters)
    return len(letters) >= FEWEST or han >= FEWEST_HAN


@lru_cache(maxsize=1)
def _reader() -> Any:
    # Imported at the first picture: it takes a second, and few gateways want it.
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_cls": False,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.limit_type": "max",
            "Det.limit_side_len": SIDE,
        }
    )
