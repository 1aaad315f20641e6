"""`consilium ask`: every field of a case from the shell, a verdict for a person or as JSON."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from gateway.contract import Familiarity, OfImage, Remembered, Verdict
from tests.conftest import picture
from tests.fake_gateway import VERDICT, problem


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.png"
    path.write_bytes(picture())
    return path


def test_every_field_of_a_case_has_an_option(fake, consilium, scan):
    """What is not given is the gateway's own default."""
    gateway = fake()
    how = ("--gateway", gateway.url, "--key", "consilium_a\n")
    given = "--language en --context fever --modality ct --choices yes,no --workers a,b"
    given += " --summarise always --style sentence --rounds 2 --max-risk 0.2 --grounding"
    given += " --wait enough --deadline 9 --coverage 0.9 --reasoning --no-entailment --store sr"

    assert consilium("ask", scan, "-q", "Is it?", *given.split(), *how).status == 0
    assert consilium("ask", scan, scan, "-q", "Is it?", *how).status == 0

    full, plain = gateway.requests
    options = full.pop("options")
    assert (len(full.pop("images")), len(plain.pop("images"))) == (1, 2)
    assert full == {
        "question": "Is it?",
        "language": "en",
        "context": "fever",
        "modality": "ct",
        "choices": ["yes", "no"],
    }
    assert options == {
        "workers": ["a", "b"],
        "summarise": "always",
        "style": "sentence",
        "rounds": 2,
        "wait": "enough",
        "deadline_s": 9,
        "max_risk": 0.2,
        "grounding": True,
        "coverage": 0.9,
        "reasoning": True,
        "entailment": False,
        "store": "sr",
    }
    assert plain["choices"] is None and plain["options"]["workers"] is None
    assert gateway.keys == ["Bearer consilium_a"] * 2


def test_of_a_dicom_a_frame_and_a_window_for_each_image(fake, consilium, scan):
    gateway = fake()
    how = ("--gateway", gateway.url, "-q", "Is it?", "--frame", "3", "--frame", "1")

    consilium("ask", scan, scan, *how, "--window", "lung", "--window=-600,1500")
    wrong = consilium("ask", scan, *how)

    asked = [(image["frame"], image["window"]) for image in gateway.requests[0]["images"]]
    assert asked == [(3, "lung"), (1, [-600, 1500])]
    assert wrong.status == 2 and "once for each image" in wrong.err


def test_what_each_image_is_goes_with_it(fake, consilium, scan):
    gateway = fake()
    how = ("--gateway", gateway.url, "-q", "Is it?")
    consilium("ask", scan, scan, *how, "--view", "frontal", "--view", "lateral")
    consilium("ask", scan, *how)
    told, not_told = gateway.requests
    assert told["views"] == ["frontal", "lateral"] and "views" not in not_told


def test_a_series_is_asked_by_its_slices(fake, consilium, scan):
    """Files of one, or one in the archive; either has one window."""
    gateway = fake()
    how = ("-q", "Is it?", "--window", "lung", "--gateway", gateway.url)

    consilium("ask", scan, scan, "--slices", "max 40-120", *how)
    consilium("ask", "--study", "1.2", "--series", "1.2.3", *how)
    wrong = consilium("ask", scan, "--study", "1.2", *how)
    twice = consilium("ask", "--study", "1.2", "--window", "bone", *how)

    files, archived = gateway.requests
    assert (files["slices"], {image["window"] for image in files["images"]}) == (
        "max 40-120",
        {"lung"},
    )
    assert archived["images"] == []
    assert archived["dicomweb"] == {"study": "1.2", "series": "1.2.3", "window": "lung"}
    assert wrong.status == 2 and "give images, or --study" in wrong.err
    assert twice.status == 2 and "once for the whole series" in twice.err


def test_a_choice_may_hold_a_comma_where_each_is_given_alone(fake, consilium, scan):
    gateway = fake()
    choices = ("--choices", "left, upper", "--choices", "right")
    consilium("ask", scan, "-q", "?", *choices, "--gateway", gateway.url)
    assert gateway.requests[0]["choices"] == ["left, upper", "right"]


