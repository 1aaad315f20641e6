"""A trained checkpoint → `models/zoo/NAME` (what is kept) → a merged folder (what is served).

    models/zoo/NAME/    what was trained (models.training.learning.tuning), recipe.toml, base.json,
                        vocabulary/ of a made language model, README.md, scores.json: what was
                        measured of exactly these weights
    $CONSILIUM_CACHE/served/HASH/  config.json, model.safetensors, tokenizer, chat template

The zoo holds only what was trained, in bfloat16. The served folder can be made from it at any time;
vLLM and the parity check read the same one. Of a worker that remembers both folders hold the files
of models.serving.memory, and the served one its tower.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from peft import PeftModel
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.core_model_loading import revert_weight_conversion

from models import assets, connectors
from models.exported import ADAPTER, MEMORY, ZOO, adapter_base, for_everyone, served_name
from models.files import write_whole
from models.parts.vision import Tower, TowerConfig
from models.parts.vlm import Vlm, build_model
from models.parts.whole import Whole, load_whole
from models.parts.words import VOCABULARY
from models.recipe import (
    MemoryRecipe,
    Recipe,
    WholeRecipe,
    load_any_recipe,
    load_programme,
    load_recipe,
    recipe_file,
)
from models.recipe.programme import RecipeError
from models.serving.card import memory_card, model_card, whole_card
from models.serving.memory import CASES, learn
from models.serving.merge import MergeError, merge_whole
from models.serving.served_config import ARCHITECTURE, ServedConfig
from models.tensors import load_tensors, save_whole, told_where_broken
from models.training.learning.tuning import SOFT_PROMPTS, load_kept, load_trained
from models.training.record.checkpoints import recipe_of


class ExportError(Exception):
    """A checkpoint that cannot be served; one sentence that says why and how to mend it."""


def export(
    file: Path, checkpoint: Path, out: Path, recipe: Recipe | WholeRecipe | None = None
) -> Path:
    """Writes what was trained to `out` (a folder of the zoo), with its model card. `recipe` is what
    was trained, where that is not all that `file` says: a smoke run, a fold.

    Raises:
        ExportError: the checkpoint is not the end of a run of this recipe, or its worker cannot be
            served; or `out` holds something else.
        RecipeError: the recipe cannot be read.
        AssetError: the language model's settings cannot be had.
    """
    recipe = recipe or load_programme(file)
    if isinstance(recipe, WholeRecipe):
        return _export_whole(file, checkpoint, out, recipe)
    refuse_unserved(recipe)
    _check_checkpoint(recipe, checkpoint)
    _make_place(out)
    before = served_name(out)
    for name in ("connector", "tower", "language"):
        _keep(checkpoint, out, f"{name}.safetensors")
    shutil.rmtree(out / VOCABULARY, ignore_errors=True)
    if recipe.language.made:
        shutil.copytree(checkpoint.parents[1] / VOCABULARY, out / VOCABULARY)
    for name, base in (("tower", recipe.tower.weights), ("adapter", recipe.language.model)):
        shutil.rmtree(out / name, ignore_errors=True)
        if (checkpoint / name).is_dir():
            (out / name).mkdir()
            _keep_adapter(checkpoint / name, out / name, base)
    _keep_recipe(file, recipe, out, before)
    card = model_card(recipe, checkpoint.parent.parent, out / "scores.json")
    write_whole(out / "README.md", card)
    for_everyone(out)
    return out


def _export_whole(file: Path, checkpoint: Path, out: Path, recipe: WholeRecipe) -> Path:
    _check_checkpoint(recipe, checkpoint)
    _make_place(out)
    before = served_name(out)
    _keep_adapter(checkpoint, out, recipe.worker.model)
    _keep_recipe(file, recipe, out, before)
    write_whole(
        out / "README.md", whole_card(recipe, checkpoint.parent.parent, out / "scores.json")
    )
    for_everyone(out)
    return out


def remember(reference: str, data: Path, out: Path) -> Path:
    """Writes what a worker that remembers keeps to `out` (a folder of the zoo), with its card;
    `reference` names its recipe as `models.recipe.recipe_file` takes it.

    Raises:
        RecipeError: the recipe cannot be read, or is of a worker that is trained.
        DataError: a source cannot be read, or holds what cannot be remembered.
        ExportError: `out` holds something else.
        AssetError: the tower's weights cannot be had.
    """
    recipe = load_any_recipe(reference)
    if not isinstance(recipe, MemoryRecipe):
        raise RecipeError(
            f"recipe {recipe.name} remembers nothing: consilium train {reference} trains it."
        )
    _make_place(out)
    tensors, cases = learn(recipe, data)
    before = served_name(out)
    save_whole(tensors, out / MEMORY)
    write_whole(out / CASES, json.dumps(cases, ensure_ascii=False, separators=(",", ":")) + "\n")
    _keep_recipe(recipe_file(reference), recipe, out, before)
    write_whole(
        out / "README.md", memory_card(recipe, cases, len(tensors["looks"]), out / "scores.json")
    )
    for_everyone(out)
    return out


def served_folder(zoo: Path, report: Callable[[str], None] = lambda line: None) -> Path:
    """The merged bfloat16 folder that vLLM loads, made from a zoo folder unless the cache has it:
    an exported worker's, or one that is a peft adapter of a language model.

    Raises:
        ExportError: `zoo` is not a folder of the zoo.
        AssetError: a base weight that cannot be had or is not the one trained on.
    """
    recipe = zoo / "recipe.toml"
    if (zoo / ADAPTER).exists():
        merge = _serve_whole if recipe.exists() else _serve_adapter
        return _merged_once(zoo, merge, report)
    if not recipe.exists():
        known = ", ".join(sorted(path.parent.name for path in ZOO.glob("*/recipe.toml")))
        raise ExportError(f"{zoo} is no exported worker. The zoo holds: {known or 'nothing yet'}.")
    return _merged_once(zoo, _serve_memory if (zoo / MEMORY).exists() else _serve, report)


def _merged_once(
    zoo: Path, merge: Callable[[Path, Path], None], report: Callable[[str], None]
) -> Path:
    folder = assets.cache_dir() / "served" / served_name(zoo)
    if not folder.exists():
        report(f"merging {zoo.name} for serving")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".merging-") as scratch:
            made = Path(scratch) / "model"
            merge(zoo, made)
            for_everyone(made)
            try:
                made.rename(folder)
            except OSError:  # another process merged the same one first
                if not folder.exists():
                    raise
    return folder


def load_served(folder: Path) -> Vlm | Whole:
    """The served folder under transformers, bit for bit the weights that vLLM loads."""
    kind = json.loads((folder / "config.json").read_text("utf-8"))["model_type"]
    return load_parts(folder) if kind == ServedConfig.model_type else load_whole(folder)


def load_parts(folder: Path) -> Vlm:
    """That of a worker that is made of parts."""
    config = ServedConfig.from_pretrained(folder)
    mend = f"delete {folder}, it is made again"
    weights = load_tensors(folder / "model.safetensors", mend)
    part = lambda name: {  # noqa: E731
        key.removeprefix(f"{name}."): value
        for key, value in weights.items()
        if key.startswith(f"{name}.")
    }
    tower = Tower(TowerConfig(**config.tower), load_weights=False)
    tower.load_state_dict(part("tower"))
    text = config.text_config
    connector = connectors.build(config.connector, config.vision_dim, text.hidden_size)
    connector.to(torch.bfloat16).load_state_dict(part("connector"))
    language, found = MODEL_FOR_CAUSAL_LM_MAPPING[type(text)].from_pretrained(
        None,
        config=text,
        state_dict=part("language_model"),
        dtype=torch.bfloat16,
        output_loading_info=True,
    )
    if missing := sorted(found["missing_keys"]):
        raise ExportError(f"{folder} lacks {missing[:3]}: delete it, it is made again.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = config.bos or None
    return Vlm(tower, connector, language, tokenizer, bool(config.bos))


def _serve_whole(zoo: Path, folder: Path) -> None:
    recipe = load_any_recipe(zoo / "recipe.toml")
    assert isinstance(recipe, WholeRecipe)
    _check_bases(zoo, recipe, "train")
    try:
        merge_whole(recipe, zoo, folder)
    except MergeError as error:
        raise ExportError(str(error)) from error


def _serve_adapter(zoo: Path, folder: Path) -> None:
    base = assets.resolve(adapter_base(str(zoo)))
    # Merged in float32 and rounded once.
    language = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with told_where_broken(zoo / "adapter_model.safetensors", "copy it anew"):
        merged = PeftModel.from_pretrained(language, zoo).merge_and_unload()
    merged.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def _serve_memory(zoo: Path, folder: Path) -> None:
    recipe = load_any_recipe(zoo / "recipe.toml")
    assert isinstance(recipe, MemoryRecipe)
    _check_bases(zoo, recipe, "remember")
    if not (zoo / CASES).is_file():
        raise ExportError(f"{zoo} lacks {CASES}: make it anew with consilium remember.")
    tower = Tower(TowerConfig(**recipe.tower.model_dump()))
    folder.mkdir()
    for name in (MEMORY, CASES):
        shutil.copyfile(zoo / name, folder / name)
    save_whole(tower.state_dict(), folder / "model.safetensors")
    config = {"model_type": "consilium_memory", "tower": recipe.tower.model_dump()}
    write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")


def _check_bases(zoo: Path, recipe: Recipe | WholeRecipe | MemoryRecipe, verb: str) -> None:
    if _bases(recipe) != json.loads((zoo / "base.json").read_text()):
        raise ExportError(
            f"{zoo / 'base.json'}: the base weights at hand are not those this worker was made "
            f"with. Make it anew: consilium {verb} {recipe.name}."
        )


def _serve(zoo: Path, folder: Path) -> None:
    recipe = load_recipe(zoo / "recipe.toml")
    _check_bases(zoo, recipe, "train")
    # Merged in float32 and rounded once.
    model = build_model(recipe, torch.float32, home=zoo)
    load_trained(model, zoo, merge=True)
    tower, connector, tokenizer = model.tower, model.connector, model.tokenizer
    language = model.language.to(torch.bfloat16)
    said = {
        k: v for k, v in language.state_dict().items() if k not in language.all_tied_weights_keys
    }
    parts = {
        "tower": tower.state_dict(),
        "connector": connector.to(torch.bfloat16).state_dict(),
        # In its publisher's names, which vLLM reads: transformers joins a layer's experts.
        "language_model": revert_weight_conversion(language, said),
    }
    weights = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.items()}
    folder.mkdir()
    save_whole(weights, folder / "model.safetensors")
    config = ServedConfig(
        tower=recipe.tower.model_dump(),
        connector=recipe.connector,
        text_config=language.config.to_dict(),
        patches_per_side=tower.side,
        vision_dim=tower.dim,
        image_token_id=tokenizer.convert_tokens_to_ids(recipe.language.image_token),
        bos=tokenizer.bos_token if recipe.language.bos else "",
        architectures=[ARCHITECTURE],
        dtype="bfloat16",
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    config.save_pretrained(folder)
    GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)
    save_tokenizer(tokenizer, recipe.language.image_token, config.bos, folder)


def save_tokenizer(tokenizer: Any, image: str, bos: str, folder: Path) -> None:
    """With a chat template, and so that no text is a control token: `split_special_tokens` takes
    what is written like one as text. Those two that the template itself writes are made ordinary
    tokens, which that leaves alone.
    """
    tokenizer.chat_template = chat_template(image, bos)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    for token in content["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in (image, bos)
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text("utf-8"))
    # Named as bos or unk, or listed, they would be made special again.
    kept = {
        key: [each for each in value if each not in (image, bos)] if type(value) is list else value
        for key, value in content.items()
        if value not in (image, bos)
    }
    # So they would by a class of the model's own, which knows their names.
    kept |= {"split_special_tokens": True, "tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(kept, indent=1), "utf-8")


def chat_template(image: str, bos: str) -> str:
    """No roles, no system text: [bos], one token per image, the text. See models.parts.vlm. Text
    that holds one of these tokens gets a blank into it, and is no such token any more.
    """
    harmless = "".join(
        f" | replace({json.dumps(token)}, {json.dumps(f'{token[0]} {token[1:]}')})"
        for token in (image, bos)
        if token
    )
    return (
        f"{bos}{{%- for message in messages -%}}{{%- for part in message['content'] -%}}"
        f"{{%- if part['type'] == 'image' -%}}{image}{{%- endif -%}}"
        "{%- endfor -%}{%- for part in message['content'] -%}"
        f"{{%- if part['type'] == 'text' -%}}{{{{ part['text']{harmless} }}}}{{%- endif -%}}"
        "{%- endfor -%}{%- endfor -%}"
    )


def _make_place(out: Path) -> None:
    """A folder of the worker's own: some of it is replaced, and all of it may be read by all."""
    if out.exists() and not out.is_dir():
        raise ExportError(f"--out {out} is no folder: give one of the worker's own.")
    if out.exists() and any(out.iterdir()) and not (out / "recipe.toml").exists():
        raise ExportError(
            f"--out {out} holds something that is no exported worker: give a folder of its own."
        )
    out.mkdir(parents=True, exist_ok=True)


