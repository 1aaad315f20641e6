"""A vision-language model as it is published learns by LoRA, by its own processor and template."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from typer.testing import CliRunner

from models.assets import AssetError
from models.data.example import DataError
from models.data.pixels import open_rgb
from models.parts.whole import build_whole, load_whole
from models.recipe import WholeRecipe, load_programme
from models.recipe.programme import RecipeError
from models.serving import merge
from models.serving.export import ExportError, export, load_served, served_folder
from models.training.crossval import crossval
from models.training.inputs.examples import examples_of
from models.training.learning.tuning import TuningError
from models.training.planning.dry_run import plan
from models.training.planning.fits import smaller
from models.training.record.checkpoints import CheckpointError
from models.training.record.progress import read_log
from models.training.stages import train
from models.training.whole import adapt
from services.cli import workers
from tests import tiny_vlm
from tests.tiny import DATA, write_toml

KINDS = {
    "qwen": tiny_vlm.save_qwen,
    "llava": tiny_vlm.save_llava,
    "gemma": tiny_vlm.save_gemma,
    "qwen3.5": tiny_vlm.save_qwen35,
}
ROOT = Path(__file__).parents[3]
SMALL = {"size": {"shortest_edge": 28 * 28, "longest_edge": 2 * 28 * 28}}
PROCESSORS = {"qwen2_5_vl": SMALL}  # other than the publisher's


@pytest.fixture(scope="module", params=KINDS)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return KINDS[request.param](tmp_path_factory.mktemp(request.param))


def recipe(folder: Path, **stage: Any) -> WholeRecipe:
    return WholeRecipe.model_validate(tiny_vlm.recipe(folder, **stage))


def test_a_case_is_laid_out_as_the_model_s_own_processor_does(
    published: Path, drawn_slake: Path
) -> None:
    """Rows of unlike length, images of unlike size: each has the logits that it has alone."""
    model = load_whole(published, torch.float32).eval()
    rows = model.packed(examples_of(recipe(published).validation, drawn_slake)[:2], "{question}")
    images = [Image.new("RGB", size, "red") for size in ((56, 56), (140, 56))]
    told = [row.labels[row.labels != -100] for row in rows]
    asked = [row.questions[0].question for row in rows]

    seen = model.laid_out(asked, [[image] for image in images], [each[:-1] for each in told])
    logits = model.answer_logits(seen, torch.tensor([len(each) for each in told]))

    for image, row, own in zip(images, rows, logits.split([len(e) for e in told]), strict=True):
        (question,) = row.questions
        turns = [
            {"role": role, "content": content}
            for role, content in (
                ("user", [{"type": "image", "image": image}, text(question.question)]),
                ("assistant", [text(question.answer)]),
            )
        ]
        alone = model.processor.apply_chat_template(
            turns, tokenize=True, return_dict=True, return_tensors="pt"
        )
        (ids,) = alone["input_ids"].tolist()
        end = len(ids) - ids[::-1].index(model.end)
        assert ids[end - len(own) : end][:-1] == own_ids(model, question.answer)
        expected = model.net(**alone).logits[0, end - len(own) - 1 : end - 1]
        assert torch.allclose(own, expected, atol=1e-3)


def text(written: str) -> dict[str, str]:
    return {"type": "text", "text": written}


def own_ids(model: Any, answer: str) -> list[int]:
    return model.tokenizer(model.before + answer, add_special_tokens=False).input_ids


@pytest.mark.parametrize("tower", ["frozen", "lora"])
def test_what_is_served_is_what_was_trained(
    published: Path, drawn_slake: Path, tmp_path: Path, tower: str
) -> None:
    """Two stages, the second on the first one's adapter; kept as an adapter, served merged, with
    the publisher's own processor and template."""
    content = tiny_vlm.recipe(published, epochs=2, tower=tower)
    kind = json.loads((published / "config.json").read_text())["model_type"]
    content["worker"]["processor"] = PROCESSORS.get(kind, {})
    content["stage"] += [content["stage"][0] | {"name": "more", "parent": "vqa", "epochs": 1}]
    file = write_toml(content, tmp_path / "recipe.toml")
    asked = load_programme(file)
    assert isinstance(asked, WholeRecipe)

    checkpoint = train(asked, drawn_slake, tmp_path / "runs")
    exported = export(file, checkpoint, tmp_path / "exported")
    served = load_served(served_folder(exported))

    trained, base = build_whole(asked), load_whole(published)
    adapt(trained, asked.stage[0], exported)
    (planned, _) = plan(asked)
    assert planned.trains["LoRA"] == sum(p.numel() for p in trained.parameters() if p.requires_grad)
    examples = examples_of(asked.validation, drawn_slake)[:4]
    images = [open_rgb(each.images[0]) for each in examples]
    told = [asked.prompt.format(question=each.question) for each in examples]
    seen = [
        model.laid_out(told, [[image] for image in images]).to("cpu", torch.bfloat16)
        for model in (trained, served, base)
    ]
    assert torch.equal(seen[0]["input_ids"], seen[1]["input_ids"])
    logits = [
        model.eval().answer_logits(each, torch.ones(len(told)))
        for model, each in zip((trained, served, base), seen, strict=True)
    ]
    apart, moved = ((logits[0] - other).norm() / logits[0].norm() for other in logits[1:])
    assert apart < 0.05 < 0.2 < moved
    assert (len(seen[0]["input_ids"][0]) < len(seen[2]["input_ids"][0])) == (kind in PROCESSORS)
    assert served.ends == trained.ends
    assert served.answer([images[0]], told[0], 4)
    learned = load_file(exported / "adapter_model.safetensors")
    assert any("vision" in name or "visual" in name for name in learned) == (tower == "lora")
    card = (exported / "README.md").read_text("utf-8")
    assert f"LoRA on its language model{' and its tower' if tower == 'lora' else ''}, rank" in card


