"""The batch evaluation asks a real gateway over HTTP; only the model servers are mocks."""

import base64
import json
import shlex
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gateway.asking import breaker
from gateway.contract import Answer
from gateway.service import REPORT_S
from models import exported
from models.data.example import DataError, Example
from models.metrics import delta_bleu
from models.metrics import score as bootstrap
from models.metrics.delta_bleu import Reference
from services.evaluation.asking.evaluate import evaluate
from services.evaluation.asking.over_rest import panel_at
from services.evaluation.score import score
from services.evaluation.stored_run import EvaluationError, Outcome
from tests import tiny
from tests.conftest import picture

QUESTIONS = ["Is the lung healthy?", "Is the liver healthy?", "Where is it?", "Which organ is it?"]
REFERENCES = ["Yes", "No", "Left lung.", "Lung"]


def parts(request: dict[str, Any]) -> list[dict[str, Any]]:
    return list(request["messages"][0]["content"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder in SLAKE's layout: three images, each with the same four questions."""
    rows = []
    for number in range(3):
        folder = tmp_path / "data" / "slake" / "imgs" / f"xmlab{number}"
        folder.mkdir(parents=True)
        (folder / "source.jpg").write_bytes(picture(size=(16 + number, 16), kind="JPEG"))
        for question, answer in zip(QUESTIONS, REFERENCES, strict=True):
            rows.append(
                {
                    "img_name": f"xmlab{number}/source.jpg",
                    "qid": len(rows),
                    "question": question,
                    "answer": answer,
                    "q_lang": "en",
                    "answer_type": "CLOSED" if answer in ("Yes", "No") else "OPEN",
                    "modality": "CT",
                    "content_type": "Organ",
                }
            )
    (tmp_path / "data" / "slake" / "test.json").write_text(json.dumps(rows), "utf-8")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def nobody_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has failed is asked again at once, not in some seconds."""
    monkeypatch.setattr(breaker, "PATIENCE_S", 1_000.0)


@pytest.fixture(autouse=True)
def intervals_are_rough(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time, and are looked at elsewhere."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(url: str, out: str = "out", **kwargs: Any) -> dict[str, Any]:
        where = {"dataset": "slake", "split": "test", "language": "en", "data": data}
        how = {"patience_s": 0} | kwargs
        return evaluate(gateway_url=url, out=tmp_path / out, **where, **how)

    return run


def knows(*answers: str) -> Callable[[dict[str, Any]], str]:
    """A worker that gives its own answer to each of the four questions."""

    def reply(request: dict[str, Any]) -> str:
        text = parts(request)[-1]["text"]
        return next(a for q, a in zip(QUESTIONS, answers, strict=True) if q in text)

    return reply


def test_the_panel_and_every_worker_are_scored(vllm, gateway, run, tmp_path, capsys):
    """Exact match forgives case and a final full stop, and nothing else."""
    right = vllm(knows("yes.", "NO", "left lung", "lung"))
    half = vllm(knows("Yes", "Yes", "left lung", "the lung"))
    summary = run(gateway([right, half, right]))

    assert summary["scores"]["panel"]["all"]["accuracy"] == 1
    assert summary["scores"]["w1"]["all"] | {"low": 0, "high": 0} == {
        "accuracy": 0.5, "correct": 6, "scored": 12, "unscored": 0, "low": 0, "high": 0,
        "images": 3,
    }  # fmt: skip
    assert summary["scores"]["w1"]["closed"]["accuracy"] == 0.5
    others = summary["scorers"]["w1"]
    assert others["closed accuracy"]["value"] == 0.5
    # "No" was said where yes was wanted and the reverse: LLaVA-Med's counts only who was right.
    assert others["LLaVA-Med closed accuracy"]["value"] == 1
    assert others["token recall"]["value"] == 1 and 0.8 < others["token F1"]["value"] < 1
    assert 0 < others["calibration error"]["value"] < 1
    assert summary["scorers"]["panel"]["calibration error"] is None
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"all of it: {tmp_path / 'out' / 'summary.json'}"
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert not any(line.startswith("{") for line in printed)


def test_it_says_what_agreement_was_worth(vllm, gateway, run):
    """All three agree on the last question only; somebody is always right."""
    said = [
        ("Yes", "No", "x", "Lung"),
        ("No", "No", "Left lung", "Lung"),
        ("No", "Yes", "x", "Lung"),
    ]
    workers = [vllm(knows(*answers)) for answers in said]
    summary = run(gateway(workers))

    found = {agreed: (r["correct"], r["scored"]) for agreed, r in summary["by_agreement"].items()}
    assert found == {"3 of 3": (3, 3), "2 of 3": (3, 9)}
    assert summary["any_worker"]["accuracy"] == 1
    assert summary["headroom"]["value"] == 0.25  # over the first, which is wrong on one of four
    apart = {pair: share["value"] for pair, share in summary["disagreement"].items()}
    assert apart == {"w0 and w1": 0.5, "w0 and w2": 0.5, "w1 and w2": 0.5}
    assert summary["worded_by"] == {"vote": 12}


def test_the_summariser_is_asked_where_that_is_wanted(vllm, gateway, run, capsys):
    """Then the panel's accuracy is that of its words."""
    divided = [vllm(knows("Yes", "No", "Left lung", "Lung")), vllm(knows("Yes", "No", "x", "y"))]
    url = gateway(divided, summariser=vllm("Nonsense").url)
    summary = run(url, summarise="auto")

    assert summary["worded_by"] == {"unanimous": 6, "vote": 6}
    assert "verdicts worded by: " in capsys.readouterr().out
    with pytest.raises(EvaluationError, match="another run, with other summarise"):
        run(url)


def test_a_stopped_run_goes_on_where_it_was(vllm, gateway, run, tmp_path):
    """Whole verdicts are not asked for again; a torn last line is."""
    worker = vllm(knows(*REFERENCES))
    url = gateway([worker])
    run(url, limit=5)
    lines = tmp_path / "out" / "verdicts.jsonl"
    assert len(worker.requests) == 5
    content = lines.read_bytes()
    lines.write_bytes(content[:-20])

    summary = run(url)

    # The torn case came from the gateway's cache, so the worker was asked for the other seven.
    assert len(worker.requests) == 12
    assert summary["scores"]["panel"]["all"]["scored"] == 12
    records = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert len({record["id"] for record in records}) == len(records) == 12


def test_a_gateway_that_has_another_panel_by_now_ends_the_run(vllm, gateway, run, tmp_path):
    """What the first one said is kept, and what the second said is not taken for its."""
    worker = vllm(knows(*REFERENCES))
    url, other = gateway([worker]), gateway([worker, vllm(knows(*REFERENCES))])
    run(url, limit=5)
    told = panel_at(url)

    with pytest.MonkeyPatch.context() as patch:  # it was another when the run began
        patch.setattr("services.evaluation.asking.evaluate.panel_at", lambda _: told)
        with pytest.raises(EvaluationError, match=r"has another panel now .* new --out\."):
            run(other)
        refuses = gateway([worker, vllm(status=500, raw=b"")], panel="quorum = 2")
        with pytest.raises(EvaluationError, match="has another panel now"):
            run(refuses)

    assert len((tmp_path / "out" / "verdicts.jsonl").read_text("utf-8").splitlines()) == 5


def test_what_the_gateway_could_not_answer_is_unscored_and_asked_again(vllm, gateway, run):
    """Below the quorum there is no verdict; what the others said is in the problem, and counts."""
    workers = [vllm(knows(*REFERENCES)) for _ in range(2)]
    url = gateway(workers, panel="quorum = 2")
    for worker in workers:
        worker.status, worker.raw = 500, b""

    with pytest.raises(EvaluationError, match="0 of 12 cases scored"):
        run(url)
    workers[0].status, workers[0].raw = 200, None
    assert list(run(url)["scores"]) == ["w0"]
    workers[1].status, workers[1].raw = 200, None
    scores = run(url)["scores"]

    assert all(scores[who]["all"]["scored"] == 12 for who in ("panel", "w0", "w1"))


def test_a_verdict_in_which_a_worker_failed_is_asked_for_again(vllm, gateway, run):
    """Its panel answer counts until then; the silent worker's is unscored."""
    worker = vllm(knows(*REFERENCES))
    worker.status, worker.raw = 500, b""
    url = gateway([worker, vllm(knows(*REFERENCES))])

    first = run(url)
    worker.status, worker.raw = 200, None
    second = run(url)

    assert "w0" not in first["scores"]
    assert first["scores"]["panel"]["all"]["scored"] == 12
    assert second["scores"]["w0"]["all"]["scored"] == 12


def test_silence_and_nonsense_are_wrong_and_not_asked_again(vllm, gateway, run, capsys):
    """Else a worker that says nothing where it is unsure would look the surer."""
    silent = vllm(knows("Yes", "", "Left lung", "maybe. " * 1_000))
    url = gateway([silent, vllm(knows(*REFERENCES))])

    first = run(url)
    run(url)

    assert first["scores"]["w0"]["all"]["scored"] == 12
    assert first["scores"]["w0"]["all"]["correct"] == 6
    assert first["scores"]["panel"]["all"]["scored"] == 12
    assert first["open_cases"] == 0 and "are open" not in capsys.readouterr().out
    assert len(silent.requests) == 12


def test_silence_of_the_only_one_asked_is_wrong_too(vllm, gateway, run):
    """Then there is no verdict, only the gateway's reasons."""
    silent = vllm(knows("Yes", "", "Left lung", ""))
    url = gateway([silent])
    for _ in range(2):
        scores = run(url)["scores"]
        assert scores["w0"]["all"]["accuracy"] == scores["panel"]["all"]["accuracy"] == 0.5
    assert len(silent.requests) == 12


def test_cases_that_a_worker_did_not_hear_are_told(vllm, gateway, run, capsys):
    failing = vllm(status=500, raw=b"")
    assert run(gateway([failing, vllm(knows(*REFERENCES))]))["open_cases"] == 12
    assert "12 of 12 cases are open" in capsys.readouterr().out


def test_a_run_does_not_mix_two_models(vllm, gateway, run):
    """panel.toml says only zoo:NAME, which is the same before and after a training."""
    worker, spared = vllm("Yes"), vllm("Yes")
    url = gateway([worker, spared])
    run(url, limit=2, workers=["w0"])
    spared.root = "/cache/served/elsewhere"
    run(url, workers=["w0"])
    worker.root = "/cache/served/retrained"
    time.sleep(2 * REPORT_S)
    with pytest.raises(EvaluationError, match="another run, with other models"):
        run(url, workers=["w0"])


def test_workers_are_named_in_any_order(vllm, gateway, run):
    """And are the same run."""
    url = gateway([vllm("Yes"), vllm("No")])
    run(url, limit=2, workers=["w0", "w1"])
    assert run(url, workers=["w1", "w0", "w1"])["scores"]["w1"]["all"]["scored"] == 12


def test_a_run_does_not_mix_two_summarisers(vllm, gateway, run):
    """Unless none is asked."""
    summariser = vllm("Nonsense")
    url = gateway([vllm("Yes")], summariser=summariser.url)
    for out, summarise in (("words", "auto"), ("votes", "never")):
        run(url, out, limit=2, summarise=summarise)
    summariser.root = "/cache/served/another"
    time.sleep(2 * REPORT_S)
    run(url, "votes")
    with pytest.raises(EvaluationError, match="another run, with other models"):
        run(url, "words", summarise="auto")


def test_a_worker_that_is_down_is_named_before_anything_is_asked(vllm, gateway, run, dead_url):
    """Unless it is not asked at all."""
    worker = vllm("Yes")
    url = gateway([dead_url, worker])
    with pytest.raises(EvaluationError, match=r"w0 is down.*--workers w1"):
        run(url)
    assert not worker.requests
    assert run(url, "alone", workers=["w1"])["scores"]["w1"]["all"]["scored"] == 12


LEAKY = [tiny.DATA | {"split": "test"}]


@pytest.mark.parametrize(
    "recipe",
    [tiny.recipe(Path("base"), "leaky", data=LEAKY), tiny.memory("leaky") | {"remembers": LEAKY}],
    ids=["trained", "remembered"],
)
def test_a_worker_is_not_scored_on_an_image_that_it_was_trained_on(
    recipe, vllm, gateway, run, data, tmp_path, monkeypatch
):
    """vLLM says which weights it serves, and those weights' recipe says what they have seen."""
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(exported, "ZOO", tmp_path / "zoo")
    (tmp_path / "zoo" / "leaky").mkdir(parents=True)
    tiny.write_toml(recipe, tmp_path / "zoo" / "leaky" / "recipe.toml")
    worker = vllm("Yes", root=f"/served/{exported.served_name(tmp_path / 'zoo' / 'leaky')}")

    with pytest.raises(DataError, match="is also a training image"):
        run(gateway([worker]))
    assert not worker.requests
    with pytest.raises(EvaluationError, match="--workers names nobody"):
        run(gateway([worker]), workers=[])


def test_the_command_that_is_told_asks_the_same_again(vllm, gateway, run, tmp_path, capsys):
    """Whole, and as a shell takes it: nothing that was given is left out."""
    url = gateway([vllm("Yes")])
    run(url, "a folder", limit=5, shuffle_images=0, workers=["w0"], rounds=2, exports=tmp_path)

    (again,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("again:")]
    expected = (
        "again: consilium evaluate --dataset slake --split test --language en --shuffle-images 0 "
        f"--workers w0 --summarise never --rounds 2 --limit 5 --exports {tmp_path} --gateway {url} "
        f"--patience 0 --data {tmp_path / 'data'} --out"
    )
    assert shlex.split(again) == [*expected.split(), str(tmp_path / "a folder")]


def test_a_password_in_the_address_is_neither_told_nor_kept(vllm, gateway, run, tmp_path, capsys):
    """It is of use to the run alone: what is printed and written is shown to others."""
    url = gateway([vllm("Yes")])
    run(url.replace("//", "//user:s3cret@"), "out", limit=5)
    said = capsys.readouterr()
    written = [path.read_text() for path in (tmp_path / "out").iterdir()]
    assert not [text for text in [said.out, said.err, *written] if "s3cret" in text]
    assert f" --gateway {url} " in said.out


@pytest.mark.parametrize("workers", [["w1"], ["w0", "W0"]])
def test_who_is_not_seated_is_named_before_anything_is_asked(vllm, gateway, run, workers):
    """Not by every case on its own."""
    worker = vllm("Yes")
    with pytest.raises(EvaluationError, match=rf"nobody called {workers[-1]} is seated; w0 are"):
        run(gateway([worker]), workers=workers)
    assert not worker.requests


def test_a_limited_run_shuffles_as_its_completion_does(vllm, gateway, run):
    limited, complete = vllm("Yes"), vllm("Yes")
    run(gateway([limited]), "limited", limit=5, shuffle_images=3, concurrency=1)
    run(gateway([complete]), "complete", shuffle_images=3, concurrency=1)
    assert [parts(r) for r in limited.requests] == [parts(r) for r in complete.requests[:5]]


def test_a_folder_keeps_one_run(vllm, gateway, run):
    """Verdicts of another panel, split or shuffle are never mixed in."""
    url = gateway([vllm("Yes")])
    run(url)
    with pytest.raises(EvaluationError, match="another run, with other shuffle_images"):
        run(url, shuffle_images=1)


def test_no_question_keeps_its_image_when_they_are_shuffled(vllm, gateway, run):
    """The seed decides who gets which; every question is still asked once."""
    own, other = vllm(knows(*REFERENCES)), vllm(knows(*REFERENCES))
    run(gateway([own]), "plain", concurrency=1)
    run(gateway([other]), "shuffled", shuffle_images=3, concurrency=1)

    asked = [(parts(a), parts(b)) for a, b in zip(own.requests, other.requests, strict=True)]
    assert all(plain[-1] == shuffled[-1] for plain, shuffled in asked)
    assert all(plain[0] != shuffled[0] for plain, shuffled in asked)


def test_images_in_another_order_are_those_of_cases_of_several(vllm, gateway, run):
    """A question that names an image by its place is then about another one."""
    worker = vllm("Yes")
    with pytest.raises(EvaluationError, match="no question with an answer about several images"):
        run(gateway([worker]), rotate_images=True)
    assert not worker.requests


def test_every_question_gets_the_same_grey_image_when_they_are_blank(vllm, gateway, run):
    worker = vllm("Yes")
    run(gateway([worker]), "blank", blank_images=True)

    (shown,) = {json.dumps(parts(request)[0]) for request in worker.requests}
    encoded = json.loads(shown)["image_url"]["url"].split(",")[1]
    with Image.open(BytesIO(base64.b64decode(encoded))) as image:
        assert image.convert("L").getextrema() == (128, 128)


def test_one_worker_can_be_measured_alone(vllm, gateway, run):
    asked, spared, summariser = vllm("Yes"), vllm("Yes"), vllm("Yes")
    url = gateway([asked, spared], summariser=summariser.url)
    summary = run(url, workers=["w0"])
    assert list(summary["scores"]) == ["panel", "w0"]
    assert len(asked.requests) == 12 and not spared.requests and not summariser.requests


def test_an_absent_gateway_is_named_at_once(run, dead_url):
    """Without what is nobody's to read."""
    with pytest.raises(EvaluationError, match=f"No gateway answers at {dead_url}; start one"):
        run(dead_url.replace("//", "//user:secret@"))


def test_free_text_is_scored_against_every_reference_by_its_weight(monkeypatch, capsys):
    """MEDIQA-M3G's way; without a model for BERTScore it says what that would take."""
    monkeypatch.setitem(sys.modules, "bert_score", None)
    case = Example("ENC1", (Path("a.jpg"),), "?", "psoriasis vulgaris", "en", False,
                   alternatives=("contact eczema",), weights=(1.0, 0.6))  # fmt: skip
    said = Answer(worker="a", text="psoriasis eczema", confidence=0.5, weight=1, seconds=1)

    found = score([case], {"ENC1": Outcome(None, (said,))}, "en")["scorers"]["a"]

    references = [Reference("psoriasis vulgaris", 1.0), Reference("contact eczema", 0.6)]
    expected = delta_bleu.score({"ENC1": "psoriasis eczema"}, {"ENC1": references}, language="en")
    assert found["deltaBLEU"]["value"] == expected.value > 0
    official = delta_bleu.official(
        {"ENC1": "psoriasis eczema"}, {"ENC1": references}, language="en"
    )
    assert found["deltaBLEU, task's script"]["value"] == official.value > expected.value
    assert found["BERTScore"] is None
    assert "BERTScore is not run: pip install bert-score" in capsys.readouterr().out
