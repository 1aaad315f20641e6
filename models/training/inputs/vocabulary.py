"""The vocabulary of a language model that is made here: what the training data asks and answers."""

import os
import shutil
from pathlib import Path
from typing import Any

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import AutoTokenizer

from models.data.example import DataError
from models.parts.words import VOCABULARY, answer_ids, word_tokenizer
from models.recipe import Recipe
from models.training.inputs.examples import examples_to_learn, learned_by


def vocabulary_of(recipe: Recipe, data: Path | None) -> Any:
    """The tokenizer of the worker that the recipe starts from, or a new one; without `data` it
    knows no word.

    Raises:
        DataError, RecipeError: the training data cannot be read.
    """
    if start := recipe.start_folder:
        return AutoTokenizer.from_pretrained(start / VOCABULARY)
    # However often a recipe names a set, and in however many stages.
    learned = {example.id: example for example in learned_by(recipe, data)} if data else {}
    asked = (recipe.prompt.format(question=example.question) for example in learned.values())
    return word_tokenizer(asked, (example.answer for example in learned.values()))


def keep_vocabulary(recipe: Recipe, data: Path, run: Path) -> None:
    """Puts it into the run's folder, unless it is there already.

    Raises:
        DataError: an answer to learn is none of its tokens.
        DataError, RecipeError: as `vocabulary_of`.
    """
    folder, scratch = run / VOCABULARY, run / f".{VOCABULARY}-{os.getpid()}"
    if not folder.exists():
        vocabulary_of(recipe, data).save_pretrained(scratch)
        try:
            scratch.rename(folder)
        except OSError:  # another process made the same one first
            shutil.rmtree(scratch)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sources = [source for stage in recipe.stage for source in stage.data]
    answers = {example.answer for example in examples_to_learn(sources, recipe, data)}
    unknown = sorted(
        each for each in answers if answer_ids(tokenizer, each) == [tokenizer.unk_token_id]
    )
    if unknown:
        raise DataError(
            f"{folder} has no token for {len(unknown)} of {len(answers)} answers to learn, such as "
            f"{unknown[0][:40]!r}: it is of other training data. Leave those questions out, or let "
            "a vocabulary be made of them: without start, and under another name."
        )
