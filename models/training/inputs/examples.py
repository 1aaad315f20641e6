"""What a recipe's sources hold; what it learns from is kept apart from what it is scored on."""

import functools
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from models.data.datasets import called, load, one_spelling
from models.data.example import DataError, Example
from models.data.splits import folds, near_duplicates_between, refuse_shared_images
from models.files import write_whole
from models.recipe import MemoryRecipe, started
from models.recipe.programme import Programme
from models.recipe.stage import PartsStage, Source

NEAR_DUPLICATES = "near_duplicates.json"
ASKED = "asked.crc32"  # beside a checkpoint's scores: the checksum of what was asked
FREE_TEXT = 30  # characters; where most answers are longer, hardly any is ever met word for word


def check_data(recipe: Programme, data: Path, run: Path) -> int:
    """Lists near-duplicates of training images among the held-out ones in
    `run/near_duplicates.json`, by their paths from `data`; returns how many those are.

    Raises:
        DataError: an image is on both sides, a case has more images than the recipe takes, or
            free text would be learned by reward.
    """
    held_out = examples_of(recipe.held_out, data, recipe.fold, held_out=True)
    learned = learned_by(recipe, data)
    _refuse_too_many_images(recipe, [*learned, *held_out])
    for stage in recipe.stage:
        if isinstance(stage, PartsStage) and stage.grpo:
            refuse_free_text(examples_to_learn(stage.data, recipe, data))
    refuse_shared_images(learned, held_out)
    alike = near_duplicates_between(learned, held_out)
    named = [(os.path.relpath(a, data), os.path.relpath(b, data), bits) for a, b, bits in alike]
    listed = [{"train": a, "held_out": b, "bits": bits} for a, b, bits in named]
    write_whole(run / NEAR_DUPLICATES, json.dumps(listed, indent=1))
    return len({b for _, b, _ in alike})


def _refuse_too_many_images(recipe: Programme, examples: Sequence[Example]) -> None:
    most = max(examples, key=lambda example: len(example.images), default=None)
    if most and len(most.images) > recipe.max_images:
        raise DataError(
            f"{most.id} has {len(most.images)} images, and recipe {recipe.name} takes "
            f"{recipe.max_images}: set max_images = {len(most.images)} in the recipe, and in the "
            "worker's seat."
        )


def refuse_free_text(examples: Sequence[Example]) -> None:
    """Raises DataError where most references of a set are too long to be met word for word."""
    lengths: dict[str, list[int]] = defaultdict(list)
    for example in examples:
        lengths[set_of(example.id)].append(len(example.answer))
    for name, each in lengths.items():
        if median(each) > FREE_TEXT:
            raise DataError(
                f'method = "grpo" rewards an answer that is the reference, and most of the '
                f"{len(each)} references of {name} are free text of more than {FREE_TEXT} "
                'characters: take short answers, or method = "supervised".'
            )


def learned_by(recipe: Programme | MemoryRecipe, data: Path) -> list[Example]:
    """What a worker of this recipe has trained on, the worker that it starts from included; or what
    it remembers.

    Raises:
        RecipeError, DataError
    """
    if isinstance(recipe, MemoryRecipe):
        return examples_to_learn(recipe.remembers, recipe, data)
    sources = [source for stage in recipe.stage for source in stage.data]
    before = started(recipe)
    learned = learned_by(before, data) if before else []
    return learned + examples_to_learn(sources, recipe, data)