def _check_checkpoint(recipe: Recipe | WholeRecipe, checkpoint: Path) -> None:
    """Else a worker would be kept beside a recipe that does not make it."""
    state = checkpoint / "state.json"
    if not state.exists() or not json.loads(state.read_text())["finished"]:
        raise ExportError(
            f"{checkpoint} is not a stage's last checkpoint: let `consilium train {recipe.name}` "
            "run to its end first."
        )
    if checkpoint.parent.name != recipe.stage[-1].name:
        raise ExportError(
            f"{checkpoint} is of stage {checkpoint.parent.name!r}, and the recipe goes on to "
            f"{recipe.stage[-1].name!r}. Give that stage's last checkpoint, or a recipe that ends "
            "sooner."
        )
    if isinstance(recipe, Recipe) and not (checkpoint / "connector.safetensors").exists():
        raise ExportError(
            f"{checkpoint} lacks connector.safetensors: delete that stage's folder and let "
            f"`consilium train {recipe.name}` run again."
        )
    run = checkpoint.parent.parent
    if recipe_of(run) != recipe:
        raise ExportError(
            f"{checkpoint} was not trained by this recipe; {run / 'recipe.json'} says by which. "
            "Give that one."
        )


def refuse_unserved(recipe: Recipe) -> None:
    """Whether vLLM could serve what the recipe makes is known before it trains.

    Raises:
        ExportError: it could not.
        AssetError: the language model's settings cannot be had.
    """
    _refuse_unserved_connector(recipe)
    _refuse_geometry(recipe)
    _refuse_soft_prompts(recipe)
    _refuse_bidirectional_images(recipe)
    _refuse_unserved_language(recipe)


