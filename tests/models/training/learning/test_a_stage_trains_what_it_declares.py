"""Every way of tuning tower and language model: what moves, what is kept, what can be served."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from models.data.pixels import open_rgb
from models.parts.packing import collate
from models.parts.vlm import build_model
from models.recipe import Recipe
from models.serving.export import ExportError, export, load_served, served_folder
from models.training import loop
from models.training.inputs.augment import augmented
from models.training.inputs.examples import examples_of
from models.training.learning import tuning
from models.training.learning.losses import answer_logits
from models.training.learning.tuning import TuningError
from models.training.parts import PartsRun
from models.training.planning.dry_run import plan
from models.training.record.checkpoints import claim, newest
from models.training.stages import train
from tests.tiny import save_tokenizer, write_toml

RecipeMaker = Callable[..., Recipe]
LORA = {"rank": 2, "alpha": 2}
STAGES: dict[str, dict[str, Any]] = {
    "tower lora": {"tower": "lora", "tower_lora": LORA, "language": "frozen", "lora": None},
    "tower full": {"tower": "full", "optimiser": "adamw_8bit"},
    "language full": {"language": "full", "lora": None},
    "prefix": {"language": "prefix", "lora": None, "virtual_tokens": 3},
    "p_tuning": {"language": "p_tuning", "lora": None, "virtual_tokens": 3},
    "prompt": {"language": "prompt", "lora": None, "virtual_tokens": 3},
    "connector frozen": {"connector": "frozen"},
}


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> dict[str, Any]:
    return STAGES[request.param]


def kept(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint that the export would keep."""
    return {
        f"{path.relative_to(checkpoint)}:{key}": value
        for path in sorted(checkpoint.rglob("*.safetensors"))
        for key, value in load_file(path).items()
    }


