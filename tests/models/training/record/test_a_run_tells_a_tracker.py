"""What a run's log tells, TensorBoard, W&B or MLflow is told too; a run hangs on none of them."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import TensorBoardTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.recipe import Recipe
from models.training.record import tracker
from models.training.record.tracker import TrackerError
from models.training.stages import train

RecipeMaker = Callable[..., Recipe]


def gone(*_: Any, **__: Any) -> None:
    raise ConnectionError("no route to host\nand a long story")


def test_tensorboard_shows_what_the_log_tells(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    """Step after step, over all stages."""
    recipe = tiny_recipe(epochs=1, more=[{"name": "more", "parent": "vqa"}])

    train(recipe, drawn_slake, tmp_path, "tensorboard")

    run = tmp_path / recipe.name
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    for stage, step in (("vqa", 4), ("more", 8)):
        *_, last = map(json.loads, (run / stage / "log.jsonl").read_text().splitlines())
        (shown,) = events.Scalars(f"{stage}/validation/answer_loss")
        assert (shown.step, shown.value) == (step, pytest.approx(last["answer_loss"]))


def test_a_run_that_goes_on_counts_its_earlier_stages(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(epochs=1, more=[{"name": "more", "parent": "vqa"}])
    train(recipe.model_copy(update={"stage": recipe.stage[:1]}), drawn_slake, tmp_path)

    train(recipe, drawn_slake, tmp_path, "tensorboard")

    events = EventAccumulator(str(tmp_path / recipe.name / "tensorboard")).Reload()
    (shown,) = events.Scalars("more/validation/answer_loss")
    assert shown.step == 8


def test_a_tracker_is_told_what_the_stages_say(
    tiny_recipe: RecipeMaker,
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of their tables too, such as a LoRA's rank; and no more of the data than its figures."""
    told: dict[str, Any] = {}
    listen = lambda _, settings: told.update(settings)  # noqa: E731
    monkeypatch.setattr(TensorBoardTracker, "store_init_configuration", listen)

    train(tiny_recipe(epochs=1), drawn_slake, tmp_path, "tensorboard")

    assert (told["vqa/lora/rank"], told["vqa/lora/dropout"], told["vqa/epochs"]) == (2, 0.1, 1)
    assert not any("slake" in str(each) for each in told.values())
    assert all(isinstance(each, bool | int | float | str) for each in told.values())


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ((tracker, "find_spec"), "tensorboard is not installed: pip install tensorboard"),
        ((TensorBoardTracker, "start"), r"cannot be reached \(ConnectionError: no route to host\)"),
    ],
    ids=["not installed", "not reached"],
)
def test_a_tracker_that_is_not_there_is_told_before_anything_trains(
    tiny_recipe: RecipeMaker,
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[Any, str],
    says: str,
) -> None:
    monkeypatch.setattr(*where, (lambda _: None) if where[1] == "find_spec" else gone)
    recipe = tiny_recipe()

    with pytest.raises(TrackerError, match=says) as told:
        train(recipe, drawn_slake, tmp_path, "tensorboard")

    assert "\n" not in str(told.value)
    assert not (tmp_path / recipe.name / "vqa").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
@pytest.mark.parametrize(
    ("found", "says"),
    [(None, "{0} is not installed: pip install {0}, or"), (object(), "{0} cannot be reached ")],
    ids=["not installed", "accelerate cannot import it"],
)
def test_another_that_is_not_there_is_one_sentence(
    tiny_recipe: RecipeMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: tracker.Name,
    found: Any,
    says: str,
) -> None:
    monkeypatch.setattr(tracker, "find_spec", lambda _: found)
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not, where it is

    with pytest.raises(TrackerError) as told, tracker.tracking(name, tiny_recipe(), tmp_path):
        pytest.fail("a run began")

    assert str(told.value).startswith(says.format(name)) and "\n" not in str(told.value)
    assert str(told.value).endswith("or take --tracker none.")


def test_mlflow_is_not_asked_for_minutes_where_it_is_gone(
    tiny_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless its user has said for how long."""
    monkeypatch.setattr(tracker, "MLflowTracker", lambda *_, **__: None)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "")  # put back with the test
    del os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")

    tracker._made("mlflow", tiny_recipe(), tmp_path)

    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "99"


def test_a_tracker_that_falls_silent_stops_no_run(
    tiny_recipe: RecipeMaker,
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is told of once, and not asked again."""
    monkeypatch.setattr(TensorBoardTracker, "log", gone)

    checkpoint = train(tiny_recipe(), drawn_slake, tmp_path, "tensorboard")

    assert checkpoint.name == "step-8"
    assert capsys.readouterr().out.count("tensorboard does not listen any more") == 1