def _refuse_unserved_connector(recipe: Recipe) -> None:
    name = recipe.connector.get("name")
    try:
        reason = connectors.why_not_served(name)
    except ValueError as error:
        raise ExportError(f"recipe {recipe.name}: connector: {error}.") from error
    if reason:
        raise ExportError(
            f"connector {name!r}: {reason}, for which vLLM has no place: it trains and answers "
            "under transformers only. Take a connector that docs/connectors.md calls served."
        )


def _refuse_geometry(recipe: Recipe) -> None:
    """A server is sent pictures alone: the gateway promises that no header goes further."""
    if recipe.connector.get("places") == "geometry":
        raise ExportError(
            f"recipe {recipe.name}: connector.places: a server is told nothing of headers and "
            "cameras, by which this worker learned where images lie: it trains and answers under "
            'transformers only. Train with places = "order".'
        )


def _refuse_unserved_language(recipe: Recipe) -> None:
    if recipe.language.model is None:
        return
    settings = AutoConfig.from_pretrained(assets.resolve(recipe.language.model))
    with torch.device("meta"):
        layers = AutoModelForCausalLM.from_config(settings).base_model_prefix
    if layers != "model":  # models.serving.vllm_model calls them so
        raise ExportError(
            f"recipe {recipe.name}: language.model: a {settings.model_type} keeps its layers as "
            f"{layers!r}, where we do not look for them under vLLM: it trains and answers under "
            "transformers only. Take a Gemma, Llama, Mistral or Qwen."
        )