def test_json_is_the_verdict_as_the_gateway_gave_it(fake, consilium, scan):
    done = consilium("ask", scan, "-q", "?", "--json", "--gateway", fake().url)
    assert Verdict.model_validate_json(done.out) == VERDICT and done.out.count("\n") == 1


def test_a_person_is_shown_what_an_answer_goes_by(fake, consilium, scan):
    """Of a worker that remembers: the three cases that spoke loudest."""
    case = {"question": "Which organ?", "answer": "Liver", "likeness": 0.928}
    cases = tuple(Remembered(id=f"slake/{number}", **case) for number in range(5))
    [answer] = VERDICT.answers
    answers = (answer.model_copy(update={"remembers": cases}),)
    body = VERDICT.model_copy(update={"answers": answers}).model_dump_json().encode()

    done = consilium("ask", scan, "-q", "Is it?", "--gateway", fake((200, {}, body)).url)

    assert [line for line in done.out.splitlines() if "remembers" in line] == [
        f"w0 remembers slake/{number}, 0.93 alike: Which organ? Liver" for number in range(3)
    ]


def test_a_person_is_shown_what_was_said_to_each_image(fake, consilium, scan):
    [answer] = VERDICT.answers
    each = [("Liver", 0.928), ("Spleen", None)]
    said = tuple(OfImage(image=n, text=t, confidence=c) for n, (t, c) in enumerate(each, start=1))
    answers = (answer.model_copy(update={"by_image": said}),)
    body = VERDICT.model_copy(update={"answers": answers}).model_dump_json().encode()

    done = consilium("ask", scan, "-q", "Is it?", "--gateway", fake((200, {}, body)).url)

    assert "w0 of each image: 1: Liver (0.93), 2: Spleen (–)\n" in done.out


def test_a_person_is_shown_how_far_the_answer_depends_on_the_image(fake, consilium, scan):
    body = VERDICT.model_copy(update={"grounding": 0.018}).model_dump_json().encode()
    done = consilium("ask", scan, "-q", "Is it?", "--gateway", fake((200, {}, body)).url)
    assert "Grounding 0.02. The same answer as without the image.\n" in done.out


@pytest.mark.parametrize(
    ("unfamiliar", "said", "mark"),
    [
        (True, "Unfamiliar case: it is odd.", "unfamiliar: Yes"),
        (False, "Whether this case is familiar is not known: it is odd.", "not known whether"),
    ],
)
def test_a_person_is_told_whether_it_is_familiar_before_any_answer(
    unfamiliar, said, mark, fake, consilium, scan
):
    """Of one case in a sentence, of many in a mark before each answer."""
    known = Familiarity(unfamiliar=unfamiliar, why="it is odd")
    verdict = VERDICT.model_copy(update={"familiarity": known, "confidence": 0.8})
    odd = (200, {}, verdict.model_dump_json().encode())
    gateway = fake(odd, odd)
    folder = scan.parent / "scans"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(scan.read_bytes())

    one = consilium("ask", scan, "-q", "Is it?", "--gateway", gateway.url).out
    assert one.startswith(f"{said}\n") and "Yes" in one
    table = consilium("ask", folder, "-q", "Is it?", "--table", "--gateway", gateway.url).out
    first, second = [line for line in table.splitlines() if ".png" in line]
    assert mark in first and "Yes" in second and ":" not in second


