"""Export: only a finished run of just this recipe, with scores of just these weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from models.assets import AssetError
from models.parts.vision import Tower, TowerConfig
from models.parts.vlm import build_model
from models.recipe import RECIPES, Recipe, load_any_recipe, load_recipe
from models.serving.export import ExportError, export, load_served, served_folder
from models.training.stages import train
from tests import tiny

ZOO = Path(__file__).parents[3] / "models" / "zoo"


@pytest.mark.parametrize("worker", sorted(path.name for path in ZOO.iterdir() if path.is_dir()))
def test_the_zoo_holds_the_workers_that_the_recipes_make(worker: str) -> None:
    """Whoever changes a recipe trains it, or the card names a command that makes another worker."""
    kept = load_any_recipe(ZOO / worker / "recipe.toml")

    assert kept == load_any_recipe(RECIPES / f"{worker}.toml")
    assert kept.name == worker


def test_the_zoo_is_small() -> None:
    """At most 60 MB travel with every clone."""
    assert sum(path.stat().st_size for path in ZOO.rglob("*")) < 60_000_000


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_language: Path, drawn_slake: Path
) -> tuple[Path, Path]:
    """A recipe's file, and the checkpoint that it makes."""
    folder = tmp_path_factory.mktemp("trained")
    file = tiny.write_toml(tiny.recipe(tiny_language), folder / "tiny.toml")
    return file, train(load_recipe(file), drawn_slake, folder / "runs")


