"""The model card of an exported worker."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models import assets
from models.data.datasets import called, is_own
from models.recipe import MemoryRecipe, Recipe, WholeRecipe
from models.recipe.programme import Programme
from models.recipe.stage import Source
from models.training.record.progress import read_log

OURS = "Apache-2.0, as this repository"
_DATASETS = {
    "slake": "SLAKE (Liu et al. 2021), CC BY 4.0",
    "vqa_rad": "VQA-RAD (Lau et al. 2018), CC0 1.0",
    "vqa_med_2019": "VQA-Med 2019 (Ben Abacha et al. 2019), CC BY 4.0",
    "path_vqa": "PathVQA (He et al. 2020), MIT",
    "mediqa_m3g": "MEDIQA-M3G (Yim et al. 2024), CC BY 4.0",
    "captions": "a caption set of the user's own",
    "slake_captions": "captions made from SLAKE's organ boxes, CC BY 4.0",
    "slake_regions": "regions made from SLAKE's organ boxes, CC BY 4.0",
    "slake_several": "cases of several of SLAKE's images, made of its questions, CC BY 4.0",
    "slake_synthetic_stacks": "synthetic stacks of SLAKE's images, CC BY 4.0",
    "scenes": "synthetic scenes of shapes, drawn by models/data/scenes.py",
}


def model_card(recipe: Recipe, run: Path, scores: Path) -> str:
    """Markdown: parts, data and its licence, recipe, seed, command, scores.

    `run` is the folder of its training, with a log of each stage; `scores` what `consilium
    evaluate` measured through vLLM: a list of {"on", "score", "command"}. Either may be missing.
    """
    sources = [source for stage in recipe.stage for source in stage.data]
    tower = recipe.tower
    lines = [
        f"# {recipe.name}",
        "",
        "Trained parts of one worker of the Consilium panel. Research software, not a medical "
        "device.",
        "",
        "| part | what |",
        "| --- | --- |",
        f"| tower, {_trained(recipe, 'tower')} | {tower.name} at {tower.image_size} px, "
        f"{tower.weights} ({_licence(tower.weights)}) |",
        f"| connector, {_trained(recipe, 'connector')} | {_settings(recipe.connector)} |",
        f"| language model, {_trained(recipe, 'language')} | {_language(recipe)} |",
        *([f"| trained on from | {recipe.start} |"] if recipe.start else []),
        *_told(recipe, sources),
        f"| licence of these weights | {_licence(recipe.language.model)} |",
        f"| made by | `consilium train {recipe.name}`, then `consilium export` |",
        "",
        "`recipe.toml` holds every setting, `base.json` the base weights' hashes.",
        "",
        "## Scores",
        "",
        *_scores(scores),
    ]
    lines += _validated(recipe, run)
    return "\n".join(lines)


def whole_card(recipe: WholeRecipe, run: Path, scores: Path) -> str:
    """The same of a model that is taken whole."""
    sources = [source for stage in recipe.stage for source in stage.data]
    base = recipe.worker.model
    ranks = ", ".join(str(stage.lora.rank) for stage in recipe.stage if stage.lora)
    and_tower = " and its tower" if any(s.tower == "lora" for s in recipe.stage) else ""
    return "\n".join(
        [
            f"# {recipe.name}",
            "",
            "An adapter that makes a published model one worker of the Consilium panel. Research "
            "software, not a medical device.",
            "",
            "| | |",
            "| --- | --- |",
            f"| base | {base} ({_licence(base)}) |",
            f"| trained | LoRA on its language model{and_tower}, rank {ranks} |",
            *([f"| trained on from | {recipe.start} |"] if recipe.start else []),
            *_told(recipe, sources),
            f"| licence of these weights | {_licence(base)} |",
            f"| made by | `consilium train {recipe.name}`, then `consilium export` |",
            "",
            "`recipe.toml` holds every setting, `base.json` the base weights' hashes.",
            "",
            "## Scores",
            "",
            *_scores(scores),
            *_validated(recipe, run),
        ]
    )


def summariser_card(
    base: str, sources: Sequence[tuple[str, str, str]], lessons: int, lora: str, seed: int
) -> str:
    """Markdown for a trained summariser; `sources` are data set, split and language of the
    questions whose answers it learned from."""
    data = "; ".join(f"{_dataset(name)}: split `{split}`, {lang}" for name, split, lang in sources)
    return "\n".join(
        [
            "# Summariser",
            "",
            "An adapter for the Consilium panel's summariser. Research software, not a medical "
            "device.",
            "",
            "| | |",
            "| --- | --- |",
            f"| base | {base} ({_licence(base)}) |",
            f"| trained | LoRA, {lora} |",
            f"| learned from | a panel's answers in {lessons} cases of dispute: {data} |",
            f"| seed | {seed} |",
            f"| licence of these weights | {_licence(base)} |",
            "| made by | `consilium train-summariser` |",
            "",
        ]
    )


def memory_card(recipe: MemoryRecipe, cases: dict[str, Any], images: int, scores: Path) -> str:
    """Markdown for a worker that remembers; `scores` as in `model_card`."""
    tower = recipe.tower
    return "\n".join(
        [
            f"# {recipe.name}",
            "",
            "The memory of the Consilium panel: it answers as the training cases did that are most "
            "like the one asked about, and shows them. Research software, not a medical device.",
            "",
            "| | |",
            "| --- | --- |",
            f"| looks with | {tower.name} at {tower.image_size} px, {tower.weights} "
            f"({_licence(tower.weights)}), frozen |",
            f"| remembers | {len(cases['cases']):,} cases about {images:,} images: "
            f"{len(cases['questions']):,} questions, {len(cases['answers']):,} answers |",
            f"| data | {_data(recipe.remembers)} |",
            f"| answers in | {', '.join(recipe.languages)} |",
            f"| asked with | `{recipe.prompt!r}` |",
            "| licence of what it holds | that of the data, whose questions and answers it quotes, "
            "each answer in its commonest spelling (SLAKE's Spanish is a translation made here); "
            "of the images only measurements are kept |",
            f"| made by | `consilium remember {recipe.name}` |",
            "",
            "`recipe.toml` holds every setting, `base.json` the base weights' hashes.",
            "",
            "## Scores",
            "",
            *_scores(scores),
        ]
    )


def _dataset(name: str) -> str:
    return f"{called(name)}, a set of the user's own" if is_own(name) else _DATASETS[name]


def _data(sources: Sequence[Source]) -> str:
    return "; ".join(
        sorted(
            {
                f"{_dataset(s.set)}: split `{s.split}`"
                f"{f', all but one of {s.folds} folds by image' if s.folds else ''}, "
                f"{' and '.join(s.languages)}"
                for s in sources
            }
        )
    )


def _told(recipe: Programme, sources: Sequence[Source]) -> list[str]:
    """What every recipe says."""
    return [
        f"| stages | {', '.join(stage.name for stage in recipe.stage)} |",
        f"| answers in | {', '.join(recipe.languages)} |",
        f"| asked with | `{recipe.prompt!r}` |",
        f"| data | {_data(sources)} |",
        f"| seed | {recipe.seed} |",
    ]


def _validated(recipe: Programme, run: Path) -> list[str]:
    rows = [
        (stage.name, line)
        for stage in recipe.stage
        for log in [run / stage.name / "log.jsonl"]
        if log.exists()
        for line in read_log(log)
    ]
    if not rows:
        return []
    return [
        "After each epoch, on the stage's validation data, read with the reference (no "
        "generation):",
        "",
        "| stage | step | exact match | answer loss | reconstruction loss |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {stage} | {row['step']} | {row['exact_match']:.1%} "
            f"| {row['answer_loss']:.3f} | {row['reconstruction_loss']:.3f} |"
            for stage, row in rows
            if row["part"] == "validation"
        ),
        "",
    ]


def _scores(file: Path) -> list[str]:
    if not file.exists():
        return []
    rows = json.loads(file.read_text())
    told = [f"| {row['on']} | {row['score']} | `{row['command']}` |" for row in rows]
    return ["| on | exact match | command |", "| --- | --- | --- |", *told, ""]


def _trained(recipe: Recipe, part: str) -> str:
    """How that part has trained in any stage."""
    ways = dict.fromkeys(getattr(stage, part) for stage in recipe.stage)
    words = {"full": "trained", "lora": "LoRA"}
    return " and ".join(words.get(way, way) for way in ways if way != "frozen") or "frozen"


def _language(recipe: Recipe) -> str:
    part = recipe.language
    if made := part.made:
        return (
            f"made here: a Llama of {made.layers} layers of width {made.width}, with a token for "
            "every word of the questions and for every answer"
        )
    return f"{part.model} ({_licence(part.model)})"


def _licence(reference: str | None) -> str:
    if reference is None:
        return OURS
    packaged = assets.PACKAGED.get(reference.removeprefix("base:"))
    return packaged.licence if packaged else "see its own card"


def _settings(connector: dict[str, object]) -> str:
    rest = ", ".join(f"{key} {value}" for key, value in connector.items() if key != "name")
    return f"{connector['name']} ({rest})" if rest else str(connector["name"])