def test_a_person_is_told_why_no_summariser_was_asked(fake, consilium, scan):
    why = "an answer is in another language"
    summary = VERDICT.summary.model_copy(update={"by": "vote", "why": why})
    body = VERDICT.model_copy(update={"summary": summary}).model_dump_json().encode()
    done = consilium("ask", scan, "-q", "Is it?", "--gateway", fake((200, {}, body)).url)
    assert f"worded by vote ({why}), " in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("answers", "shown"),
    [
        (
            ({"text": "Yes", "share": 0.6},),
            "One of these is right in 90% of such cases: Yes (0.60)",
        ),
        (None, "No set of answers is claimed: too few cases"),
    ],
)
def test_a_person_is_shown_the_set_of_answers(answers, shown, fake, consilium, scan):
    found = {"coverage": 0.9, "answers": answers, "why": "too few cases"}
    body = json.dumps(VERDICT.model_dump() | {"prediction_set": found}).encode()
    done = consilium("ask", scan, "-q", "Is it?", "--gateway", fake((200, {}, body)).url)
    assert f"{shown}\n" in done.out


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ({"instance": "1.2.3"}, "Stored in the archive as 1.2.3"),
        ({"error": "It is away."}, "Not stored in the archive: It is away."),
    ],
)
def test_a_person_is_shown_whether_it_is_stored(stored, shown, fake, consilium, scan):
    body = json.dumps(VERDICT.model_dump() | {"stored": stored}).encode()
    done = consilium("ask", scan, "-q", "Is it?", "--gateway", fake((200, {}, body)).url)
    assert f"{shown}\n" in done.out


def test_many_cases_are_a_line_each(fake, consilium, scan):
    """With what the options say where a case does not; a refused one is told, and the last word."""
    gateway, file = fake(problem(422, "No such language.")), scan.with_name("cases.jsonl")
    cases = [
        {"images": "scan.png", "question": "Où?", "language": "fr"},
        {"images": ["scan.png", "scan.png"], "question": "a\u2028b", "options": {"rounds": 2}},
    ]
    lines = [json.dumps(case, ensure_ascii=False) for case in cases]
    file.write_text("\ufeff" + lines[0] + "\r\n\r\n" + lines[1] + "\r\n", "utf-8")

    done = consilium("ask", "--cases", file, "--workers", "w0", "--gateway", gateway.url)

    refused, answered = map(json.loads, done.out.splitlines())
    assert (refused["line"], refused["problem"]["detail"]) == (1, "No such language.")
    assert answered == {"line": 3, "verdict": json.loads(VERDICT.model_dump_json())}
    assert done.status == 1 and done.err == "consilium: 1 of 2 cases have no verdict\n"
    assert [request["language"] for request in gateway.requests] == ["fr", None]
    second = gateway.requests[1]
    assert second["question"] == "a\u2028b" and len(second["images"]) == 2
    assert (second["options"]["rounds"], second["options"]["workers"]) == (2, ["w0"])