def test_a_parent_s_adapter_is_in_the_layers_that_the_stage_says(
    published: Path, drawn_slake: Path, tmp_path: Path
) -> None:
    content = tiny_vlm.recipe(published)
    content["stage"] += [content["stage"][0] | {"name": "more", "parent": "vqa", "tower": "lora"}]

    with pytest.raises(TuningError, match="stage more: its parent's adapter is in other layers"):
        train(WholeRecipe.model_validate(content), drawn_slake, tmp_path)


def test_it_trains_on_from_an_exported_adapter(
    published: Path, drawn_slake: Path, tmp_path: Path
) -> None:
    """At a rate at which nothing is learned it is that adapter still, and no fresh one."""
    file = write_toml(tiny_vlm.recipe(published), tmp_path / "recipe.toml")
    exported = export(file, train(load_programme(file), drawn_slake, tmp_path), tmp_path / "out")
    content = tiny_vlm.recipe(published, language_lr=1e-6) | {"name": "on", "start": str(exported)}

    checkpoint = train(WholeRecipe.model_validate(content), drawn_slake, tmp_path)

    before, after = (load_file(at / "adapter_model.safetensors") for at in (exported, checkpoint))
    assert before.keys() == after.keys()
    apart = [(before[name].float() - after[name].float()).abs().max() for name in before]
    assert max(apart) < 1e-3 < max(each.abs().max() for name, each in before.items() if "B" in name)


def test_in_folds_each_question_is_asked_once(
    published: Path, drawn_slake: Path, tmp_path: Path
) -> None:
    folded = DATA | {"folds": 2}
    content = tiny_vlm.recipe(published, data=[folded]) | {"validation": [folded]}

    scores = crossval(WholeRecipe.model_validate(content), drawn_slake, tmp_path)

    checked = [
        set(json.loads(path.read_text()))
        for path in sorted(tmp_path.glob("published-fold*/vqa/step-*/validation.json"))
    ]
    assert len(checked) == 2 and checked[0].isdisjoint(checked[1])
    assert scores["all"].cases == sum(map(len, checked)) == 16
    for kept in tmp_path.glob("published-fold1/vqa/step-*/asked.crc32"):
        kept.write_text("0")  # as of other questions by the same ids
    with pytest.raises(CheckpointError, match="scored on other questions"):
        crossval(WholeRecipe.model_validate(content), drawn_slake, tmp_path)


