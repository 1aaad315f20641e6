"""Training: resumes bit for bit, moves what it declares, refuses to mix runs."""

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from models.data.example import DataError
from models.parts.vlm import build_model
from models.recipe import Recipe
from models.recipe.programme import RecipeError
from models.serving.export import export
from models.training import loop
from models.training.inputs.examples import check_data
from models.training.learning.losses import Losses
from models.training.learning.tuning import Proof, TuningError
from models.training.loop import TrainingError
from models.training.parts import PartsRun
from models.training.planning.fits import smaller
from models.training.record.checkpoints import Checkpoint, CheckpointError, claim, newest, save
from models.training.stages import train
from tests.tiny import draw_slake, write_toml


class Killed(Exception):
    pass


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    adapter = checkpoint / "adapter" / "adapter_model.safetensors"
    return load_file(checkpoint / "connector.safetensors") | load_file(adapter)


@pytest.mark.parametrize("kill_at_save", [2, 3], ids=["within a stage", "in the next stage"])
def test_a_killed_run_resumes_to_the_same_weights_and_log(
    tiny_recipe: Callable[..., Recipe],
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill_at_save: int,
) -> None:
    """Killed in the middle of a save, then run again. The second stage has no parent: it starts
    from a fresh connector, whether or not the first ran in the same process."""
    recipe = tiny_recipe(more=[{"name": "again", "epochs": 1}])
    unbroken = train(recipe, drawn_slake, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        patch.setattr("models.training.record.checkpoints.os.rename", killed_at(kill_at_save))
        with pytest.raises(Killed):
            train(recipe, drawn_slake, tmp_path / "broken")

    resumed = train(recipe, drawn_slake, tmp_path / "broken")

    expected, found = weights(unbroken), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert logged(unbroken) == logged(resumed)
    assert logged(unbroken.parents[1] / "vqa" / "step-8") == logged(
        resumed.parents[1] / "vqa" / "step-8"
    )


def test_a_run_of_eight_gpus_goes_on_with_one(
    tiny_recipe: Callable[..., Recipe],
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An earlier version's checkpoint, too, which holds the lots of all eight."""
    recipe = tiny_recipe()
    run = PartsRun(recipe, recipe.stage[0], claim(tmp_path / "run", recipe), drawn_slake, None)
    saved = run.state([]) | {"cuda_rng": [torch.full((16,), n).byte() for n in range(8)]}
    known: list[tuple[list[int], object]] = []
    first = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(type(run.accelerator), "device", first)
    for module in (torch.cuda, torch.cuda.random):
        monkeypatch.setattr(
            module, "set_rng_state", lambda lots, device: known.append((lots.tolist(), device))
        )

    run.restore(saved, 0)

    assert known == [([0] * 16, first)]


def test_rows_are_put_in_order_once_an_epoch(
    tiny_recipe: Callable[..., Recipe],
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of hundreds of thousands that takes longer than a step. Whoever asks for one step alone, as a
    run does that goes on, has the same rows."""
    recipe = tiny_recipe()
    run, again = (
        PartsRun(recipe, recipe.stage[0], claim(tmp_path / name, recipe), drawn_slake, None)
        for name in ("run", "again")
    )
    ordered: list[int] = []
    in_steps = loop.in_steps
    monkeypatch.setattr(loop, "in_steps", lambda *of: (ordered.append(of[-1]), in_steps(*of))[1])

    rows = [run.rows_of(step) for step in range(run.steps)]

    assert len(rows) == 8 and ordered == [0, 1]
    asked = [[row.questions for row in again.rows_of(step)] for step in (7, 2)]
    assert asked == [[row.questions for row in rows[step]] for step in (7, 2)]


def test_a_stopped_run_does_not_go_on_with_other_data(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = draw_slake(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("models.training.record.checkpoints.os.rename", killed_at(2))
        with pytest.raises(Killed):
            train(tiny_recipe(), data, tmp_path / "runs")
    learned = data / "slake" / "train.json"
    learned.write_text(learned.read_text().replace("red", "crimson"))

    with pytest.raises(CheckpointError, match="vqa has begun on other data than there is now"):
        train(tiny_recipe(), data, tmp_path / "runs")


def killed_at(save: int) -> Callable[[Path, Path], None]:
    rename, saves = os.rename, 0

    def counted(source: Path, target: Path) -> None:
        nonlocal saves
        saves += 1
        if saves == save:
            raise Killed
        rename(source, target)

    return counted


def logged(checkpoint: Path) -> list[dict[str, object]]:
    """What was logged of the checkpoint's stage, but for its speed."""
    rows = map(json.loads, (checkpoint.parent / "log.jsonl").read_text().splitlines())
    return [{key: row[key] for key in row if key != "questions_per_s"} for row in rows]


def test_an_adapter_of_another_rank_is_not_trained_on(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    """The recipe would say one thing and the weights another."""
    second = {"name": "more", "parent": "vqa", "lora": {"rank": 4, "dropout": 0.1}}

    with pytest.raises(TuningError, match=r"stage more: its parent's adapter has r 2, the recipe"):
        train(tiny_recipe(epochs=1, more=[second]), drawn_slake, tmp_path)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"image_token": "<imago>"}, "language.image_token: '<imago>' is no special token"),
        ({"bos": True, "model": "endless"}, "language.bos: the tokenizer"),
    ],
)
def test_a_token_that_does_not_exist_is_noticed_before_training(
    tiny_recipe: Callable[..., Recipe],
    tiny_language: Path,
    tmp_path: Path,
    part: dict[str, object],
    says: str,
) -> None:
    if part.get("model") == "endless":
        shutil.copytree(tiny_language, tmp_path / "endless")
        settings = tmp_path / "endless" / "tokenizer_config.json"
        known = json.loads(settings.read_text())
        del known["bos_token"]
        settings.write_text(json.dumps(known))
        part = part | {"model": str(tmp_path / "endless")}

    with pytest.raises(RecipeError, match=says):
        build_model(tiny_recipe(language_part=part))


