"""Recipes: one line that names file, key and mend; the shipped ones agree with panel.toml."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from gateway.settings import load_settings
from models import connectors
from models.exported import ZOO, served_name
from models.parts.vlm import assemble
from models.recipe import RECIPES, Recipe, load_any_recipe, load_recipe
from models.recipe.programme import RecipeError
from models.training.planning.dry_run import plan
from services.cli.__main__ import app
from tests import tiny

ROOT = Path(__file__).parents[3]
SHIPPED = sorted(path.stem for path in RECIPES.glob("*.toml") if "memory" not in path.stem)
GOOD = (RECIPES / "mobilenet.toml").read_text()
MODEL = 'model = "base:smollm2-135m-instruct"'
MADE = "{ layers = 1, width = 64, hidden = 64, heads = 2 }"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_loads_and_names_a_connector_there_is(name: str) -> None:
    recipe = load_recipe(name)

    assert recipe.name == name
    assert recipe.connector["name"] in connectors.names()


@pytest.mark.parametrize("connector", [{"name": "mpl", "hidden": 8}, {"hidden": 8}])
def test_a_connector_that_there_is_not_is_told_before_anything_trains(
    connector: dict[str, Any], tmp_path: Path
) -> None:
    recipe = load_recipe("mobilenet").model_copy(update={"connector": connector})
    file = tiny.write_toml(recipe.model_dump(), tmp_path / "recipe.toml")

    done = CliRunner().invoke(
        app, ["train", str(file), "--data", str(tmp_path), "--runs", str(tmp_path)]
    )

    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "recipe mobilenet: connector: Unknown connector" in done.output
    assert "spatial3d.\n" in done.output


def test_a_worker_is_asked_as_it_was_trained() -> None:
    """panel.toml repeats a recipe's prompt, family, languages and number of images; they must not
    drift apart."""
    workers = load_settings(ROOT / "panel.toml").workers

    assert len(workers) == 5
    for worker in workers:
        recipe = load_any_recipe(worker.model.removeprefix("zoo:"))
        seat = (worker.prompt, worker.family, tuple(sorted(worker.languages)))
        assert seat == (recipe.prompt, recipe.family, recipe.languages)
        assert worker.max_images == recipe.max_images


def test_the_shipped_workers_are_those_that_competence_was_learned_from() -> None:
    """Whoever exports a worker anew calibrates anew."""
    settings = load_settings(ROOT / "panel.toml")

    assert settings.competence
    for worker in settings.workers:
        for learned in filter(None, (settings.competence, settings.grey_answers)):
            weights = learned.workers[worker.name].weights
            assert weights == served_name(ZOO / worker.model.removeprefix("zoo:"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("seed = 0", "sead = 0", r"sead: Extra inputs are not permitted"),
        ("{question}", "", r"prompt must hold \{question\}"),
        ("epochs = 7", "epochs = 0", r"stage\.0\.epochs: Input should be greater than or equal"),
        ('language = "lora"', 'language = "frozen"', r"stage\.lora\] table goes with"),
        (
            'connector = "full"',
            'connector = "full"\nparent = "x"',
            r"parent 'x' is no earlier stage",
        ),
        ("[tower]", "[tower", r"is not TOML"),
        ("Answer:", "{hint}", r"prompt may hold no braces but \{question\}"),
        ("Answer:", "{", r"prompt may hold no braces but \{question\}"),
        ("{question}", "{question[0]}", r"prompt may hold no braces but \{question\}"),
        ("{question}", "{question:.3}", r"prompt may hold no braces but \{question\}"),
        ("epochs = 7", "epochs = 7\nconnector_lr = inf", r"connector_lr: Input should be a finite"),
        ("epochs = 7", "epochs = 7\ntower_lr = nan", r"tower_lr: Input should be a finite number"),
        ("epochs = 7", "epochs = 7\nlanguage_lr = -inf", r"language_lr: Input should be a finite"),
        ("epochs = 7", "epochs = 7\ntower_lr = 0", r"tower_lr: Input should be greater than 0"),
        ("epochs = 7", "epochs = 7\nconnector_lr = -1e-3", r"connector_lr: .* greater than 0"),
        ("reconstruction = 0.1", "reconstruction = inf", r"reconstruction: .* finite number"),
        ("epochs = 7", "epochs = 7\nwarmup_steps = inf", r"warmup_steps: .* finite number"),
        ('name = "mlp"', 'name = "mlp"\ngain = nan', r"connector: .*inf and nan are no settings"),
        (
            'connector = "full"',
            'connector = "full"\ntower_lora = { rank = 2 }',
            r"stage\.tower_lora\] table goes with",
        ),
        (MODEL, "", "give model, a reference, or made, a table of sizes: one of them"),
        (MODEL, f"{MODEL}\nmade = {MADE}", "or made, a table of sizes: one of them"),
        (
            MODEL,
            f"made = {MADE}",
            'a made language model has image_token = "<image>", and no other',
        ),
        (
            f'{MODEL}\nfamily = "smollm2"\nimage_token = "<file_sep>"',
            f'made = {MADE}\nfamily = "own"\nimage_token = "<image>"',
            "stage vqa: a made language model knows nothing yet",
        ),
        (MODEL, f"made = {MADE}\nbos = true", "bos and four_bit are for a model that is there"),
        (MODEL, f"made = {MADE.replace('64', '66')}", "width must be a multiple of 4"),
        ("reconstruction", "word_dropout", "stage vqa: word_dropout: only made has an unknown"),
        (
            "] }]\naugment",
            "], copies = 2 }]\naugment",
            'copies of an image are for tower = "frozen"',
        ),
    ],
)
def test_a_wrong_recipe_is_one_line(old: str, new: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(GOOD.replace(old, new, 1))

    with pytest.raises(RecipeError, match=complaint) as caught:
        load_recipe(path)

    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert "Value error" not in str(caught.value)  # pydantic's word for a check of ours


def recipe_with(tmp_path: Path, **changed: Any) -> Path:
    content = tiny.recipe(tmp_path, **changed.pop("stage", {})) | changed
    return tiny.write_toml(content, tmp_path / "tiny.toml")


def test_a_recipe_is_scored_on_something(tmp_path: Path) -> None:
    """In every stage, whether by the recipe's or by its own."""
    for wrong in ({"validation": []}, {"validation": [tiny.DATA | {"languages": []}]}):
        with pytest.raises(RecipeError, match=r"validation is empty: name|languages: .*at least 1"):
            load_recipe(recipe_with(tmp_path, **wrong))
    own = {"validation": [tiny.DATA]}
    assert load_recipe(recipe_with(tmp_path, validation=[], stage=own)).held_out


