"""A form is read as RFC 2046 and RFC 7578 have it, whoever wrote it, or refused by one sentence
that names what is wrong with it; never read by half."""

import re

import pytest

from gateway.intake.body.form import Form, form_of
from gateway.refusals import InvalidCase, MalformedRequest, Refused, TooLarge, UnsupportedMedia

KIND = "multipart/form-data; boundary=b"
QUESTION = b'Content-Disposition: form-data; name="question"\r\n\r\nq?'
DATA = b"\x89PNG\r\n\x1a\n--\r\n--\xff\r\n-b\n-b --b\r"  # what is nearly a boundary is none
HEAD = b'Content-Disposition: form-data; name="images"; filename="a.png"\r\n'
IMAGE = HEAD + b"Content-Type: image/png\r\n\r\n" + DATA


def body(*parts: bytes, line: bytes = b"--b", rest: bytes = b"\r\n") -> bytes:
    return b"".join(line + rest + part + b"\r\n" for part in parts) + line + b"--\r\n"


def read(sent: bytes, kind: str = KIND, most: int = 16) -> Form:
    return form_of(kind, sent, most)


WHOLE = body(QUESTION, IMAGE)
LONG = "B" * 70


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (WHOLE, KIND),
        (b"Made by hand.\r\n" + WHOLE, KIND),
        (b"\r\n" + WHOLE, KIND),
        (WHOLE + b"The end.\r\n" + WHOLE, KIND),  # nobody reads on behind the last
        (WHOLE[:-2], KIND),
        (WHOLE[:-2] + b" \t\r\n", KIND),
        (WHOLE[:-2] + b"\n", KIND),  # as an editor ends a file
        (body(QUESTION, IMAGE, rest=b" \t \r\n"), KIND),
        (WHOLE, 'multipart/form-data; boundary="b"'),
        (WHOLE, "multipart/form-data;charset=UTF-8;BOUNDARY = b ; x=y"),
        (
            body(QUESTION, IMAGE, line=b"--(a, b)?'=:"),
            'multipart/form-data; boundary="(a, b)?\'=:"',
        ),
        (body(QUESTION, IMAGE, line=b'--a"b'), r'multipart/form-data; boundary="a\"b"'),
        (body(QUESTION, IMAGE, line=b"----"), "multipart/form-data; boundary=--"),
        (body(QUESTION, IMAGE, line=f"--{LONG}".encode()), f"multipart/form-data; boundary={LONG}"),
    ],
)
def test_a_body_is_taken_apart_at_its_boundaries(sent, kind):
    """With what stands before and behind them, padded or in quotes (RFC 2046 section 5.1.1)."""
    assert read(sent, kind) == ({"question": "q?"}, [DATA], {"frame": [], "window": []})


@pytest.mark.parametrize(
    "head",
    [
        'content-disposition:form-data;name="images";filename="a.png"',
        "CONTENT-DISPOSITION: Form-Data; NAME=images; FileName=a.png",
        'Content-Disposition: form-data; filename="a.png"; name="images"',
        'Content-Disposition: form-data;\r\n name="images";\r\n\tfilename="a.png"',
        "Content-Disposition: form-data; name=images; filename*=UTF-8''%C3%BC.png",
        "Content-Disposition: form-data; name=images; filename=u.png; filename*=utf-8''%C3%BC",
        'Content-Disposition: form-data; name=images; filename*0="a"; filename*1=".png"',
        'Content-Disposition: form-data; name="images"; filename="ü; name=x.png"',
        r'Content-Disposition: form-data; name="images"; filename="a\"; b.png"',
        r'Content-Disposition: form-data; name="images"; filename="C:\a\"',
        'X-Y: z\r\nContent-Length: 7\r\nContent-Disposition: file; name="images"; filename="a"',
        'Content-Disposition: form-data; name="images[]"; filename="a.png"',
    ],
)
def test_an_image_is_one_however_its_headers_are_written(head):
    """In any case and order, folded (RFC 5322), named after RFC 5987, by browsers or by curl."""
    assert read(body(QUESTION, f"{head}\r\n\r\n".encode() + DATA)).images == [DATA]


def text(name: str, value: bytes, more: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (text("question", b""), ""),
        (text("question", b"a\r\nb\r\n\r\nc"), "a\nb\n\nc"),  # as JSON has it
        (text("question", "\ufeff¿Hay?".encode()), "¿Hay?"),
        (text("question", b"-" * 1_000_000), "-" * 1_000_000),
        (text("question", b"q", '; filename="blob"'), "q"),
        (b'Content-Disposition: form-data; name="question"\r\n', ""),  # no line of its own
    ],
    ids=["nothing", "lines", "a mark", "a megabyte", "as a file", "no body"],
)
def test_a_text_is_what_was_meant(part, says):
    assert read(body(part)).content == {"question": says}


