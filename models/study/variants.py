"""What an ablation compares: every variant of a recipe, which differs from the baseline in one
thing, and the analyses that hold them against each other.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple, get_args

from pydantic import ValidationError

from models import complaint, connectors
from models.recipe import Recipe
from models.recipe.programme import RecipeError
from models.recipe.stage import PartsStage

BASELINE = "baseline"
FULL = "full"  # the analysis whose variants have no budget of steps
RECONSTRUCTION = (0.0, 0.1, 1.0, 3.0, 10.0)  # the λ that are compared
ROWS_UNPACKED = 10  # rows with one question each in place of one: SLAKE has as many for an image

Shown = Literal["own", "blank", "other"]


class AblationError(Exception):
    """A screening that cannot be run or read; one sentence that says why and how to mend it."""


class Choice(NamedTuple):
    """One line of an analysis: a variant as it is shown images, and what it is held against."""

    label: str
    variant: str
    shown: Shown
    against: tuple[str, Shown]


def refuse_unfit(recipe: Recipe) -> None:
    """Raises AblationError where the recipe is none for screening."""
    if any(stage.tower != "frozen" or stage.augment for stage in recipe.stage):
        raise AblationError(
            f"recipe {recipe.name}: a screening runs on cached features: take one whose tower is "
            "frozen in every stage, without augment."
        )
    if tested := [source.set for source in recipe.held_out if source.split == "test"]:
        raise AblationError(
            f"recipe {recipe.name}: it is validated on the test split of {tested[0]}, and choices "
            "are not made on that: take another split."
        )


def variants_of(recipe: Recipe, steps: int | None) -> dict[str, Recipe]:
    """Every variant by its name, the baseline first; `steps` optimiser steps each, or None for as
    many as the recipe takes.

    Raises:
        RecipeError: one of them would be no recipe.
    """
    (last,) = _within(recipe.stage[-1:], steps)
    by_labels = last.model_copy(update={"method": "supervised", "grpo": None})
    baseline = _changed(recipe, BASELINE, stage=(by_labels,))
    found = {BASELINE: baseline}
    if last.grpo:
        found["reward"] = _changed(recipe, "reward", stage=(last,))
    (stage,) = baseline.stage
    for name in connectors.names():
        if name != recipe.connector["name"]:
            wide = stage
            if connectors.reads_question(name):
                rows = stage.rows_per_step * ROWS_UNPACKED
                wide = stage.model_copy(update={"rows_per_step": rows})
            found[f"connector-{name}"] = _changed(
                baseline, f"connector-{name}", connector={"name": name}, stage=(wide,)
            )
    for weight in RECONSTRUCTION:
        if weight != stage.reconstruction:
            name = f"reconstruction-{weight:g}".replace(".", "_")
            changed = stage.model_copy(update={"reconstruction": weight})
            found[name] = _changed(baseline, name, stage=(changed,))
    if recipe.tower.name == "vq_codes":
        continuous = recipe.tower.model_copy(update={"name": "vq_features"})
        found["continuous"] = _changed(baseline, "continuous", tower=continuous)
    both = recipe.language.model_copy(update={"image_attention": "bidirectional"})
    found["image-bidirectional"] = _changed(baseline, "image-bidirectional", language=both)
    for first in range(len(recipe.stage) - 2, -1, -1):
        stages = recipe.stage[first:]
        name = "-".join(["stages", *(stage.name for stage in stages)])
        found[name] = _changed(recipe, name, stage=_within(stages, steps))
    return found


def _within(stages: Sequence[PartsStage], steps: int | None) -> tuple[PartsStage, ...]:
    """The stages, one after the other, in so many steps: two parts for the last, one for each that
    comes before it. A sixth of each warms up. None leaves them as long as they are."""
    names = [stage.name for stage in stages]
    stages = [
        stage if stage.parent in names else stage.model_copy(update={"parent": None})
        for stage in stages
    ]
    if steps is None:
        return tuple(stages)
    early = steps // (len(stages) + 1)
    counts = [early] * (len(stages) - 1) + [steps - early * (len(stages) - 1)]
    return tuple(
        stage.model_copy(
            update={
                "steps": count,
                "epochs": max(count, 1),  # the steps end it, however small the data
                "warmup_steps": max(count // 6, 1),
            }
        )
        for stage, count in zip(stages, counts, strict=True)
    )


def _changed(recipe: Recipe, name: str, **changes: Any) -> Recipe:
    try:
        return Recipe.model_validate(
            recipe.model_copy(update={"name": name, **changes}).model_dump()
        )
    except ValidationError as error:
        told = complaint.first_of(error.errors())
        raise RecipeError(f"recipe {recipe.name}: {told}.") from error


def analyses_of(recipe: Recipe, variants: Collection[str]) -> dict[str, list[Choice]]:
    """What is told of the `variants`, by the analysis's name; all within the same steps."""

    def held_against_baseline(named: dict[str, str]) -> list[Choice]:
        return [
            Choice(label, v if v in variants else BASELINE, "own", (BASELINE, "own"))
            for label, v in named.items()
        ]

    # What reads the question cannot be packed, and takes by far the longest.
    names = sorted(connectors.names(), key=connectors.reads_question)
    stages = [stage.name for stage in recipe.stage]
    weights = {f"{w:g}": f"reconstruction-{w:g}".replace(".", "_") for w in RECONSTRUCTION}
    programmes = [stages[first:] for first in range(len(stages) - 1, -1, -1)]
    found = {
        "connectors": held_against_baseline({name: f"connector-{name}" for name in names}),
        "reconstruction": held_against_baseline(weights),
        "image-attention": held_against_baseline(
            {"causal": BASELINE, "bidirectional": "image-bidirectional"}
        ),
        "stages": held_against_baseline(
            {", ".join(p): "-".join(["stages", *p]) for p in programmes}
        ),
    }
    if "continuous" in variants:
        found["codes"] = held_against_baseline(
            {"codes": BASELINE, "the same before they are codes": "continuous"}
        )
    if "reward" in variants:
        found["reward"] = held_against_baseline({"labels": BASELINE, "reward": "reward"})
    found["images"] = [
        Choice(f"{variant}, {shown}", variant, shown, (variant, "own"))
        for variant in variants
        for shown in get_args(Shown)
        if shown != "own"
    ]
    return found


def full_analysis(best: Sequence[str]) -> list[Choice]:
    """The best variants without a budget, held against the baseline without one."""
    against = f"{FULL}-{BASELINE}"
    return [
        Choice(variant, f"{FULL}-{variant}", "own", (against, "own"))
        for variant in dict.fromkeys([BASELINE, *best])
    ]