def test_an_image_of_many_may_say_what_of_it_is_shown(fake, consilium, scan):
    gateway, file = fake(), scan.with_name("cases.jsonl")
    shown = {"data": "scan.png", "frame": 2, "window": [40, 80]}
    cases = [{"images": images, "question": "?"} for images in ([shown, "scan.png"], shown)]
    file.write_text("\n".join(map(json.dumps, cases)))
    how = ("--cases", file, "--gateway", gateway.url)

    assert consilium("ask", *how).status == 0
    (one, other), (alone,) = (request["images"] for request in gateway.requests)
    assert (one["frame"], one["window"]) == (2, [40, 80]) and one == alone
    assert other == {"data": one["data"]}

    wrong = consilium("ask", *how, "--frame", "2")
    assert wrong.status == 2 and "stand in the file" in " ".join(wrong.err.split())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "line 2: no JSON (Expecting property name"),
        (b"[]", "line 2: no JSON object"),
        (b'{"images": "scan.png"}', "line 2: no question"),
        (b'{"images": "scan.png", "question": "?", "rounds": 2}', "line 2: unknown rounds"),
        (b'{"images": "scan.png", "question": "?", "options": [1]}', "line 2: options: an object"),
        (
            b'{"images": "scan.png", "question": "?", "question": "!"}',
            "line 2: two 'question'; mend",
        ),
        (b'{"images": [{"frame": 1, "frame": 2}], "question": "?"}', "line 2: two 'frame'; mend"),
        (b'{"images": "none.png", "question": "?"}', "none.png is no file"),
        (b'{"images": {"data": "none.png"}, "question": "?"}', "none.png is no file"),
        (b'{"images": "%s", "question": "?"}' % (b"A" * 999), "AAA is no file"),
        (b'{"question": "?"}', "line 2: images: a path, or an object"),
        (b'{"images": null, "question": "?"}', "line 2: images: a path, or an object"),
        (b'{"images": ["scan.png", null], "question": "?"}', "line 2: images: a path"),
        (b"image,question", "line 2: no JSON (Expecting value at column 1)"),
        (b"[" * 100_000, "line 2: it is nested too deep"),
        (b'{"images": [{"frame": 2}], "question": "?"}', "line 2: images: a path"),
        (b'{"images": [{"data": 7}], "question": "?"}', "line 2: images: a path"),
        (b'{"images": "scan.png", "question": "\xe9"}', "line 2, is not UTF-8 (byte 0xe9)"),
    ],
)
def test_a_line_that_is_no_case_is_named_before_any_is_asked(line, says, fake, consilium, scan):
    gateway, file = fake(), scan.with_name("cases.jsonl")
    file.write_bytes(b'{"images": "scan.png", "question": "?"}\n' + line)
    done = consilium("ask", "--cases", file, "--gateway", gateway.url)
    assert done.status == 1 and says in done.err and done.err.count("\n") == 1
    assert not gateway.requests


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-q", "?"),
        ("--cases", __file__, "-q", "?"),
        (Path(__file__).parent, __file__, "-q", "?"),
        (Path(__file__).parent, "-q", "?", "--frame", 1),
        (Path(__file__).parent, "-q", "?", "--view", "frontal"),
        (Path(__file__).parent, "-q", "?", "--stream"),
        (Path(__file__).parent,),
        (Path(__file__).parent, "-q", "?", "--table", "--json"),
        (__file__, "-q", "?", "--table"),
    ],
)
def test_it_takes_a_case_or_a_file_or_folder_of_them(arguments, consilium):
    assert consilium("ask", *arguments).status == 2


def test_a_folder_is_a_case_for_each_file(fake, consilium, scan):
    """In the order of their names, hidden files left out; a table where one is wanted, and in it
    what a refusal says."""
    gateway = fake(problem(415, "The image is not one that is served."))
    folder = scan.parent / "scans"
    folder.mkdir()
    for name in ("b.png", "a.txt", ".hidden"):
        (folder / name).write_bytes(picture())

    done = consilium("ask", folder, "-q", "Is it?", "--table", "--gateway", gateway.url)

    assert done.status == 1 and done.err == "consilium: 1 of 2 cases have no verdict\n"
    first, second = [line for line in done.out.splitlines() if ".txt" in line or ".png" in line]
    assert "a.txt" in first and "415:" in first and "b.png" in second and "Yes" in second
    lines = consilium("ask", folder, "-q", "Is it?", "--gateway", gateway.url).out.splitlines()
    assert [json.loads(line)["image"] for line in lines] == ["a.txt", "b.png"]


def test_what_is_said_is_shown_as_it_comes(vllm, gateway, consilium, scan):
    """For a person, or a JSON object for each event."""
    url = gateway([vllm("yes"), vllm(status=500, raw=b"")])
    how = ("ask", scan, "-q", "Is it?", "--stream", "--gateway", url)

    told, as_json = consilium(*how).out, consilium(*how, "--json").out

    assert "s, w0: yes\n" in told and "s, w1: unreachable: " in told
    assert " of 2: yes\n" in told and "Verdict: yes\n" in told
    kinds = [next(iter(json.loads(line))) for line in as_json.splitlines()]
    assert kinds[-1] == "verdict" and set(kinds[:-1]) == {"answer", "provisional"}


def test_a_key_that_cannot_be_sent_is_one_line(consilium, scan, monkeypatch):
    """Not a traceback, and not taken for a gateway that is down."""
    monkeypatch.setenv("CONSILIUM_KEY", "kü")
    done = consilium("ask", scan, "-q", "?")
    assert done.status == 1
    assert done.err.startswith("consilium: The key holds a character that no key has")


def test_it_says_which_version_it_is(consilium):
    assert consilium("--version").out == f"consilium {version('consilium')}\n"