def test_both_losses_are_logged_apart(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    train(tiny_recipe(epochs=1), drawn_slake, tmp_path)

    lines = (tmp_path / "tiny" / "vqa" / "log.jsonl").read_text().splitlines()

    (validation,) = [row for row in map(json.loads, lines) if row["part"] == "validation"]
    assert validation["answer_loss"] > 0 and 0 < validation["reconstruction_loss"] < 2


def test_a_stage_that_freezes_the_language_model_trains_the_connector_alone(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(language="frozen", lora=None, epochs=1)

    checkpoint = train(recipe, drawn_slake, tmp_path)

    fresh = build_model(recipe).connector.state_dict()
    trained = load_file(checkpoint / "connector.safetensors")
    assert all(not torch.equal(fresh[name], trained[name]) for name in fresh)
    assert not (checkpoint / "adapter").exists()


def test_the_proof_notices_what_moved_and_should_not_have(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    recipe = tiny_recipe()
    model = build_model(recipe).requires_grad_(False)
    proof = Proof(model)
    model.get_parameter("tower.net.conv_stem.weight").data.add_(1)

    with pytest.raises(TuningError, match=r"frozen, yet moved: \['tower.net.conv_stem.weight'\]"):
        proof.check(recipe.stage[0])


def test_the_proof_notices_what_should_have_moved_and_did_not(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    recipe = tiny_recipe()
    model = build_model(recipe).requires_grad_(False)
    model.connector.requires_grad_(True)

    with pytest.raises(TuningError, match=r"declared to train, yet still: .*connector"):
        Proof(model).check(recipe.stage[0])


def test_a_run_of_another_recipe_is_not_overwritten(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    train(tiny_recipe(epochs=1), drawn_slake, tmp_path)

    with pytest.raises(CheckpointError, match="holds a run of another recipe called 'tiny'"):
        train(tiny_recipe(epochs=2), drawn_slake, tmp_path)


def test_a_stage_may_change_as_long_as_it_has_no_folder(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    """As the advice for a loss that is not finite says: lower the rate, delete that folder."""
    more = {"name": "more", "parent": "vqa"}
    train(tiny_recipe(epochs=1, more=[more]), drawn_slake, tmp_path)
    changed = tiny_recipe(epochs=1, more=[more | {"connector_lr": 1e-4}])
    with pytest.raises(CheckpointError, match="holds a run of another recipe"):
        train(changed, drawn_slake, tmp_path)

    shutil.rmtree(tmp_path / "tiny" / "more")

    assert train(changed, drawn_slake, tmp_path).parent.name == "more"


def test_a_line_of_the_log_that_was_cut_short_is_left_out(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    last = train(tiny_recipe(), drawn_slake, tmp_path)
    whole = logged(last)
    (last / "state.json").write_text('{"step": ')
    with (last.parent / "log.jsonl").open("a") as log:
        log.write('{"step": 9, "par')

    assert logged(train(tiny_recipe(), drawn_slake, tmp_path)) == whole


@pytest.mark.parametrize(
    "name",
    [
        *("connector.safetensors", "adapter/adapter_model.safetensors"),
        *("reconstructor.safetensors", "optimiser.pt"),
    ],
)
def test_a_checkpoint_whose_file_was_cut_short_is_told(
    name: str, tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    """By its name, and that the run goes on from the one before."""
    last = train(tiny_recipe(), drawn_slake, tmp_path)
    state = json.loads((last / "state.json").read_text())
    (last / "state.json").write_text(json.dumps(state | {"finished": False}))
    whole = (last / name).read_bytes()
    (last / name).write_bytes(whole[: len(whole) // 2])

    says = f"{last.name}/{name} is broken or cut short.*: copy it anew, or delete .*{last.name}: a"
    with pytest.raises((OSError, CheckpointError), match=says):
        train(tiny_recipe(), drawn_slake, tmp_path)
    shutil.rmtree(last)
    assert train(tiny_recipe(), drawn_slake, tmp_path) == last


def test_a_recipe_may_grow_a_stage_when_the_others_are_done(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    """The first stage is not run again."""
    first = train(tiny_recipe(epochs=1), drawn_slake, tmp_path)
    saved = (first / "state.json").stat().st_mtime_ns

    last = train(
        tiny_recipe(epochs=1, more=[{"name": "more", "parent": "vqa"}]), drawn_slake, tmp_path
    )

    assert last.parent.name == "more"
    assert (first / "state.json").stat().st_mtime_ns == saved


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: save_file({"a": torch.zeros(9999)}, folder / "connector.safetensors"),
        lambda folder: torch.save(torch.zeros(9999), folder / "optimiser.pt"),
        lambda folder: (folder / "validation.json").write_text("0" * 9999) and None,
    ],
    ids=["safetensors", "torch", "text"],
)
def test_a_full_disk_in_the_middle_of_a_save_is_told_and_costs_nothing(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    """A limit on the size of a file stands for the disk: writing fails half-way, for real."""
    save(tmp_path, 1, False, lambda folder: (folder / "a").write_text("whole") and None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"step-2 could not be written .*Make room"):
            save(tmp_path, 2, True, write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert newest(tmp_path) == Checkpoint(tmp_path / "step-1", 1, False)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_a_loss_that_is_not_finite_stops_the_run(
    tiny_recipe: Callable[..., Recipe],
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = torch.tensor(float("nan"), requires_grad=True)
    nowhere = Losses(nothing, nothing, nothing, torch.tensor([False]))
    monkeypatch.setattr(PartsRun, "losses", lambda *_: nowhere)

    with pytest.raises(TrainingError, match=r"the loss is nan. Lower tower_lr"):
        train(tiny_recipe(), drawn_slake, tmp_path)


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has …")
LIGHTER = r"\). Set four_bit = true, or a smaller base model, delete"


@pytest.mark.parametrize(
    ("doing", "fails", "becomes", "says"),
    [
        ("step", FULL, TrainingError, r"Tried to allocate 2 GiB\). Set accumulate = 2 instead"),
        ("built", RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), TrainingError, LIGHTER),
        ("built", RuntimeError("CUDA error: out of memory"), TrainingError, LIGHTER),
        ("step", RuntimeError("shapes cannot be multiplied"), RuntimeError, "^shapes cannot"),
    ],
    ids=["a step", "the weights, cuBLAS", "the weights", "no memory was full"],
)
def test_a_full_memory_says_what_to_lower_and_by_how_much(
    doing: str,
    fails: Exception,
    becomes: type[Exception],
    says: str,
    tiny_recipe: Callable[..., Recipe],
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise fails

    monkeypatch.setattr(PartsRun, doing, fail)

    with pytest.raises(becomes, match=says):
        train(tiny_recipe(), drawn_slake, tmp_path)


WHOLE = {"language": "full", "lora": None, "rows_per_step": 1, "checkpoint_activations": True}


@pytest.mark.parametrize(
    ("stage", "mend"),
    [
        ({"rows_per_step": 6, "accumulate": 4}, "accumulate = 6"),
        ({"rows_per_step": 1}, "checkpoint_activations = true"),
        ({"rows_per_step": 1, "checkpoint_activations": True}, "questions_per_row = 8"),
        (WHOLE | {"optimiser": "adamw"}, 'optimiser = "adamw_8bit"'),
        (WHOLE | {"optimiser": "adamw_8bit"}, "questions_per_row = 8"),
        (
            WHOLE | {"optimiser": "adamw_8bit", "questions_per_row": 1},
            'language = "lora" and four_bit = true, or a smaller base model',
        ),
        (
            WHOLE | {"shard": True, "questions_per_row": 1},
            'language = "lora" and four_bit = true and leave shard out, or a smaller base model',
        ),
    ],
)
def test_what_costs_least_is_lowered_first(
    tiny_recipe: Callable[..., Recipe], stage: dict[str, object], mend: str
) -> None:
    recipe = tiny_recipe(**stage)

    assert smaller(recipe, recipe.stage[0]).says.startswith(mend)


def test_processes_that_read_unequal_data_are_told_before_a_step(
    tiny_recipe: Callable[..., Recipe],
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process is one whose disk holds as many questions, and others."""
    with_another = lambda mine: [*mine, *((count, read + 1) for count, read in mine)]  # noqa: E731
    monkeypatch.setattr(loop, "gather_object", with_another)

    with pytest.raises(TrainingError, match=r"unequal data \((\d+) and \1 questions, and not the"):
        train(tiny_recipe(), drawn_slake, tmp_path)

    assert not (tmp_path / "tiny" / "vqa" / "log.jsonl").exists()


def test_data_without_an_answer_is_told(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(drawn_slake, data)
    rows = json.loads((data / "slake" / "train.json").read_text())
    silent = [row | {"answer": ""} for row in rows]
    (data / "slake" / "train.json").write_text(json.dumps(silent))

    with pytest.raises(DataError, match="No question with an answer in slake train"):
        train(tiny_recipe(), data, tmp_path / "runs")


def test_a_mixture_is_balanced_and_its_load_logged(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    """After every step the bias has moved; every validation says who read which modality."""
    mixture = {"name": "moe", "experts": 4, "hidden": 8}
    recipe = tiny_recipe(name="mixture").model_copy(update={"connector": mixture})

    checkpoint = train(recipe, drawn_slake, tmp_path)

    steps = json.loads((checkpoint / "state.json").read_text())["step"]
    bias = load_file(checkpoint / "connector.safetensors")["bias"]
    assert bias.any() and bias.abs().max() <= 0.0101 * steps
    experts = [row["load"] for row in logged(checkpoint) if row["part"] == "experts"]
    assert len(experts) == 2 and all(set(load) == {"drawing"} for load in experts)
    assert sum(experts[-1]["drawing"]) == pytest.approx(1, abs=0.01)


@pytest.fixture
def exported(tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path) -> Path:
    recipe = tiny_recipe(warmup_steps=1)
    checkpoint = train(recipe, drawn_slake, tmp_path / "first")
    file = write_toml(recipe.model_dump(), tmp_path / "recipe.toml")
    return export(file, checkpoint, tmp_path / "zoo")


def test_a_worker_is_trained_on_from_where_it_was_exported(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path, exported: Path
) -> None:
    """A run that hardly learns ends where it was started from, and not with fresh weights."""
    still = {"epochs": 1, "connector_lr": 1e-5, "language_lr": 1e-5, "warmup_steps": 1}
    recipe = tiny_recipe(name="more", **still).model_copy(update={"start": str(exported)})

    more = weights(train(recipe, drawn_slake, tmp_path / "second"))
    fresh = weights(train(tiny_recipe(name="fresh", **still), drawn_slake, tmp_path / "third"))

    before = weights(exported)
    assert before.keys() == more.keys()
    for name in before:
        assert torch.allclose(more[name], before[name].float(), atol=1e-4)
    assert any((more[name] - fresh[name]).abs().max() > 1e-3 for name in before)


def test_a_run_is_started_from_one_worker_only(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path, exported: Path
) -> None:
    """One that is there, has the recipe's parts, saw no validation image, and stays the same."""
    recipe = tiny_recipe(name="more", epochs=1).model_copy(update={"start": str(exported)})
    with pytest.raises(RecipeError, match=r"start: no exported worker in .*zoo/nobody"):
        train(recipe.model_copy(update={"start": "zoo:nobody"}), drawn_slake, tmp_path / "a")
    other = recipe.model_copy(update={"connector": {"name": "mlp", "hidden": 8}})
    with pytest.raises(RecipeError, match=r"has another connector: copy \[connector\] from"):
        train(other, drawn_slake, tmp_path / "b")
    seen = tiny_recipe(name="seen", data=recipe.validation)
    seen = seen.model_copy(update={"start": str(exported), "validation": recipe.stage[0].data})
    with pytest.raises(DataError, match="is also a training image"):
        train(seen, drawn_slake, tmp_path / "c")

    train(recipe, drawn_slake, tmp_path / "d")
    changed = {name: w + 1 for name, w in load_file(exported / "connector.safetensors").items()}
    save_file(changed, exported / "connector.safetensors")
    with pytest.raises(CheckpointError, match=r"more was started from another worker than"):
        train(recipe, drawn_slake, tmp_path / "d")


@pytest.mark.parametrize("part", ["connector.safetensors", "vocabulary/tokenizer.json"])
def test_a_worker_that_a_run_started_from_is_its_weights_and_its_words(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, part: str
) -> None:
    """Where a language model is made, a token means what the vocabulary says."""
    file = tmp_path / "worker" / part
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    recipe = tiny_recipe().model_copy(update={"start": str(tmp_path / "worker")})
    claim(tmp_path / "run", recipe)
    claim(tmp_path / "run", recipe)

    file.write_bytes(b"other")
    with pytest.raises(CheckpointError, match="was started from another worker than"):
        claim(tmp_path / "run", recipe)


def test_what_a_run_goes_by_is_there_whole_or_not_at_all(
    tiny_recipe: Callable[..., Recipe],
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list of near-duplicates that was cut short would never be made again."""
    recipe, run = tiny_recipe(), tmp_path / "run"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.files.os.fsync", full)
    for write in (
        lambda: claim(run, recipe.model_copy(update={"start": str(tmp_path)})),
        lambda: check_data(recipe, drawn_slake, run),
    ):
        with pytest.raises(OSError, match="No space"):
            write()
        assert list(run.iterdir()) == []


def test_what_looks_like_a_training_image_is_listed(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    """A held-out film that is a training film, saved again with other pixels."""
    data = tmp_path / "data"
    shutil.copytree(drawn_slake, data)
    films = data / "slake" / "imgs"
    with Image.open(films / "xmlab3" / "source.jpg") as image:
        image.save(films / "xmlab8" / "source.jpg", quality=60)

    train(tiny_recipe(epochs=1), data, tmp_path / "runs")

    (pair,) = json.loads((tmp_path / "runs" / "tiny" / "near_duplicates.json").read_text())
    assert ("xmlab3" in pair["train"], "xmlab8" in pair["held_out"]) == (True, True)
    assert pair["bits"] <= 2


def test_training_on_a_validation_image_is_refused(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(name="leak")
    recipe = recipe.model_copy(update={"validation": recipe.stage[0].data})

    with pytest.raises(DataError, match="is also a training image"):
        train(recipe, drawn_slake, tmp_path)
