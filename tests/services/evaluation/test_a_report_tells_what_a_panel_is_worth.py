"""`consilium report`: the figures are those that a hand counts, and the page stands alone."""

import base64
import csv
import io
import json
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
from matplotlib import pyplot
from pyarrow import json as arrow
from typer.testing import CliRunner

from gateway.contract import Familiarity, Summary
from gateway.refusals import Problem
from gateway.verdict.competence import Competence
from models.data import own_file
from models.data.example import without_images
from models.data.image_hashes import pixel_hashes
from models.metrics import score as bootstrap
from services.cli.__main__ import app
from services.evaluation import pictures
from services.evaluation.heard import HASH_DIGITS
from services.evaluation.replay import replay
from services.evaluation.report.write import report
from services.evaluation.stored_run import EvaluationError
from tests.conftest import picture, until
from tests.services.conftest import EACH
from tests.services.evaluation.runs import Said, keep, verdict, write_run, write_set

ROWS: list[dict[str, object]] = [
    {"id": 1, "images": "a.png", "question": "Is <b>it</b>?", "answer": "yes", "modality": "CT"},
    {"id": 2, "images": "a.png", "question": "Is it | so?", "answer": "no", "modality": "CT"},
    {"id": 3, "images": "bb.png", "question": "Which?", "answer": "lung", "modality": "MRI"},
    {"id": 4, "images": "gone.png", "question": "Which?", "answer": "liver", "kind": "Organ"},
]
SAID: dict[str, Said] = {
    "1": {"panel": "Yes", "a": "Yes", "b": "Yes", "c": "no"},
    "2": {"panel": "yes", "a": "yes", "b": "<script>alert(1)</script>|", "c": "No."},
    "3": {"panel": "heart", "a": "heart", "b": "heart", "c": "heart"},
    "4": {"panel": "liver", "a": "liver", "b": "liver", "c": None},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the report of one run, whose pictures and words were hostile."""
    folder = tmp_path_factory.mktemp("report")
    own = write_set(folder, ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RESAMPLES", 50)
        # Asked when all images were there.
        report([write_run(folder / "run", own, SAID)], Path("none"), folder / "out")
    return folder


@pytest.fixture(scope="module")
def figures(folder: Path) -> Any:
    return json.loads((folder / "out" / "report.json").read_text("utf-8"))


def test_its_figures_are_those_that_a_hand_counts(figures: Any) -> None:
    right = {
        (each["by"], each["of"], each["voice"]): (each["correct"], each["scored"])
        for each in figures["rates"]
    }
    assert [right["all", "all", who] for who in ("panel", "a", "b", "c", "any member")] == [
        (2, 4), (2, 4), (2, 4), (1, 3), (3, 4)
    ]  # fmt: skip
    assert right["form", "closed", "c"] == (1, 2) and right["form", "open", "panel"] == (1, 2)
    assert right["modality", "CT", "panel"] == (1, 2)
    assert right["kind of question", "Organ", "panel"] == (1, 1)
    (over,) = figures["over_best_member"]
    assert (over["of"], over["best"], over["value"], over["cases"]) == ("own all en", "a", 0, 4)
    found = {name: (each["value"], each["cases"]) for name, each in figures["by_agreement"].items()}
    assert found == {"3 of 3": (0, 1), "2 of 3": (1, 1), "2 of 2": (1, 1), "1 of 3": (0, 1)}
    apart = {pair: each["value"] for pair, each in figures["disagreement"].items()}
    assert apart == {"a and b": 1 / 4, "a and c": 2 / 3, "b and c": 2 / 3}
    assert figures["seconds"]["b"] == {"answers": 4, "p50": 2, "p90": 2, "p99": 2}
    assert figures["wrong_of_the_surest"]["panel"]["100%"] == 0.5
    # It was as sure of each: which of them comes first tells nothing.
    bins = figures["reliability"]["a"]
    assert [(each["cases"], each["confidence"], each["right"]) for each in bins] == 4 * [
        (1, 0.6, 0.5)
    ]
    assert figures["coverage"]["a"] == [
        {"answered": share, "wrong": 0.5} for share in (1 / 4, 1 / 2, 3 / 4, 1)
    ]
    others = {
        (each["score"], each["voice"]): each for each in figures["scorers"] if each["by"] == "run"
    }
    closed, words = others["closed accuracy", "b"], others["token recall", "c"]
    assert (closed["value"], closed["cases"], closed["of"]) == (0.5, 2, "own all en")
    of_a_part = {
        (each["by"], each["of"], each["score"], each["voice"]): each["cases"]
        for each in figures["scorers"]
    }
    assert of_a_part["form", "open", "token recall", "c"] == 1
    assert ("form", "open", "closed accuracy", "b") not in of_a_part
    assert (words["value"], words["cases"]) == (0, 1) and closed["low"] <= 0.5 <= closed["high"]
    assert figures["familiarity"] == {}  # this panel does not say


def test_a_case_worth_looking_at_is_shown_once(figures: Any) -> None:
    """The panel was wrong twice: against a member who knew, and with all of them."""
    shown = [[case["id"] for case in cases] for cases in figures["cases"].values()]
    assert shown == [["own all en/2"], ["own all en/3"], []]
    (votes,) = (case["votes"] for case in figures["cases"]["All say the same, and it is wrong"])
    assert [vote["right"] for vote in votes] == [False, False, False]


def test_where_nothing_is_claimed_the_panel_is_least_sure(tmp_path: Path) -> None:
    """However many agree in an unfamiliar case: it is no case of being sure and wrong, and is among
    all the answers."""
    own = write_set(tmp_path, ROWS)
    run = write_run(tmp_path / "run", own, {"1": SAID["1"], "2": SAID["2"]})
    odd = verdict({"panel": "heart", "a": "lung", "b": "heart"}, sure=None).model_copy(
        update={
            "agreement": 1,
            "familiarity": Familiarity(image=0.01, unfamiliar=True, why="an <odd> image"),
            "grounding": 0.02,
            "summary": Summary(by="summariser", faithful=True, seconds=0.5),
        }
    )
    keep(run, "3", odd)
    known = verdict(SAID["4"]).model_copy(
        update={"familiarity": Familiarity(image=0.5, unfamiliar=False)}
    )
    keep(run, "4", known)
    report([run], Path("none"), tmp_path / "out")

    found = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert found["wrong_of_the_surest"]["panel"]["100%"] == 0.5
    assert found["wrong_of_the_surest"]["panel"]["50%"] == pytest.approx(1 / 3)
    assert found["calibration_error"]["panel"]["cases"] == 3
    knew = found["cases"]["The panel is wrong and a member is right"]
    assert [case["id"] for case in knew] == ["own all en/2", "own all en/3"]
    told = {
        how: (each["questions"], each["right"]["value"], each["with_a_confidence"],
              each["wrong_and_sure"], each["grounding"])
        for how, each in found["familiarity"].items()
    }  # fmt: skip
    assert told == {
        "familiar": (1, 1, 1, 0, None),
        "unfamiliar": (1, 0, 0, 0, 0.02),
        "not known": (2, 0.5, 2, 1, None),
    }
    assert found["seconds"]["summariser"] == {"answers": 1, "p50": 0.5, "p90": 0.5, "p99": 0.5}
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    # A reader sees it before the answer.
    cautions = "<p>Unfamiliar: an &lt;odd&gt; image.</p>\n<p>Grounding 2%. The same answer as"
    assert f"{cautions} without the image.</p>\n<p>Right: lung. The panel: heart" in page
    assert page.count("Grounding 2%") == 1
    markdown = (tmp_path / "out" / "report.md").read_text("utf-8")
    cautions = "Unfamiliar: an \\<odd\\> image. Grounding 2%. The same answer as without the image."
    assert f"**Which?** {cautions} Right: lung." in markdown


def test_the_page_asks_nobody_and_runs_nothing(folder: Path) -> None:
    """Whatever a question or an answer holds; and a browser is told to refuse anything else."""
    page = (folder / "out" / "report.html").read_text("utf-8")
    assert set(re.findall(r"[\"'(]\w+://[^\"')]+", page)) <= {
        '"http://www.w3.org/2000/svg', '"http://www.w3.org/1999/xlink'
    }  # fmt: skip
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;it&lt;/b&gt;" not in page and "default-src 'none'" in page  # 1 was right
    assert page.count("<svg") == 4 and page.count('src="data:image/jpeg;base64,') == 2
    assert str(folder) not in page


def test_it_is_read_in_black_and_white(folder: Path) -> None:
    """The page's own colours are greys; of a dozen lines in a plot no two have one dash, or one
    mark, which both plots of several lines show."""
    page = (folder / "out" / "report.html").read_text("utf-8")
    style = page[page.index("<style>") : page.index("</style>")]
    colours = re.findall(r"#([0-9a-f]{3,6})\b", style)
    assert len(colours) > 5 and all(len(set(colour)) == 1 for colour in colours)
    looks = list(pictures.LOOKS)
    assert len(looks) >= 12
    for told_by in ("color", "linestyle", "marker"):
        assert len({str(look[told_by]) for look in looks}) == len(looks)
    points = [{"answered": n / 9, "wrong": n / 9, "confidence": n / 9, "right": n / 9}
              for n in range(10)]  # fmt: skip
    voices = dict.fromkeys("abcdefghijkl", points)
    with pyplot.rc_context(pictures.STYLE):
        for picture in (pictures.reliability, pictures.coverage):
            axes = picture(voices).axes[0]
            named = [line for line in axes.lines if line.get_label() in voices]
            assert len({line.get_marker() for line in named}) == 12
            assert len(axes.get_legend().get_texts()) == 12
            pyplot.close()
    lines = re.findall(r"<path d=\"M[^\"]+\" clip-path[^>]+style=\"([^\"]+)\"", page)
    assert (
        len({re.sub(r"stroke: #[0-9a-f]+", "", line) for line in lines if "dasharray" in line}) > 2
    )


def test_an_image_that_is_gone_is_a_grey_box(folder: Path, tmp_path: Path) -> None:
    """Those of a stored run may lie elsewhere by now; the command needs no panel that is whole."""
    own = write_set(tmp_path, ROWS)
    run = write_run(tmp_path / "run", own, {"4": SAID["4"] | {"panel": "Heart"}})
    panel = tmp_path / "panel.toml"
    panel.write_text('[panel]\ncompetence = "not learned yet.json"\n')
    words = ["report", str(run), "--out", str(tmp_path / "out"), "--panel", str(panel)]

    done = CliRunner().invoke(app, words)

    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert '<div class="gone">missing</div>' in page and "<img" not in page


def test_tables_are_the_same_everywhere(folder: Path, figures: Any) -> None:
    """In Markdown what somebody said is no mark; a spreadsheet reads the CSV."""
    markdown = (folder / "out" / "report.md").read_text("utf-8")
    assert "| panel | 4 | 50.0 (" in markdown and "\\<script\\>alert(1)\\</script\\>\\|" in markdown
    table = (folder / "out" / "report.csv").read_text("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    exact = [row for row in rows if row["score"] == "exact match"]
    assert [float(row["value"]) for row in exact] == [e["accuracy"] for e in figures["rates"]]
    others = [row for row in rows if row["score"] != "exact match"]
    assert [float(row["value"]) for row in others] == [e["value"] for e in figures["scorers"]]
    assert {row["run"] for row in others} == {"own all en"}
    assert "## Other scores" in markdown and "| token F1 | 50.0 (" in markdown
    assert f"| a | 50.0 (at 60.0) |{' 50.0 (at 60.0) |' * 3}" in markdown


def test_every_case_is_a_row_for_others_tools_and_a_set_of_ones_own(folder: Path) -> None:
    """Arrow, by which `datasets` and pandas read JSON lines, finds one type in every column."""
    file = folder / "out" / "cases.jsonl"
    table = arrow.read_json(file)
    one, two, three, four = table.to_pylist()
    assert two["workers"] == [
        {"worker": "a", "answer": "yes", "confidence": 0.6, "right": False},
        {"worker": "b", "answer": "<script>alert(1)</script>|", "confidence": 0.6, "right": False},
        {"worker": "c", "answer": "No.", "confidence": 0.6, "right": True},
    ]
    assert [each["right"] for each in (one, two, three, four)] == [True, False, False, True]
    assert (two["panel"], two["confidence"], two["agreement"]) == ("yes", 0.8, 0.5)
    assert len(four["workers"]) == 2 and four["images"] == ["../gone.png"]
    with without_images():
        again = own_file.read(file)
    assert [(each.id, each.question, each.answer, each.modality) for each in again] == [
        (f"own all en/{row['id']}", row["question"], row["answer"], row.get("modality"))
        for row in ROWS
    ]
    assert again[0].images[0].read_bytes() == (folder / "a.png").read_bytes()


def test_a_candidate_stands_beside_the_panel(
    folder: Path, tmp_path: Path, vllm, gateway, monkeypatch
) -> None:
    """Paired with it and with each member, and no part of what any member knew; with what readers
    said of it, as the gateway that it shadows tells."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)
    own = folder / "own.jsonl"
    said: dict[str, Said] = {id: {"panel": "no", "new": "no"} for id in "12"}
    said["3"] = {"panel": "lung", "new": "lung"}
    tried = write_run(tmp_path / "tried", own, said, models={"new": "weights-of-new"})
    seats = ['languages = ["en"]', "shadow = true"]
    url = gateway([vllm("yes"), vllm("no")], seats=seats, feedback="")
    case = {"question": "Is it?", "images": [base64.b64encode(picture()).decode()]}
    verdict = httpx.post(f"{url}/vqa", json=case).json()
    word = {"verdict": verdict["id"], "word": "wrong", "answer": "no"}
    until(lambda: httpx.get(f"{url}/panel").json()["shadows"][0]["cases"] == 1)
    assert httpx.post(f"{url}/feedback", json=word).status_code == 200
    options = ["--out", str(tmp_path / "out"), "--beside", str(tried), "--gateway", url]
    done = CliRunner().invoke(app, ["report", str(folder / "run"), *options])
    assert done.exit_code == 0, done.output

    found = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    told = {each["beside"]: each for each in found["candidates"]}
    assert [(who, t["gained"], t["lost"], t["questions"]) for who, t in told.items()] == [
        ("panel", 2, 1, 3), ("a", 2, 1, 3), ("b", 2, 1, 3), ("c", 1, 0, 3)
    ]  # fmt: skip
    assert (told["panel"]["same"], told["c"]["same"]) == (0, 2 / 3)
    rights = {e["voice"]: e["correct"] for e in found["rates"] if e["by"] == "all"}
    assert (rights["new"], rights["any member"]) == (2, 3)
    assert [(run["beside"], run["models"]) for run in found["runs"]][1:] == [
        (True, {"new": "weights-of-new"})
    ]
    assert found["in_use"] == {
        "workers": [{"name": "w0", "words": 1, "right": 0}],
        "shadows": [
            {"name": "w1", "cases": 1, "agrees": 0, "words": 1, "right": 1, "panel_right": 0}
        ],
    }
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    for title in ("Candidates beside the panel", "In use, and by readers’ words"):
        assert f"<h2>{title}</h2>" in page


def test_who_was_not_heard_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    own = write_set(tmp_path, ROWS[:2])
    run = write_run(tmp_path / "run", own, {"1": SAID["1"]})
    keep(run, "2", Problem(type="x", title="Busy", status=503, detail="Busy \x1b[2J."))
    (tmp_path / "link").symlink_to(tmp_path / "run", target_is_directory=True)
    report([run], Path("none"), tmp_path / "link" / "out")

    lines = (tmp_path / "run" / "out" / "cases.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["right"] for row in rows] == [True, None]
    # Images are found from where the rows lie, however the folder was named.
    assert all((tmp_path / "run" / "out" / row["images"][0]).exists() for row in rows)


def test_of_one_image_no_interval_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", write_set(tmp_path, ROWS[:2]), {"1": SAID["1"]})
    report([run], Path("none"), tmp_path / "out")
    markdown = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "| panel | 1 | 100.0 (one image) |" in markdown
    assert "| 2 of 3 | 1 | 100.0 (one image) |" in markdown
    assert "+0.0 (one image) |" in markdown and "| 20.0 (one image) |" in markdown


def test_two_files_of_one_name_are_two_sets(tmp_path: Path, monkeypatch) -> None:
    """With questions and patients of the same numbers; they go by as much of their paths as tells
    them apart."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)
    rows = [row | {"patient": "P1"} for row in ROWS[:3]]
    runs = [
        write_run(tmp_path / f"run-{place}", write_set(tmp_path / place, rows), SAID)
        for place in ("north", "south")
    ]
    report(runs, Path("none"), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    rates = {(e["by"], e["of"]): e for e in found["rates"] if e["voice"] == "panel"}
    assert found["questions"] == 6 and rates["all", "all"]["images"] == 2
    for place in ("north", "south"):
        assert rates["dataset", f"{place}/own.jsonl"]["scored"] == 3
        assert rates["run", f"{place}/own.jsonl all en"]["scored"] == 3


def test_what_a_replay_leaves_is_a_run(stored, settings, data, tmp_path, monkeypatch) -> None:
    """Of the verdicts that the panel would give now, with the same answers. Of a panel that was
    calibrated on some of its images the report says so, of how many questions."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)
    found = replay([stored], settings, data, tmp_path / "out")
    image = data / "slake" / "imgs" / "xmlab0" / "source.jpg"
    learned = Competence(
        learned_from="", workers={}, correlation={}, verdict={},
        images=(pixel_hashes([image])[image][:HASH_DIGITS],),
    )  # fmt: skip
    knowing = settings.model_copy(update={"competence": learned})
    report([tmp_path / "out" / "weighed"], data, tmp_path / "report", knowing)
    told = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    rates = {e["voice"]: e["accuracy"] for e in told["rates"] if e["by"] == "all"}
    panel = found["policies"]["panel" if settings.competence else "vote"]
    assert rates["panel"] == panel["accuracy"]["value"]
    assert told["runs"][0]["panel"] == settings.panel_hash and told["calibrated_on"] == EACH
    for page in ("report.html", "report.md"):
        text = (tmp_path / "report" / page).read_text("utf-8")
        assert f"{EACH} of these questions show images that the panel was calibrated on" in text


def test_it_says_when_a_run_began_and_who_wrote_it_and_not_when(tmp_path, monkeypatch) -> None:
    """The same runs make the same files, byte for byte, at another time."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)
    own = write_set(tmp_path, ROWS)
    run = write_run(tmp_path / "run", own, SAID, begun="2026-01-02T03:04:05+00:00")
    written = []
    for _ in range(2):
        report([run], Path("none"), tmp_path / "out")
        written.append({file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()})
        time.sleep(1)
    assert written[0] == written[1]
    markdown = written[0]["report.md"].decode()
    assert "| own all en | 2026-01-02 03:04 UTC | 0123456789ab |" in markdown
    assert f"Told by Consilium {metadata.version('consilium')}." in markdown
    assert json.loads(written[0]["report.json"])["runs"][0]["begun"] == "2026-01-02T03:04:05+00:00"


def test_runs_that_make_no_report_are_refused(folder: Path, tmp_path: Path) -> None:
    own, out = folder / "own.jsonl", tmp_path / "out"
    (folder / "gone.png").touch()
    run = folder / "run"
    with pytest.raises(EvaluationError, match="asks own all en again, which another of these"):
        report([run, run], Path("none"), out)
    shuffled = write_run(tmp_path / "shuffled", own, SAID, shuffle_images=0)
    with pytest.raises(EvaluationError, match=r"its images were changed, .* consilium compare"):
        report([shuffled], Path("none"), out)
    with pytest.raises(EvaluationError, match="nobody has answered any of its questions yet"):
        report([write_run(tmp_path / "empty", own, {})], Path("none"), out)
    strange = write_run(tmp_path / "strange", own, {"1": {"panel": "no", "b": "no"}})
    with pytest.raises(EvaluationError, match="strange: b answered with the panel too"):
        report([run], Path("none"), out, beside=[strange])
    other = write_set(tmp_path / "other", ROWS[:3])
    asked = write_run(tmp_path / "asked", other, {"1": {"panel": "no", "new": "no"}})
    with pytest.raises(EvaluationError, match="asked answers none of the questions that the panel"):
        report([run], Path("none"), out, beside=[asked])
    twice = [
        write_run(tmp_path / name, own, {"1": {"panel": "no", "new": "no"}})
        for name in ("once", "twice")
    ]
    with pytest.raises(EvaluationError, match="twice: another run beside the panel has new's"):
        report([run], Path("none"), out, beside=twice)
    assert not out.exists()


def test_it_starts_without_torch() -> None:
    """Nor does comparing two runs need it: both answer at once."""
    modules = ("report.write", "compare")
    program = "".join(f"import services.evaluation.{name}\n" for name in modules)
    program += (
        "import sys; print(sorted({'torch', 'transformers', 'sklearn'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
