"""`consilium plan --rate`: what is known of queues, and the gateway's own rules, come out again."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.contract import Answer, AnswerError
from gateway.settings import Settings, load_settings
from services.evaluation import forecast as module
from services.evaluation.forecast import Demand, Took, forecast, foretell, times_of
from services.evaluation.stored_run import EvaluationError, Outcome
from tests.services.evaluation.runs import verdict, write_run, write_set

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CASES", 800)
    monkeypatch.setattr(module, "WARM_UP", 80)


@pytest.fixture
def panel(tmp_path: Path) -> Callable[..., Settings]:
    """Workers a and b, of whom both are needed; `more` follows the table of the second."""

    def write(more: str = "", first: str = "") -> Settings:
        seats = "".join(
            f'[[worker]]\nname = "{name}"\nfamily = "f"\nmodel = "m"\n'
            f'prompt = "{{question}}"\n{own}\n'
            for name, own in (("a", first), ("b", more))
        )
        file = tmp_path / "panel.toml"
        file.write_text(f"[panel]\ndeadline_s = 600\n{seats}")
        return load_settings(file, {})

    return write


def one(a: float, b: float = 0.0, summary: float = 0.0, own: float = 0.0) -> list[Took]:
    return [Took({"a": a, "b": b}, summary, own)]


def test_who_waits_for_nobody_has_a_verdict_when_the_slowest_has_answered(
    panel: Callable[..., Settings],
) -> None:
    """And it was worded."""
    summariser = '[summariser]\nmodel = "m"\nprompt.en = "{question}{answers}"'
    told = forecast(panel(summariser), one(0.2, 0.5, summary=0.25, own=0.125), Demand(0.01, 4))

    assert (told.p50_s, told.p99_s) == pytest.approx((0.875, 0.875))
    assert told.refused == told.below_quorum == 0


def test_one_server_is_the_queue_that_is_known(
    panel: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """M/M/1: who comes at λ a second and is served at μ is away after a time that is exponential
    with the rate μ − λ."""
    monkeypatch.setattr(module, "CASES", 8_000)
    lot = random.Random(0)
    took = [each for _ in range(5_000) for each in one(lot.expovariate(1.0))]

    told = forecast(panel(), took, Demand(0.5, 1))

    assert told.p50_s == pytest.approx(math.log(2) / 0.5, rel=0.1)
    assert told.p99_s == pytest.approx(math.log(100) / 0.5, rel=0.2)
    assert (told.busiest, told.busy) == ("a", pytest.approx(0.5, rel=0.03))


def test_more_at_once_wait_less(panel: Callable[..., Settings]) -> None:
    waits, waits_not = (forecast(panel(), one(1.0), Demand(0.9, many)) for many in (1, 8))

    assert waits.p50_s > 2 > waits_not.p99_s == pytest.approx(1.0)


def test_who_is_late_costs_its_answer(panel: Callable[..., Settings]) -> None:
    """By its own deadline; below the quorum there is no verdict."""
    late = "deadline_s = 2"
    lone = forecast(panel(late), one(1.0, 3.0), Demand(0.1, 4))
    panel_of_one = panel(late).model_copy(
        update={"panel": panel(late).panel.model_copy(update={"quorum": 1})}
    )
    enough = forecast(panel_of_one, one(1.0, 3.0), Demand(0.1, 4))

    assert lone.below_quorum == 1 and math.isnan(lone.p50_s)
    assert enough.below_quorum == 0 and enough.p99_s == pytest.approx(2.0)


def test_who_finds_no_room_is_refused(panel: Callable[..., Settings]) -> None:
    """Of ten a second that come, one is at work and one waits; two are served."""
    load = "[load]\nmax_at_work = 1\nmax_waiting = 1"
    told = forecast(panel(load), one(0.5), Demand(10, 4))

    assert told.refused == pytest.approx(0.8, abs=0.03)
    assert (told.busiest, told.busy) == ("the panel as a whole", pytest.approx(1, abs=0.01))


def test_what_was_asked_before_keeps_nobody_at_work(panel: Callable[..., Settings]) -> None:
    """It comes out of the store in the gateway's own time."""
    told = forecast(panel(), one(1.0, own=0.25), Demand(1.0, 1, repeats=0.75))

    assert told.busy == pytest.approx(0.25, abs=0.03)
    assert told.p50_s == pytest.approx(0.25)