def test_a_stopped_stage_ends_with_the_weights_of_an_unbroken_one(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, stage: dict[str, Any]
) -> None:
    """Whatever trains: after the first epoch it goes on as if nothing had been."""
    recipe = tiny_recipe(**stage, augment=True)
    unbroken = train(recipe, drawn_slake, tmp_path / "unbroken")
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    finished = tmp_path / "broken" / unbroken.relative_to(tmp_path / "unbroken")
    (finished / "state.json").unlink()  # as if it had been cut off while saving

    resumed = train(recipe, drawn_slake, tmp_path / "broken")

    expected, found = kept(unbroken), kept(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


STILL = {
    "tower_lr": 1e-5,
    "connector_lr": 1e-5,
    "language_lr": 1e-5,
    "steps": 1,
    "warmup_steps": 1,
}


def test_a_child_starts_where_its_parent_stopped(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, stage: dict[str, Any]
) -> None:
    """A child that hardly learns ends with its parent's weights, and not with fresh ones."""
    child = STILL | {"name": "more", "parent": "vqa"}
    recipe = tiny_recipe(**stage, tower_lr=1e-3, warmup_steps=1, more=[child])
    fresh = train(tiny_recipe(name="fresh", **stage | STILL), drawn_slake, tmp_path)

    last = train(recipe, drawn_slake, tmp_path)

    first = newest(tmp_path / "tiny" / "vqa")
    assert first is not None
    before, after, unlearned = kept(first.folder), kept(last), kept(fresh)
    assert before.keys() == after.keys() == unlearned.keys()
    assert apart(before, after) < 0.1 * apart(unlearned, after)


def apart(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """The norm of the difference, but for the reconstructor, which is no part of the model."""
    differences = [
        (some[name].double() - others[name].double()).flatten()
        for name in some
        if not name.startswith("reconstructor")
    ]
    return float(torch.cat(differences).norm())


@pytest.mark.parametrize("mode", ["tower lora", "tower full", "language full"])
def test_what_was_trained_is_what_is_served(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, mode: str
) -> None:
    """Kept in bfloat16, merged and loaded: the same features, the same language model."""
    recipe = tiny_recipe(**STAGES[mode], epochs=1, tower_lr=1e-2)
    checkpoint = train(recipe, drawn_slake, tmp_path / "runs")

    zoo = export(
        write_toml(recipe.model_dump(), tmp_path / "recipe.toml"), checkpoint, tmp_path / "zoo"
    )
    served = load_served(served_folder(zoo))

    trained, base = build_model(recipe), build_model(recipe)
    tuning.load_trained(trained, checkpoint, merge=True)
    if mode == "language full":
        for name, weight in trained.language.float().state_dict().items():
            assert torch.equal(served.language.state_dict()[name], weight.to(torch.bfloat16))
        return
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        here, there, before = (m.eval().tower(pixels) for m in (served, trained, base))
    assert (here - there).norm() < 0.1 * (there - before).norm()


@pytest.mark.parametrize("mode", ["prefix", "p_tuning", "prompt"])
def test_what_vllm_cannot_serve_is_not_exported(
    tiny_recipe: RecipeMaker, tmp_path: Path, mode: str
) -> None:
    recipe = tiny_recipe(**STAGES[mode])

    with pytest.raises(ExportError, match=f"by '{mode}': vLLM has no place for learned"):
        export(
            write_toml(recipe.model_dump(), tmp_path / "recipe.toml"), tmp_path, tmp_path / "zoo"
        )


def test_a_language_model_that_vllm_is_not_taught_is_not_exported(
    tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    folder = tmp_path / "gpt2"
    vocabulary = save_tokenizer(folder)
    config = GPT2Config(vocab_size=vocabulary, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    recipe = tiny_recipe(language_part={"model": str(folder)})
    toml = write_toml(recipe.model_dump(), tmp_path / "recipe.toml")

    with pytest.raises(ExportError, match="a gpt2 keeps its layers as 'transformer'"):
        export(toml, tmp_path, tmp_path / "zoo")


WHOLE = {"language": "full", "lora": None}


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ({}, WHOLE, "its parent has adapted the language, which cannot train in full"),
        (WHOLE, {"language": "lora", "lora": LORA}, "its parent has trained the language in full"),
        (
            {"tower": "full"},
            {"tower": "lora", "tower_lora": LORA},
            "its parent has trained the tower in full",
        ),
    ],
)
def test_whole_weights_and_an_adapter_are_not_mixed(
    tiny_recipe: RecipeMaker,
    drawn_slake: Path,
    tmp_path: Path,
    first: dict[str, Any],
    second: dict[str, Any],
    complaint: str,
) -> None:
    recipe = tiny_recipe(**first, epochs=1, more=[second | {"name": "more", "parent": "vqa"}])

    with pytest.raises(TuningError, match=f"stage more: {complaint}"):
        train(recipe, drawn_slake, tmp_path)
    with pytest.raises(TuningError, match=f"stage more: {complaint}"):
        plan(recipe)


@pytest.mark.parametrize("gemma", [False, True], ids=["llama", "gemma"])
@pytest.mark.parametrize("mode", ["prefix", "p_tuning", "prompt"])
def test_a_soft_prompt_stands_before_every_question(
    tiny_recipe: RecipeMaker, tiny_gemma: Path, drawn_slake: Path, mode: str, gemma: bool
) -> None:
    """Packed rows give the loss that peft's own forward gives one question at a time."""
    part = {"model": str(tiny_gemma), "bos": True} if gemma else None
    recipe = tiny_recipe(language_part=part, **STAGES[mode])
    model = build_model(recipe).float()
    tuning.prepare(model, recipe.stage[0])
    examples = examples_of(recipe.stage[0].data, drawn_slake)[:6]
    seen = torch.randn(3, model.tower.patches, model.tower.dim)

    packed = 0.0
    plain = 0.0
    for number, row in enumerate(model.packed(examples, recipe.prompt)):
        features = seen[number][None]
        logits, labels, embedded = answer_logits(model, collate([row], 0), features)
        image = embedded[0].tokens
        packed += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        for example in row.questions:
            asked = model.text_ids(recipe.prompt.format(question=example.question))
            answered = [*model.text_ids(" " + example.answer), model.tokenizer.eos_token_id]
            text = model.text_embeddings(torch.tensor([[*model.bos, *asked, *answered]]))
            first = len(model.bos)
            whole = torch.cat([text[:, :first], image, text[:, first:]], dim=1)
            known = torch.tensor([[-100] * (whole.shape[1] - len(answered)) + answered])
            mask = torch.ones(whole.shape[:2], dtype=torch.long)
            loss = model.language(inputs_embeds=whole, labels=known, attention_mask=mask).loss
            plain += loss.item() * len(answered)

    assert packed == pytest.approx(plain, rel=1e-4)


def test_a_mixture_that_is_frozen_keeps_its_balance(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(connector="frozen", epochs=1)
    recipe = recipe.model_copy(update={"connector": {"name": "moe", "experts": 4, "hidden": 8}})

    checkpoint = train(recipe, drawn_slake, tmp_path)

    assert not load_file(checkpoint / "connector.safetensors")["bias"].any()


def test_what_is_augmented_keeps_its_sides() -> None:
    """However often: what is white on the left stays there."""
    half = Image.new("L", (64, 64))
    half.paste(255, (0, 0, 32, 64))
    torch.manual_seed(0)

    seen = [np.asarray(augmented(half.convert("RGB"))).mean(-1) for _ in range(50)]

    assert all(one[16:48, 8:24].mean() > 150 > 50 > one[16:48, 40:56].mean() for one in seen)
    assert len({one.tobytes() for one in seen}) == 50


def test_only_training_images_are_augmented(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(**STAGES["tower full"], augment=True)
    run = PartsRun(recipe, recipe.stage[0], claim(tmp_path / "run", recipe), drawn_slake, None)
    as_it_is = run.model.tower.preprocess(open_rgb(run.rows[0].images[0]))

    assert torch.equal(run.seen(run.rows[:1], training=False)[0], as_it_is)
    assert not torch.equal(run.seen(run.rows[:1], training=True)[0], as_it_is)


def test_what_a_step_shows_is_the_same_whoever_makes_it(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process that is ahead of it, as on an accelerator, or after a restart; and the run's own
    lots stay its own."""
    recipe = tiny_recipe(**STAGES["tower full"], augment=True, epochs=2)
    run = PartsRun(recipe, recipe.stage[0], claim(tmp_path / "run", recipe), drawn_slake, None)
    lots = torch.get_rng_state()

    here = [shown for (shown,) in run.shown_from(0)]
    assert torch.equal(torch.get_rng_state(), lots)
    monkeypatch.setattr(loop, "LOADERS", 1)
    elsewhere = SimpleNamespace(device=torch.device("cuda"), process_index=0, num_processes=1)
    monkeypatch.setattr(run, "accelerator", elsewhere)
    later = run.shown_from(1)
    ahead = [shown for (shown,) in later]

    assert [torch.equal(a, b) for a, b in zip(here[1:], ahead, strict=True)] == [True] * len(ahead)
    assert len({shown.numpy().tobytes() for shown in here}) == len(here) > 1
    assert later.num_workers == 1
    # Any other way would pickle the run, and a made language model's hooks cannot be.
    assert later.multiprocessing_context.get_start_method() == "fork"
