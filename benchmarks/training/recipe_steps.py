"""What a step of each recipe takes:
python -m benchmarks.training.recipe_steps [RECIPE…] [--out FILE]

The training loop's own steps, on the GPU where there is one, over noise for images and numbers for
questions. Base weights that a recipe has from a hub are random ones of the published shapes here;
those of language models lie in sharded files first ($TMPDIR takes 15 GB for 7 B), and are loaded
from there as a hub's would be. Prints a row for each stage and appends it to FILE: seconds a step,
the most memory that was allocated at once, and what `--dry-run` says of it. What cannot run says
why.
"""

import argparse
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from models.assets import AssetError
from models.files import append_line
from models.parts.language import load_language
from models.parts.vlm import Vlm, assemble
from models.recipe import RECIPES, Recipe, load_programme, of_parts
from models.recipe.stage import Source, Stage
from models.training import parts
from models.training.planning.dry_run import plan
from models.training.planning.published import MODELS, Published

IMAGES, QUESTIONS, SIDE = 32, 16, 384


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("recipe", nargs="*")
    arguments.add_argument("--steps", type=int, default=6, help="The first one is not timed.")
    arguments.add_argument("--out", type=Path, help="JSON lines.")
    options = arguments.parse_args()
    with TemporaryDirectory() as scratch, patch.object(parts, "build_model", built):
        for name in options.recipe or timed():
            for row in rows_of(of_parts(load_programme(name)), Path(scratch), options.steps):
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                if options.out:
                    append_line(options.out, row)


def timed() -> list[str]:
    """The recipes whose steps can be timed without data: not those that do not train, nor whose
    language model is made of the words of their data."""
    read = (load_programme(path) for path in sorted(RECIPES.glob("*.toml")))
    return [each.name for each in read if isinstance(each, Recipe) and each.language.model]


def rows_of(recipe: Recipe, scratch: Path, steps: int) -> Iterator[dict[str, Any]]:
    """One for each of its stages."""
    published = recipe
    asked = draw(scratch / f"asked-{recipe.max_images}", recipe.max_images)
    if known := MODELS.get(recipe.language.model or ""):
        folder = scratch / str(recipe.language.model)
        if not folder.exists():
            write_random(known, folder)
        language = recipe.language.model_copy(update={"model": str(folder)})
        recipe = recipe.model_copy(update={"language": language})
    for number, stage in enumerate(recipe.stage):
        row: dict[str, Any] = {"recipe": recipe.name, "stage": stage.name}
        if recipe.language.model is None:
            yield row | {"not run": "Its language model is made of the words of its data."}
            continue
        try:
            row["planned_gb"] = gb(plan(published)[number].memory)
            row |= measured(recipe, stage, asked, scratch, steps)
        except (AssetError, RuntimeError, ValueError, TypeError, OSError, ImportError) as error:
            row["not run"] = f"{type(error).__name__}: {error}".split("\n")[0]
        yield row


def measured(
    recipe: Recipe, stage: Stage, asked: Path, scratch: Path, steps: int
) -> dict[str, Any]:
    """Some steps of one stage; its parents' adapters are fresh ones here."""
    source = (Source(set=str(asked), languages=("en",)),)
    shown = stage.model_copy(
        update={"data": source, "validation": source, "epochs": steps, "steps": steps}
    )
    folder = scratch / f"{recipe.name}-{stage.name}"
    folder.mkdir()
    on_gpu = torch.cuda.is_available()
    began = time.perf_counter()
    run = parts.PartsRun(recipe, shown, folder, scratch, None)
    ready = time.perf_counter() - began
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds, began = [], time.perf_counter()
    for step, seen in enumerate(run.shown_from(0)):
        run.step(run.rows_of(step), seen, run.tally())
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    found = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "seconds": round(median(seconds[1:]), 3),
        "rows": stage.rows_per_step,
        "tokens": max(len(row.ids) for row in run.rows),
        "peak_gb": gb(torch.cuda.max_memory_allocated()) if on_gpu else None,
        "ready_s": round(ready, 1),
    }
    del run
    gc.collect()
    torch.cuda.empty_cache()
    return found


def built(recipe: Recipe, home: Path, device: torch.device) -> Vlm:
    """As `models.parts.vlm.build_model`; of a tower from a hub only the shapes."""
    torch.manual_seed(recipe.seed)
    part = recipe.language
    language, tokenizer = load_language(str(part.model), torch.bfloat16, device, part.four_bit)
    return assemble(recipe, language, tokenizer, recipe.tower.weights != "timm").to(device)


def write_random(known: Published, folder: Path) -> None:
    """A folder in Hugging Face layout, in shards."""
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        language = AutoModelForCausalLM.from_config(known.config, dtype=torch.bfloat16)
    language.save_pretrained(folder, max_shard_size="4GB")
    special = [*filter(None, [known.bos]), *known.special, "<end>"]
    letters = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: number for number, token in enumerate(letters)}
    raw = Tokenizer(tokenizer_models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=known.bos,
        eos_token="<end>",
        additional_special_tokens=list(known.special),
    ).save_pretrained(folder)


def draw(folder: Path, images: int) -> Path:
    """A set of one's own, of cases of so many images."""
    path = folder / "asked.jsonl"
    if path.exists():
        return path
    folder.mkdir()
    random = np.random.default_rng(0)
    for case in range(IMAGES):
        names = [f"{case}-{place}.png" for place in range(images)]
        for name in names:
            pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
        for question in range(QUESTIONS):
            # Some sixteen tokens with the prompt, as SLAKE's have in a larger vocabulary.
            asked, answer = (str(number) for number in random.integers(10, 10_000, 2))
            row = {"id": f"{case}-{question}", "images": names, "question": f"{asked}?"}
            append_line(path, row | {"answer": answer, "language": "en"})
    return path


def gb(size: float) -> float:
    return round(size / 1e9, 2)


if __name__ == "__main__":
    main()