def test_a_second_server_is_asked_where_the_first_is_slow(panel: Callable[..., Settings]) -> None:
    """One call in fifty takes twenty times as long: with two servers hardly anybody waits for it,
    and they hardly work more."""
    took = [*one(1.0) * 49, *one(20.0)]
    urls = 'url = ["http://x:1", "http://x:2"]'
    alone = forecast(panel(), took, Demand(0.5, 8))
    hedged = forecast(panel(first=urls), took, Demand(0.5, 8))

    assert alone.p99_s == pytest.approx(20)
    assert hedged.p99_s < 0.3 * alone.p99_s
    assert hedged.p50_s == pytest.approx(1.0)


def test_on_one_machine_cases_wait_for_cases(panel: Callable[..., Settings]) -> None:
    """Where each worker has a machine of its own, one works on the next case meanwhile."""
    took = one(1.0, 0.0) + one(0.0, 1.0)
    apart, together = (forecast(panel(), took, Demand(0.9, 1, one_machine=x)) for x in (0, 1))

    assert together.busiest == "the panel as a whole"
    assert together.p99_s > 2 * apart.p99_s


def test_the_same_is_foretold_each_time(panel: Callable[..., Settings]) -> None:
    took = [*one(0.2), *one(0.9)]
    assert forecast(panel(), took, Demand(2, 2)) == forecast(panel(), took, Demand(2, 2))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    own = write_set(tmp_path, [{"images": "x.png", "question": "Is it?", "answer": "yes"}])
    return write_run(tmp_path / "run", own, {"q": {"a": "yes", "b": "no", "panel": "yes"}})


def test_times_are_those_of_a_stored_run(
    run: Path, panel: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each case's own; not of what came out of the store, of a second round, or of who was not
    asked. Who was too late took that time."""

    def answer(worker: str, seconds: float, kind: str = "", round: int = 1) -> Answer:
        error = AnswerError(kind=kind, detail="") if kind else None  # type: ignore[arg-type]
        return Answer(
            worker=worker, text=None if kind else "yes", seconds=seconds, error=error, round=round
        )

    said = verdict({"a": "yes", "panel": "yes"})
    answers = (
        answer("a", 1.0),
        answer("a", 9.0, round=2),
        answer("b", 2.0, "timeout"),
        answer("gone", 5.0),
    )
    asked = said.model_copy(update={"answers": answers, "seconds": 2.5})
    alone = (answer("a", 3.0), answer("b", 0.0, "not_eligible"))
    outcomes = [
        asked,
        said.model_copy(update={"answers": alone, "seconds": 3.0}),
        asked.model_copy(update={"cached": True}),
    ]
    stored = {str(number): Outcome(each, each.answers) for number, each in enumerate(outcomes)}
    monkeypatch.setattr(module, "read_outcomes", lambda folder: stored)

    assert times_of(run, panel()) == [
        Took({"a": 1.0, "b": 2.0}, said.summary.seconds, 0.5 - said.summary.seconds),
        Took({"a": 3.0}, said.summary.seconds, 0.0),
    ]


def test_a_rate_that_is_carried_is_told_beside_others(
    run: Path, panel: Callable[..., Settings]
) -> None:
    lines: list[str] = []
    foretell(panel(), run, Demand(0.8, 4), lines.append)

    assert [line.split()[0] for line in lines] == ["cases/s", "0.2", "0.4", "0.6", "0.8", "1"]


@pytest.mark.parametrize(
    ("more", "demand", "said"),
    [
        ("[load]\nmax_at_work = 1\nmax_waiting = 0", Demand(900, 4), "more than the panel carries"),
        ('[[worker]]\nname = "c"\nfamily = "f"\nmodel = "m"\nprompt = "{question}"', Demand(1, 4),
         "c answered nothing there"),
        ("", Demand(math.nan, 4), "must be numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_or_foretold_is_told(
    more: str, demand: Demand, said: str, run: Path, panel: Callable[..., Settings]
) -> None:
    with pytest.raises(EvaluationError, match=said):
        foretell(panel(more), run, demand, lambda line: None)


def test_a_run_of_two_rounds_is_refused(tmp_path: Path, panel: Callable[..., Settings]) -> None:
    write_run(tmp_path / "discussed", tmp_path / "own.jsonl", {}, rounds=2)
    with pytest.raises(EvaluationError, match="it was asked in two rounds"):
        times_of(tmp_path / "discussed", panel())


def test_no_run_is_told(tmp_path: Path, panel: Callable[..., Settings]) -> None:
    with pytest.raises(EvaluationError, match="holds no evaluation"):
        times_of(tmp_path, panel())
