"""How a file begins that holds a series of its own, whatever else is said of it."""

ZIP = (b"PK\3\4", b"PK\5\6")  # by its first file, or, where it is empty, its end
GZIP = b"\x1f\x8b"
NIFTI_HEADERS = (348, 540)  # bytes, by which a NIfTI of version 1 or 2 begins


def is_whole_series(data: bytes) -> bool:
    """Whether it is a zip, a gzip by deflate, or a NIfTI."""
    return data.startswith((*ZIP, GZIP + b"\x08")) or is_nifti(data)


def is_nifti(data: bytes) -> bool:
    """Whether it is one that is not packed, in either order of bytes."""
    return any(int.from_bytes(data[:4], order) in NIFTI_HEADERS for order in ("little", "big"))
