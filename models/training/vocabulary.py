"""The vocabulary of a language model that is made here: what the training data asks and answers."""

import os
import shutil
from pathlib import Path
from typing import Any

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import AutoTokenizer

from models.parts.words import VOCABULARY, word_tokenizer
from models.recipe import Recipe
from models.training.examples import learned_by


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

    Raises: as `vocabulary_of`.
    """
    folder, scratch = run / VOCABULARY, run / f".{VOCABULARY}-{os.getpid()}"
    if folder.exists():
        return
    vocabulary_of(recipe, data).save_pretrained(scratch)
    try:
        scratch.rename(folder)
    except OSError:  # another process made the same one first
        shutil.rmtree(scratch)
