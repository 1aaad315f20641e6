"""Does a recipe fit the GPUs that are there, and what is to be lowered where it does not?"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from models.recipe import Recipe, WholeRecipe
from models.recipe.programme import Programme
from models.recipe.stage import PartsStage, Stage
from models.training.planning.dry_run import StagePlan, gb, plan

USABLE = 0.9  # of a GPU: CUDA keeps some, and a plan says what is needed at least


class Change(NamedTuple):
    """What to set, in words; and as keys of the stage, where a plan can tell what that gains."""

    says: str
    keys: dict[str, Any]


def told(recipe: Recipe | WholeRecipe, data: Path | None, gpus: Sequence[float]) -> Iterator[str]:
    """Each stage's plan on so many `gpus` of so many GB each (none: one, of which nothing is
    known), and whether that fits; raises as `plan` does. Where a stage learns by reward it is one
    of them: that is done on one process."""
    if any(isinstance(stage, PartsStage) and stage.grpo for stage in recipe.stage):
        gpus = gpus[:1]
    for number, stage in enumerate(plan(recipe, data, max(1, len(gpus)))):
        yield str(stage)
        if gpus:
            yield f"  {_verdict(recipe, data, number, stage, gpus)}"


def _verdict(
    recipe: Recipe | WholeRecipe,
    data: Path | None,
    number: int,
    planned: StagePlan,
    gpus: Sequence[float],
) -> str:
    """Of one stage: it fits, or after which changes it would, each with what is then taken."""
    room = USABLE * min(gpus) * 1e9
    machine = f"{len(gpus)} x {min(gpus):g} GB, of which {gb(room)} may be used"
    if planned.memory <= room:
        return f"fits {machine}{planned.left_out}"
    steps = []
    while planned.memory > room:
        change = smaller(recipe, recipe.stage[number], len(gpus))
        if not change.keys:
            steps.append(f"then {change.says}")
            break
        stages = list(recipe.stage)
        stages[number] = stages[number].model_copy(update=change.keys)
        recipe = recipe.model_copy(update={"stage": tuple(stages)})
        planned = plan(recipe, data, len(gpus))[number]
        steps.append(f"{change.says}: {gb(planned.memory)}")
    return f"does not fit {machine}. Set {'; '.join(steps)}"


def smaller(recipe: Programme, stage: Stage, gpus: int = 1) -> Change:
    """What to set next for a stage that takes too much memory; what costs least comes first."""
    of_parts = stage if isinstance(stage, PartsStage) else None
    own = -(-stage.rows_per_step // gpus)
    if stage.accumulate < own:
        parts = min(2 * stage.accumulate, own)
        says = f"accumulate = {parts} instead of {stage.accumulate} (the same step, in more parts)"
        return Change(says, {"accumulate": parts})
    if of_parts and of_parts.grpo:
        if of_parts.grpo.group > 2:
            grpo = of_parts.grpo.model_copy(update={"group": max(2, of_parts.grpo.group // 2)})
            return Change(f"grpo.group = {grpo.group}", {"grpo": grpo})
    elif not stage.checkpoint_activations and not (of_parts and of_parts.language == "prefix"):
        says = "checkpoint_activations = true (a third slower)"
        return Change(says, {"checkpoint_activations": True})
    if gpus > 1 and not (stage.shard or recipe.four_bit or stage.optimiser == "adamw_8bit"):
        return Change("shard = true (each GPU keeps its share of the weights)", {"shard": True})
    if isinstance(recipe, WholeRecipe):
        return Change(_smaller_whole(recipe), {}) if recipe.four_bit else lighter(recipe, stage)
    assert of_parts
    if of_parts.language == "full" and stage.optimiser == "adamw" and not stage.shard:
        says = 'optimiser = "adamw_8bit" (6 bytes less for each weight that trains)'
        return Change(says, {"optimiser": "adamw_8bit"})
    if of_parts.questions_per_row > 1:
        return Change(f"questions_per_row = {of_parts.questions_per_row // 2}", {})
    return lighter(recipe, stage)


def lighter(recipe: Programme, stage: Stage) -> Change:
    """What to set where the weights alone take too much."""
    if isinstance(recipe, Recipe) and recipe.language.made:
        return Change("a smaller language.made", {})  # it takes no adapter, and no four bits
    four_bit = "four_bit = true"
    if any(each.shard for each in recipe.stage):  # a recipe that has both is refused
        four_bit += " and leave shard out"
    if isinstance(recipe, WholeRecipe) and not recipe.four_bit:
        says = f"worker.{four_bit} (a quarter of the memory of its linear layers' weights)"
        return Change(says, {})
    trains_all = isinstance(stage, PartsStage) and stage.language == "full"
    wanted = ['language = "lora"'] if trains_all else []
    wanted += [] if recipe.four_bit else [four_bit]
    says = f"{' and '.join(wanted)}, or a smaller base model" if wanted else "a smaller base model"
    return Change(says, {})


def _smaller_whole(recipe: WholeRecipe) -> str:
    size = recipe.worker.processor.get("size")
    if isinstance(size, dict) and isinstance(most := size.get("longest_edge"), int):
        return f"longest_edge = {most // 2} in worker.processor.size (half of an image's tokens)"
    return "in worker.processor a smaller size of images, or take a smaller model"