def test_a_recipe_is_found_by_its_file_with_or_without_suffix_and_then_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies where one stands comes first; a folder is no recipe."""
    monkeypatch.chdir(tmp_path)
    Path("plami").mkdir()
    assert load_recipe("plami").name == "plami"
    for file in ("my-recipe.toml", "odd", "mobilenet.toml"):
        Path(file).write_text(GOOD.replace('"mobilenet"', f'"{file[:2]}"', 1), "utf-8-sig")

    assert [load_recipe(name).name for name in ("my-recipe", "my-recipe.toml", "odd")] == [
        "my",
        "my",
        "od",
    ]
    assert load_recipe("mobilenet").name == "mo"
    for nowhere in ("no-such", "plami/no-such.toml", "."):
        with pytest.raises(
            RecipeError, match=r"No recipe at .*one of: .*clinicalblip, .*mobilenet"
        ):
            load_recipe(nowhere)


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"No recipe at nope\..*mobilenet"):
        load_recipe("nope")


@pytest.mark.parametrize(
    ("part", "settings", "complaint"),
    [
        ("tower", {"name": "mobilenet_v9"}, "tower: timm has no tower 'mobilenet_v9'"),
        (
            "tower",
            {"name": "swin_tiny_patch4_window7_224", "image_size": 224},
            r"tower: .* gives features \[1, 7, 7, 768\], no square grid",
        ),
        ("connector", {"name": "mlp", "hidden": 0}, "connector: mlp: hidden: Input should be"),
        ("connector", {"depth": 1}, r"connector: Connector 'mlp' has no setting .*[^.]\.$"),
    ],
)
def test_parts_that_do_not_fit_are_told_before_anything_is_trained(
    tiny_recipe: Callable[..., Recipe], part: str, settings: dict[str, object], complaint: str
) -> None:
    content = tiny_recipe().model_dump()
    recipe = Recipe.model_validate(content | {part: content[part] | settings})

    with pytest.raises(RecipeError, match=f"recipe tiny: {complaint}"):
        plan(recipe)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"layer_types": ["linear_attention", "full_attention"]}, "layers of linear_attention"),
        ({"layer_types": ["sliding_attention"] * 2, "sliding_window": 66}, "look 66 tokens back"),
    ],
)
def test_layers_that_would_not_see_what_they_are_trained_on_are_refused(
    tiny_recipe: Callable[..., Recipe], tiny_language: Path, layers: dict[str, Any], says: str
) -> None:
    """A tiny image takes four tokens, and 64 are for a question with its answer."""
    config = AutoConfig.from_pretrained(tiny_language)
    language = AutoModelForCausalLM.from_config(config)
    for name, value in layers.items():
        setattr(language.config, name, value)

    with pytest.raises(RecipeError, match=says):
        assemble(tiny_recipe(), language, AutoTokenizer.from_pretrained(tiny_language))
