"""How a file begins that holds a series of its own, whatever else is said of it."""

ZIP = b"PK\3\4"
GZIP = b"\x1f\x8b"
NIFTI_HEADERS = (348, 540)  # bytes, by which a NIfTI of version 1 or 2 begins


def is_whole_series(data: bytes) -> bool:
    """Whether it is a zip, a gzip by deflate, or a NIfTI in either order of bytes."""
    return data.startswith(
        (
            ZIP,
            GZIP + b"\x08",
            *(size.to_bytes(4, end) for size in NIFTI_HEADERS for end in ("little", "big")),
        )
    )
