"""docs/scorers.md is enough to add one: its code, in a file of its own, and every scorer that there
is do what is owed."""

import importlib
from pathlib import Path

import pytest

from gateway.contract import Answer
from models import metrics
from models.data.example import Example
from services.evaluation import score
from services.evaluation.score import Scorer
from services.evaluation.stored_run import Outcome
from tests import pages

PAGE = pages.read("scorers.md")
NEW = "the page's"
# LLaVA-Med's closed accuracy leaves out who says the other word, as it was published.
SCORERS = [NEW, *(name for name in score.scorers("en") if name != "LLaVA-Med closed accuracy")]
QUESTIONS = 20


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's scorer as one file and one line more; its name in the table."""
    module = pages.add_module(PAGE, metrics, tmp_path, monkeypatch)
    module_of_it = importlib.import_module(f"models.metrics.{module}")
    line = eval(f"{{{pages.entry(PAGE)}}}", {module: module_of_it})
    there = score.scorers
    monkeypatch.setattr(score, "scorers", lambda language: there(language) | line)
    (name,) = line
    return str(name)


@pytest.fixture(params=SCORERS)
def scorer(request: pytest.FixtureRequest, added: str) -> Scorer:
    return score.scorers("en")[added if request.param == NEW else request.param][1]


def test_a_right_answer_is_all_and_another_nothing(scorer: Scorer) -> None:
    right = ["yes"] * QUESTIONS
    apart = [str(number) for number in range(QUESTIONS)]

    assert scorer(right, right, apart).value == pytest.approx(1)
    assert scorer(["no"] * QUESTIONS, right, apart).value == pytest.approx(0, abs=0.01)


def test_the_interval_draws_whole_images(scorer: Scorer) -> None:
    """Half of them right, each on an image of its own, or all on two."""
    half = QUESTIONS // 2
    answers, right = ["yes"] * half + ["no"] * half, ["yes"] * QUESTIONS

    apart = scorer(answers, right, [str(number) for number in range(QUESTIONS)])
    together = scorer(answers, right, ["a"] * half + ["b"] * half)

    assert apart.value == together.value and apart.cases == QUESTIONS
    assert together.low <= apart.low <= apart.value <= apart.high <= together.high
    assert together.high - together.low > apart.high - apart.low


def test_nothing_scored_is_an_error(scorer: Scorer) -> None:
    """A dead run must not look like a bad model."""
    with pytest.raises(ValueError, match="0 scored answers"):
        scorer([], [], [])


def test_an_evaluation_prints_the_documented_one(
    added: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its name, for the panel and for each worker."""
    example = Example("1", (Path("a.png"),), "Where?", "left upper lung", "en", closed=False)
    said = Answer(worker="w0", text="the left lung", confidence=0.9, seconds=0)

    scored = score.score([example], {"1": Outcome(None, (said,))}, "en")
    score.show(scored)

    assert scored["scorers"]["panel"][added]["value"] == 0  # there was no verdict
    # "left" and "lung" stand in both in that order: two of three words in either.
    assert scored["scorers"]["w0"][added]["value"] == pytest.approx(2 / 3)
    assert added in capsys.readouterr().out


@pytest.mark.parametrize("name", score.scorers("en"))
def test_the_page_lists_every_scorer(name: str) -> None:
    """LLaVA-Med's three and BLEU's four stand in a row each."""
    assert name.removeprefix("LLaVA-Med ") in PAGE or name in ("BLEU-2", "BLEU-3")