def test_a_smoke_run_of_it_ends_in_what_is_served(
    published: Path, drawn_slake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM itself is started in tests/end_to_end."""
    monkeypatch.setattr(workers, "find_spec", lambda _: None)
    file = write_toml(tiny_vlm.recipe(published, epochs=9), tmp_path / "recipe.toml")
    command = ["train", str(file), "--smoke", "--data", str(drawn_slake), "--runs", str(tmp_path)]

    done = CliRunner().invoke(workers.app, command)

    assert done.exit_code == 0, done.output
    run = tmp_path / "published-smoke"
    lines = read_log(run / "vqa" / "log.jsonl")
    assert len([line for line in lines if line["part"] == "validation"]) == 1
    served = load_served(served_folder(run / "exported"))
    assert served.answer([Image.new("RGB", (56, 56))], "Which colour?", 2)
    assert "not served: vLLM is not installed here." in done.output


def test_an_adapter_whose_layers_the_files_call_otherwise_is_not_served_merged(
    published: Path, drawn_slake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the adapter learned would silently be left out."""
    file = write_toml(tiny_vlm.recipe(published), tmp_path / "recipe.toml")
    exported = export(file, train(load_programme(file), drawn_slake, tmp_path), tmp_path / "out")
    monkeypatch.setattr(
        merge,
        "revert_weight_conversion",
        lambda _, found: {f"not.{k}": v for k, v in found.items()},
    )

    with pytest.raises(ExportError, match=r"\d\d of its layers with a LoRA are in none"):
        served_folder(exported)


@pytest.mark.parametrize(
    ("key", "value"),
    [("connector", "full"), ("tower_lr", 0.1), ("reconstruction", 0.1), ("questions_per_row", 4)],
)
def test_a_key_of_parts_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"{key}: not of a model that is taken whole"):
        recipe(Path("somewhere"), **{key: value})


@pytest.mark.parametrize(
    ("worker", "stage", "mend"),
    [
        ({}, {"accumulate": 2}, "accumulate = 4 instead of 2"),
        ({}, {"accumulate": 4}, "checkpoint_activations = true"),
        ({}, {"accumulate": 4, "checkpoint_activations": True}, "worker.four_bit = true (a"),
        (
            {},
            {"accumulate": 4, "checkpoint_activations": True, "shard": True},
            "worker.four_bit = true and leave shard out",
        ),
        (
            {"four_bit": True, "processor": SMALL},
            {"accumulate": 4, "checkpoint_activations": True},
            "longest_edge = 784 in worker.processor.size",
        ),
        (
            {"four_bit": True},
            {"accumulate": 4, "checkpoint_activations": True},
            "in worker.processor a smaller size",
        ),
    ],
)
def test_what_costs_least_is_lowered_first(
    worker: dict[str, Any], stage: dict[str, Any], mend: str
) -> None:
    content = tiny_vlm.recipe(Path("somewhere"), **stage)
    content["worker"] |= worker
    asked = WholeRecipe.model_validate(content)

    assert smaller(asked, asked.stage[0]).says.startswith(mend)


def test_a_model_that_cannot_be_taken_whole_is_told(
    published: Path, tiny_language: Path, tmp_path: Path
) -> None:
    """One without images, and one that nobody says how to chat with."""
    with pytest.raises(RecipeError, match="cannot be taken whole"):
        build_whole(recipe(tiny_language))
    shutil.copytree(published, tmp_path / "mute")
    (tmp_path / "mute" / "chat_template.jinja").unlink()
    with pytest.raises(RecipeError, match="chat template"):
        build_whole(recipe(tmp_path / "mute"))


def test_a_model_that_names_no_part_that_writes_is_told(published: Path) -> None:
    asked = recipe(published)
    model = build_whole(asked)
    model.net = torch.nn.Linear(2, 2)

    with pytest.raises(TuningError, match="which part of a Linear writes"):
        adapt(model, asked.stage[0], None)


def test_a_plan_of_what_is_no_model_is_one_sentence(tiny_language: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be taken whole"):
        plan(recipe(tiny_language))


def test_a_model_that_is_not_whole_is_one_sentence(published: Path, tmp_path: Path) -> None:
    there = shutil.copytree(published, tmp_path / "there")
    file = max(there.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(AssetError, match="a file of weights is broken"):
        build_whole(recipe(there))


def test_the_recipe_that_the_documents_show_is_one() -> None:
    blocks = (ROOT / "docs/training.md").read_text().split("```toml\n")
    (shown,) = (block.split("```")[0] for block in blocks if "\n[worker]" in block)

    assert WholeRecipe.model_validate(tomllib.loads(shown)).bases == (
        "Qwen/Qwen2.5-VL-7B-Instruct",
    )


def test_a_question_that_would_command_the_model_is_refused(
    published: Path, drawn_slake: Path
) -> None:
    """vLLM would take what is written like a control token for one."""
    model = load_whole(published)
    examples = examples_of(recipe(published).validation, drawn_slake)

    with pytest.raises(DataError, match="a control token"):
        model.packed(examples, f"{{question}}{model.tokenizer.eos_token}")
