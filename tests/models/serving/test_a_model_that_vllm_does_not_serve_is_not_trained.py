"""A published model of an architecture that vLLM does not have is refused before it is trained, a
language model told of."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.recipe import Recipe, WholeRecipe
from models.recipe.programme import RecipeError
from models.serving import served_models
from services.cli.workers import app
from tests import tiny_vlm
from tests.tiny import write_toml

RecipeMaker = Callable[..., Recipe]


def model_of(folder: Path, *architectures: str) -> WholeRecipe:
    (folder / "config.json").write_text(json.dumps({"architectures": architectures}))
    return WholeRecipe.model_validate(tiny_vlm.recipe(folder))


def served(
    monkeypatch: pytest.MonkeyPatch, *architectures: str, version: str = "9.9", **others: str
) -> None:
    """vLLM has layers of its own for these, and classes that run transformers' for others."""
    has = {name: name for name in architectures} | others
    monkeypatch.setattr(served_models, "known", lambda: (version, has))


def test_it_is_refused_by_name_and_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn_slake: Path
) -> None:
    served(monkeypatch, "LlavaForConditionalGeneration")
    recipe = model_of(tmp_path, "NobodysForConditionalGeneration")
    file = write_toml(tiny_vlm.recipe(tmp_path), tmp_path / "recipe.toml")

    with pytest.raises(RecipeError, match=r"a Nobodys\w+, which vLLM 9.9 does not serve"):
        served_models.require_served(recipe)

    command = ["train", str(file), "--data", str(drawn_slake), "--runs", str(tmp_path / "runs")]
    assert CliRunner().invoke(app, command).exit_code == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("architecture", "version"),
    [
        ("NobodysForConditionalGeneration", ""),
        ("LlavaForConditionalGeneration", "9.9"),
        ("Qwen2_5_VLForConditionalGeneration", "9.9"),
    ],
    ids=["no vLLM is here", "it is served", "transformers' own layers are"],
)
def test_another_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, version: str
) -> None:
    served(monkeypatch, "LlavaForConditionalGeneration", version=version)

    served_models.require_served(model_of(tmp_path, architecture))


@pytest.mark.parametrize(
    "run",
    [{}, {"LlamaForCausalLM": "TransformersForCausalLM"}],
    ids=["it has none", "it runs transformers' own layers"],
)
def test_a_language_model_that_vllm_has_no_layers_for_is_told_before_it_is_trained(
    tiny_recipe: RecipeMaker,
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: dict[str, str],
) -> None:
    """It trains all the same, as whatever else has no seat."""
    served(monkeypatch, "GemmaForCausalLM", **run)
    file = write_toml(tiny_recipe(epochs=1).model_dump(), tmp_path / "recipe.toml")
    command = ["train", str(file), "--data", str(drawn_slake), "--runs", str(tmp_path / "runs")]

    ended = CliRunner().invoke(app, [*command, "--tracker", "none"])

    said = " ".join(ended.output.split())
    note, trained = "a LlamaForCausalLM, for which vLLM 9.9 has no layers", "trained: "
    assert ended.exit_code == 0 and 0 < said.index(note) < said.index(trained)


@pytest.mark.parametrize(
    ("model", "architecture", "version"),
    [
        (None, "LlamaForCausalLM", "9.9"),
        (None, "GemmaForCausalLM", ""),
        ("base:smollm2-135m-instruct", "GemmaForCausalLM", "9.9"),
    ],
    ids=["vLLM has its layers", "no vLLM is here", "the shipped panel's"],
)
def test_of_another_language_model_nothing_is_told(
    tiny_recipe: RecipeMaker,
    monkeypatch: pytest.MonkeyPatch,
    model: str | None,
    architecture: str,
    version: str,
) -> None:
    served(monkeypatch, architecture, version=version)

    recipe = tiny_recipe(language_part={"model": model} if model else {})

    served_models.require_served_language(recipe)


def test_vllm_itself_says_what_it_serves() -> None:
    pytest.importorskip("vllm")

    version, has = served_models.known()

    assert version[0].isdigit()
    assert {"LlavaForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"} <= set(has)
    assert has["LlamaForCausalLM"] == "LlamaForCausalLM"
    assert has["Olmo2ForCausalLM"].startswith(served_models.TRANSFORMERS)


def test_a_vllm_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    monkeypatch.setattr(served_models, "ASK", "import signal; signal.pause()")
    monkeypatch.setattr(served_models, "PATIENCE_S", 0.1)

    assert served_models.known.__wrapped__() == ("", {})