def test_what_javascript_calls_nothing_is_nothing():
    """FormData makes texts of null and undefined, and the workers would read them."""
    for nothing in (b"", b"null", b"undefined"):
        fields = ("context", "modality", "options", "choices", "frame", "window", "views")
        form = read(body(QUESTION, *(text(name, nothing) for name in fields)))
        assert form.content == {"question": "q?", "views": [""]}
        assert form.shown == {"frame": [""], "window": [""]}


@pytest.mark.parametrize(
    ("name", "value"),
    [("choices", b"yes,no"), ("choices", b'["yes", "no"]'), ("views", b'["frontal"]')],
)
def test_a_list_in_one_field_is_not_one_of_its_items(name, value):
    with pytest.raises(InvalidCase, match=f"{name}: in a form send a field for each"):
        read(body(QUESTION, text(name, value)))
    assert read(body(QUESTION, *[text(name, b"[1]")] * 2)).content[name] == ["[1]", "[1]"]


def test_an_object_may_be_sent_as_a_file_of_json():
    """As a browser sends a Blob."""
    more = '; filename="blob"\r\nContent-Type: application/json'
    assert read(body(text("options", b'{"rounds": 2}', more))).content["options"] == {"rounds": 2}


@pytest.mark.parametrize(("head", "images"), [(HEAD, 1), (HEAD.replace(b"a.png", b""), 0)])
def test_a_file_that_was_not_chosen_is_no_empty_image(head, images):
    """HTML sends such an input without a name and without a byte."""
    assert len(read(body(QUESTION, head + b"\r\n")).images) == images


WRONG: list[tuple[str, bytes, str, type[Refused], str]] = [
    ("no boundary", WHOLE, "multipart/form-data", MalformedRequest, "no boundary of 1 to 70"),
    ("an empty one", WHOLE, 'multipart/form-data; boundary=""', MalformedRequest, "no boundary of"),
    ("a long one", body(line=b"--B" + LONG.encode()), f"{KIND}{LONG}", MalformedRequest, "to 70"),
    ("another", WHOLE, "multipart/form-data; boundary=c", MalformedRequest, "not in the body"),
    ("no form", b"hello", KIND, MalformedRequest, "not in the body"),
    ("lines", WHOLE.replace(b"\r\n", b"\n"), KIND, MalformedRequest, "ends in LF alone"),
    ("an LF first", b"\n" + WHOLE, KIND, MalformedRequest, "first boundary of the form"),
    ("a word first", b"a " + WHOLE, KIND, MalformedRequest, "first boundary of the form"),
    ("between", WHOLE.replace(b"q?\r", b"q?"), KIND, MalformedRequest, "in LF alone"),
    ("at the end", WHOLE.replace(b"\r\r\n", b"\n"), KIND, MalformedRequest, "in LF alone"),
    ("a line", WHOLE.replace(b"--b\r\n", b"--b\n", 1), KIND, MalformedRequest, "in LF alone"),
    ("a header's", WHOLE.replace(b".png\"\r", b".png\""), KIND, MalformedRequest, "in LF alone"),
    ("more", WHOLE.replace(b"--b\r", b"--bc\r"), KIND, MalformedRequest, "begins as its boundary"),
    ("its end", WHOLE.replace(b"--b\r", b"--b--c\r", 1), KIND, MalformedRequest, "begins as its"),
    ("in it", body(text("question", b"a\r\n--bc")), KIND, MalformedRequest, "begins as its bound"),
    ("no headers", body(b"q?"), KIND, MalformedRequest, "no empty line"),
    ("none at all", body(b"\r\nq?"), KIND, MalformedRequest, "no Content-Disposition"),
    ("others", body(b"Content-Type: text/plain\r\n\r\nq?"), KIND, MalformedRequest, "no Content-D"),
    ("no name", body(text("", b"q?")), KIND, MalformedRequest, "no Content-D"),
    ("bytes", body(QUESTION.replace(b"ques", b"\xff")), KIND, UnsupportedMedia, "in UTF-8"),
    ("twice", body(QUESTION, QUESTION), KIND, InvalidCase, "question: send it once"),
    ("many", body(*[IMAGE] * 17), KIND, TooLarge, "over 16 files"),
    ("long", body(text("question", b"q?", "; a=b" * 2_000)), KIND, TooLarge, "over 8192 bytes"),
    ("a file", body(text("pdf", b"", "; filename=a")), KIND, InvalidCase, "call the field images"),
    ("a name", body(text("a\r\n b", b"")), KIND, InvalidCase, "a field: it is not a known field"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "kind", "error", "says"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG]
)
def test_what_is_wrong_with_a_form_is_named(sent, kind, error, says):
    with pytest.raises(error, match=re.escape(says)):
        read(sent, kind)


def test_a_form_that_is_cut_anywhere_is_refused():
    """What is there of it might be another case. Up to the hyphens behind its last boundary."""
    whole = WHOLE[:-2]
    for there in range(1, len(whole)):
        with pytest.raises(MalformedRequest):
            read(whole[:there])
    assert read(whole).images == [DATA]


def test_thousands_of_parts_are_no_work():
    """None is read that is one too many."""
    with pytest.raises(TooLarge):
        read(body(*[QUESTION] * 20_000))