def examples_to_learn(
    sources: Sequence[Source], recipe: Programme | MemoryRecipe, data: Path
) -> list[Example]:
    """What a stage with these sources trains on, or a memory of them remembers. Captions, say, show
    the same images as the questions of the fold that is held out, and another set may show them in
    another size: those, what looks like them, and all else of the set's patients is left out.

    Raises:
        DataError: a source cannot be read, or nothing is left.
    """
    learned = examples_of(sources, data, recipe.fold)
    in_folds = [source for source in recipe.held_out if source.folds]
    if not in_folds:
        return learned
    held_out = examples_of(in_folds, data, recipe.fold, held_out=True)
    shown = {image for example in held_out for image in example.images}
    shown |= {image for image, _, _ in near_duplicates_between(learned, held_out)}
    # Another set may know somebody else by the same number.
    patients = {(set_of(e.id), e.patient) for e in held_out if e.patient is not None}
    left = [
        example
        for example in learned
        if shown.isdisjoint(example.images)
        and (set_of(example.id), example.patient) not in patients
    ]
    if not left:
        raise DataError(f"recipe {recipe.name}: all that it learns from is held out by its folds.")
    return left


def checksum(examples: Sequence[Example]) -> str:
    """Of what is asked of which images: the same ids may hold other questions another time."""
    told = [[e.id, e.question, e.answer, *(image.name for image in e.images)] for e in examples]
    return str(zlib.crc32(json.dumps(told).encode()))


def examples_of(
    sources: Sequence[Source], data: Path, fold: int = 0, held_out: bool = False
) -> list[Example]:
    """What the sources hold; of one in folds, fold number `fold`, or all others to train on.

    An id begins with its dataset's name, and ends with its language where several share it, as
    MEDIQA's encounters do: it is unique among all of them.

    Raises:
        DataError: a source cannot be read, none of them holds a question with an answer, or two
            sets have one name.
    """
    _refuse_namesakes(sources)

    @functools.cache  # stages name the same sets again
    def read(name: str, split: str, language: str) -> list[Example]:
        return one_spelling(load(name, data, split, language))

    found: list[Example] = []
    for source in sources:
        examples: list[Example] = []
        for language in source.languages:
            examples += read(source.set, source.split, language)
        examples = [replace(each, id=f"{called(source.set)}/{each.id}") for each in examples]
        if source.folds:
            parts = folds(examples, source.folds, seed=0)
            one = parts.pop(fold)
            examples = one if held_out else [example for part in parts for example in part]
        found += few(examples, source.few) if source.few else examples
    if sources and not found:
        named = ", ".join(f"{source.set} {source.split}" for source in sources)
        raise DataError(f"No question with an answer in {named}: there is nothing to learn.")
    spoken = defaultdict(set)
    for example in found:
        spoken[example.id].add(example.language)
    return [
        replace(each, id=f"{each.id}-{each.language}") if len(spoken[each.id]) > 1 else each
        for each in found
    ]


def set_of(id: str) -> str:
    """The name of the dataset that an id of `examples_of` begins with."""
    return id.partition("/")[0]


def spelled_as(learned: Sequence[Example], held_out: Sequence[Example]) -> list[Example]:
    """`held_out` with its answers spelled as what is learned of the same set in the same language
    spells them: sets, and languages, write "Axial" and "axial" for themselves."""

    def of(example: Example) -> tuple[str, str]:
        return set_of(example.id), example.language

    taught: dict[tuple[str, str], list[Example]] = defaultdict(list)
    asked: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in learned:
        taught[of(example)].append(example)
    for example in held_out:
        asked[of(example)].append(example)
    spelled = {e.id: e for key, each in asked.items() for e in one_spelling(each, taught[key])}
    return [spelled[example.id] for example in held_out]


def _refuse_namesakes(sources: Sequence[Source]) -> None:
    """What is kept of a run tells their questions apart by the sets' names alone."""
    named: dict[str, str] = {}
    for source in sources:
        if (other := named.setdefault(called(source.set), source.set)) != source.set:
            raise DataError(
                f"{other} and {source.set} are both called {called(source.set)!r}: give one of the "
                "files another name."
            )


def few(examples: Sequence[Example], count: int) -> list[Example]:
    """The first `count` questions about each of the first `count` images."""
    of_image: dict[tuple[Path, ...], list[Example]] = defaultdict(list)
    for example in examples:
        of_image[example.images].append(example)
    return [e for group in list(of_image.values())[:count] for e in group[:count]]