def test_what_is_served_is_what_was_trained(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Through halving, merging and loading: the connector to bfloat16's last digit."""
    recipe, checkpoint = trained

    served = load_served(served_folder(export(recipe, checkpoint, tmp_path / "tiny")))

    for name, weight in load_file(checkpoint / "connector.safetensors").items():
        assert torch.equal(served.connector.state_dict()[name], weight.to(torch.bfloat16))
    assert served.language.get_output_embeddings().weight.std() > 0.1  # tied, not left as it was


def test_what_is_no_workers_folder_is_left_alone(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """What is written there is for everybody to read."""
    recipe, checkpoint = trained
    own = tmp_path / "patients.csv"
    own.write_text("Doe")
    own.chmod(0o600)
    for out in (tmp_path, own, checkpoint):
        with pytest.raises(ExportError, match=r"of its own|no folder"):
            export(recipe, checkpoint, out)
    assert own.stat().st_mode & 0o777 == 0o600 and (checkpoint / "adapter").is_dir()


def test_a_checkpoint_without_its_connector_replaces_no_worker(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, checkpoint = trained
    out = export(recipe, checkpoint, tmp_path / "tiny")
    torn = shutil.copytree(checkpoint.parents[1], tmp_path / "run") / "vqa" / checkpoint.name
    (torn / "connector.safetensors").unlink()
    with pytest.raises(ExportError, match=r"lacks connector\.safetensors"):
        export(recipe, torn, out)
    assert (out / "connector.safetensors").exists()


def test_a_sharded_base_model_is_exported_and_a_missing_shard_told(
    tmp_path: Path, drawn_slake: Path
) -> None:
    """As models of a hub's size come: in several files, each with its hash kept."""
    base = tiny.save_llama(tmp_path / "base", shards="20KB")
    whole = AutoModelForCausalLM.from_pretrained(base)
    names = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(names) == 3
    file = tiny.write_toml(tiny.recipe(base, epochs=1, steps=1), tmp_path / "tiny.toml")
    checkpoint = train(load_recipe(file), drawn_slake, tmp_path / "runs")

    zoo = export(file, checkpoint, tmp_path / "zoo")
    served = load_served(served_folder(zoo))

    kept = json.loads((zoo / "base.json").read_text())["language"]["sha256"]
    assert sorted(kept) == names
    embeddings = whole.get_input_embeddings().weight
    assert torch.equal(served.language.get_input_embeddings().weight, embeddings)
    (base / names[1]).unlink()
    with pytest.raises(AssetError, match=rf"lacks {names[1]} \(1 of 3 files of weights\): copy or"):
        build_model(load_recipe(file))


def without_a_shard(index: Path) -> None:
    """Of a model of that few weights: transformers would draw the others."""
    named = json.loads(index.read_text())["weight_map"]
    kept = {name: file for name, file in named.items() if file == min(named.values())}
    index.write_text(json.dumps(json.loads(index.read_text()) | {"weight_map": kept}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_a_shard, r"lacks \d+ of its weights, model\.\S+ among them: copy or fetch"),
        (lambda index: index.write_text('{"weight_'), "is broken: it names no weights"),
        (lambda index: index.write_text("[]"), "is broken: it names no weights"),
        (lambda index: cut(min(index.parent.glob("*.safetensors"))), "a file of weights is broken"),
        (
            lambda index: (index.parent / "config.json").write_text("{}"),
            "cannot be taken as a lang",
        ),
    ],
    ids=["no shard in the index", "half an index", "no index", "half a shard", "no settings"],
)
def test_a_base_model_that_is_not_whole_is_one_sentence(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    base = tiny.save_llama(tmp_path / "base", shards="20KB")
    spoil(base / "model.safetensors.index.json")

    with pytest.raises(AssetError, match=says):
        build_model(Recipe.model_validate(tiny.recipe(base)))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_an_unfinished_or_foreign_checkpoint_is_refused(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, checkpoint = trained
    other = tmp_path / "other.toml"
    other.write_text(recipe.read_text().replace("rank = 2", "rank = 4"))
    (first_epoch,) = set(checkpoint.parent.glob("step-*")) - {checkpoint}

    with pytest.raises(ExportError, match="was not trained by this recipe"):
        export(other, checkpoint, tmp_path / "tiny")
    with pytest.raises(ExportError, match="is not a stage's last checkpoint"):
        export(recipe, first_epoch, tmp_path / "tiny")


def test_a_stage_that_is_not_the_last_is_refused(
    trained: tuple[Path, Path], tiny_language: Path, tmp_path: Path
) -> None:
    """The card would tell of stages that these weights never saw."""
    _, checkpoint = trained
    content = tiny.recipe(tiny_language)
    content["stage"] += [tiny.STAGE | {"name": "more", "parent": "vqa"}]
    longer = tiny.write_toml(content, tmp_path / "longer.toml")

    with pytest.raises(ExportError, match=r"is of stage 'vqa', and the recipe goes on to 'more'"):
        export(longer, checkpoint, tmp_path / "tiny")


def test_scores_go_with_the_weights_that_they_were_measured_of(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, checkpoint = trained
    zoo = export(recipe, checkpoint, tmp_path / "tiny")
    (zoo / "scores.json").write_text('[{"on": "a test", "score": "50 %", "command": "measure"}]')

    export(recipe, checkpoint, zoo)
    assert "50 %" in (zoo / "README.md").read_text()

    weights = load_file(zoo / "connector.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, zoo / "connector.safetensors")
    export(recipe, checkpoint, zoo)
    assert "50 %" not in (zoo / "README.md").read_text()


def test_a_towers_weights_in_another_order_are_refused(tmp_path: Path, cache: Path) -> None:
    """BatchNorm's mean and bias have one shape; swapped they would load without a word."""
    from models.parts.vision import _load_by_order

    weights = torch.load(cache / "base" / "mobilenetv2-imagenet.pth", weights_only=True)
    names = list(weights)
    bias = next(i for i, name in enumerate(names) if name.endswith(".bias"))
    names[bias], names[bias + 1] = names[bias + 1], names[bias]
    torch.save({name: weights[name] for name in names}, tmp_path / "swapped.pth")
    net = Tower(TowerConfig("mobilenetv2_100", "base:mobilenetv2-imagenet", 64)).net

    with pytest.raises(AssetError, match=r"swapped\.pth does not hold the weights of this tower"):
        _load_by_order(net, tmp_path / "swapped.pth")
