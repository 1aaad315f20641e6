"""What kind of object a DICOM file is: whether it is a picture of a patient (PS3.4 B.5) that can be
decoded (PS3.5 10), and how it was made (PS3.3 C.7.3.1.1.1)."""

import math
from collections.abc import Sequence
from typing import Any

from pydicom.uid import UID

from gateway.contract import Modality
from gateway.intake.dicom.codecs import COMPRESSED, UNCOMPRESSED
from gateway.intake.dicom.values import number
from gateway.refusals import UnreadableImage

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

# The defined terms of (0008,0060), C.7.3.1.1.1, that say enough.
MODALITIES: dict[str, Modality] = {
    "CT": "ct",
    "MR": "mri",
    **dict.fromkeys(("CR", "DX", "MG", "RF", "RG", "XA", "IO", "PX"), "xray"),
    **dict.fromkeys(("US", "IVUS"), "ultrasound"),
    **dict.fromkeys(("NM", "PT"), "nuclear"),
    **dict.fromkeys(("XC", "DMS"), "photograph"),
    **dict.fromkeys(("OP", "OPT", "OCT"), "fundus"),
    "ES": "endoscopy",
    **dict.fromkeys(("GM", "SM"), "microscopy"),
}

# SOP classes (PS3.4 B.5) whose pixels, where they have any, are no picture of a patient: what was
# outlined, planned, measured or written about one.
STORAGE = "1.2.840.10008.5.1.4.1.1."
NO_PICTURES = tuple(STORAGE + part for part in ("9.", "11.", "66.", "88.", "104.", "481."))
RT_IMAGES = {STORAGE + part for part in ("481.1", "481.23", "481.24")}
# By C.7.3.1.1.1 these are none either; it is asked where the SOP class is none that is known.
MADE_FROM_PICTURES = {
    "ANN", "AR", "ASMT", "AU", "CTPROTOCOL", "DOC", "ECG", "EEG", "EMG", "EOG", "EPS", "FID",
    "HD", "IOL", "KER", "KO", "LEN", "M3D", "OAM", "OPV", "OSS", "PLAN", "POS", "PR", "REG",
    "RESP", "RTDOSE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV",
    "SEG", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "VA", "XAPROTOCOL",
}  # fmt: skip
OF_ITS_OWN = "DICOM of a kind of its own"
# Of a slide's tiles (C.8.12.4), or of a pyramid's, no single one is the picture.
TILED = {STORAGE + "77.1.6", STORAGE + "77.1.9"}


def check_is_image(header: Any, place: str) -> None:
    """PS3.4 B.5: whether it is a picture, and PS3.5 10: whether it can be decoded."""
    kind, name = _kind(header)
    if not any(header.get(keyword) for keyword in PIXELS):
        raise UnreadableImage(
            f"{place} is a DICOM without pixels, or cut short before they end: (0008,0016) SOP "
            f"Class UID is {name}. Send one that holds an image.",
            code="no_picture",
        )
    check_is_picture(header, place)
    if (kind in TILED or _is_tiled(header)) and not _is_whole(header):
        raise UnreadableImage(
            f"{place} is cut into tiles: (0008,0016) SOP Class UID is {name}. "
            "Send the region that you ask about as one picture, best as PNG.",
            code="tiled",
        )
    syntax = header.file_meta.TransferSyntaxUID
    if syntax not in COMPRESSED | UNCOMPRESSED:
        named = syntax.name if syntax.is_transfer_syntax else "not a standard one"
        raise UnreadableImage(
            f"{place}: (0002,0010) Transfer Syntax UID is {named}, which is not decoded here. "
            "Send it uncompressed, or as PNG.",
            code="compression",
        )


def check_is_picture(header: Any, place: str) -> None:
    """PS3.4 B.5; raises UnreadableImage."""
    kind, name = _kind(header)
    if kind.startswith(NO_PICTURES) and kind not in RT_IMAGES:
        raise UnreadableImage(
            f"{place} is no picture of a patient: (0008,0016) SOP Class UID is {name}. "
            "Send the image that it was made from.",
            code="no_picture",
        )
    told = made_by(header)
    if name == OF_ITS_OWN and told and told <= MADE_FROM_PICTURES:
        raise UnreadableImage(
            f"{place} is no picture of a patient: (0008,0060) Modality is {min(told)}. "
            "Send the image that it was made from.",
            code="no_picture",
        )


def _kind(header: Any) -> tuple[UID, str]:
    """Its SOP class, and what that is called."""
    kind = UID(
        str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID", ""))
    )
    # Only a name from the standard: an unknown value is the sender's own text.
    return kind, kind.name if kind.is_valid and kind.name != kind else OF_ITS_OWN


def _is_tiled(header: Any) -> bool:
    """C.7.6.17.3, or by C.8.12.4 a whole that is larger than one frame of it."""
    if str(header.get("DimensionOrganizationType")).startswith("TILED"):
        return True
    return any(
        (number(header, f"TotalPixelMatrix{side}") or 0) > (number(header, side) or math.inf)
        for side in ("Rows", "Columns")
    )


def _is_whole(header: Any) -> bool:
    """C.8.12.4: a slide's thumbnail, label or overview is one tile as large as all of it."""
    one = (number(header, "NumberOfFrames") or 1) == 1
    return one and all(
        number(header, f"TotalPixelMatrix{side}") == (number(header, side) or math.inf)
        for side in ("Rows", "Columns")
    )


def made_by(header: Any) -> set[str]:
    """What (0008,0060) says, as the defined terms are spelled. It should be one, and may be several
    or none."""
    said = header.get("Modality") or ""
    values = said if isinstance(said, Sequence) and not isinstance(said, str) else [said]
    return {term for value in values if (term := str(value).strip(" \0").upper())}


def modality_of(header: Any) -> Modality | None:
    """None where it says several: which of them this picture is by nobody knows."""
    told = {MODALITIES.get(term) for term in made_by(header)}
    return told.pop() if len(told) == 1 else None