def _refuse_soft_prompts(recipe: Recipe) -> None:
    for stage in recipe.stage:
        if stage.language in SOFT_PROMPTS:
            raise ExportError(
                f"stage {stage.name} trains the language model by {stage.language!r}: vLLM has no "
                "place for learned keys or embeddings before a prompt. Train that stage with "
                '"lora" or "full", which are merged into the weights.'
            )


def _refuse_bidirectional_images(recipe: Recipe) -> None:
    if recipe.language.image_attention != "causal":
        raise ExportError(
            f"recipe {recipe.name}: language.image_attention: vLLM lets no token see later "
            'ones. Train with "causal".'
        )


def _bases(recipe: Recipe | WholeRecipe | MemoryRecipe) -> dict[str, dict[str, Any]]:
    """Which base weights a worker stands on: reference and sha256, of shards each one's."""
    found: dict[str, dict[str, Any]] = {}
    named = [("tower", "weights"), ("language", "model")]
    if isinstance(recipe, WholeRecipe):
        named = [("worker", "model")]
    for (part, key), reference in zip(named, recipe.bases, strict=False):
        found[part] = {key: reference}
        if packaged := assets.PACKAGED.get(reference.removeprefix("base:")):
            found[part] |= {"sha256": packaged.sha256, "licence": packaged.licence}
        elif reference != "timm":
            files = assets.weight_files(assets.resolve(reference))
            sums = {file.name: assets.sha256_of(file) for file in files}
            found[part]["sha256"] = sums if len(files) > 1 else sums[files[0].name]
    return found


def _keep(source: Path, target: Path, name: str) -> None:
    """Copies weights, halved to bfloat16; where the source has none, the target keeps none."""
    if not (source / name).exists():
        (target / name).unlink(missing_ok=True)
        return
    halved: dict[str, Tensor] = {
        key: value.to(torch.bfloat16) if value.is_floating_point() else value
        for key, value in load_kept(source, name).items()
    }
    save_whole(halved, target / name)


def _keep_adapter(source: Path, target: Path, base: str | None) -> None:
    _keep(source, target, "adapter_model.safetensors")
    settings = json.loads((source / ADAPTER).read_text())
    settings["base_model_name_or_path"] = base  # not a path of this machine
    write_whole(target / ADAPTER, json.dumps(settings, indent=2) + "\n")


def _keep_recipe(
    file: Path, recipe: Recipe | WholeRecipe | MemoryRecipe, out: Path, before: str
) -> None:
    """With the bases' hashes; scores go that were those of another worker, called `before`."""
    write_whole(out / "recipe.toml", file.read_bytes())
    write_whole(out / "base.json", json.dumps(_bases(recipe), indent=2) + "\n")
    if served_name(out) != before:
        (out / "scores.json").unlink(missing_ok=True)
