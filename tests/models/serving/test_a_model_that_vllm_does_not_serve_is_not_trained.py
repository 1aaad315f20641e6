"""A published model of an architecture that vLLM does not have is refused before it is trained."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.recipe import WholeRecipe
from models.recipe.programme import RecipeError
from models.serving import served_models
from services.cli.workers import app
from tests import tiny_vlm
from tests.tiny import write_toml


def model_of(folder: Path, *architectures: str) -> WholeRecipe:
    (folder / "config.json").write_text(json.dumps({"architectures": architectures}))
    return WholeRecipe.model_validate(tiny_vlm.recipe(folder))


def served(monkeypatch: pytest.MonkeyPatch, *architectures: str, version: str = "9.9") -> None:
    monkeypatch.setattr(served_models, "known", lambda: (version, frozenset(architectures)))


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


def test_vllm_itself_says_what_it_serves() -> None:
    pytest.importorskip("vllm")

    version, names = served_models.known()

    assert version[0].isdigit()
    assert {"LlavaForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"} <= names


def test_a_vllm_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    monkeypatch.setattr(served_models, "ASK", "import signal; signal.pause()")
    monkeypatch.setattr(served_models, "PATIENCE_S", 0.1)

    assert served_models.known.__wrapped__() == ("", frozenset())
