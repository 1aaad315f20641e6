"""The training loop: `consilium train RECIPE` runs a recipe's stages, and resumes where it stopped.

    runs/RECIPE/recipe.json     the recipe with every default: a run resumes only under the same
    runs/RECIPE/STAGE/step-N/   connector.safetensors, adapter/, optimiser.pt, state.json (last)
    runs/RECIPE/STAGE/log.jsonl one line per report: both losses, of training and of validation

Each stage starts from everything frozen, unfreezes what it declares, and proves it after the first
step. The base weights stay in bfloat16; what trains is kept in float32 and computed in bfloat16.
"""

import copy
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import models.cpu_torch  # noqa: F401  before peft, which imports torchvision

# isort: split
from peft import LoraConfig, PeftModel, get_peft_model

from models import connectors
from models.connectors import moe
from models.data.datasets import load, one_spelling
from models.data.example import Example
from models.data.splits import refuse_shared_images
from models.features import cached_features
from models.language import load_language
from models.losses import Reconstructor, answer_logits
from models.packing import Row, collate, pack
from models.stages import Lora, Recipe, RecipeError, Source, Stage
from models.vision import Tower, TowerConfig
from models.vlm import Vlm

REPORT_EVERY = 20  # steps
CHECKPOINTS_PER_STAGE = 2  # kept, the newest


class TrainingError(Exception):
    """Training cannot go on; one sentence that says why and how to mend it."""


def train(recipe: Recipe, data: Path, runs: Path) -> Path:
    """Runs every stage of `recipe` that is not finished; returns the last stage's checkpoint.

    `data` holds the datasets' folders (`slake/`, …), `runs` the run folders.

    Raises:
        TrainingError: a run of another recipe is in the way, a loss is not finite, or the wrong
            parts moved.
        DataError, AssetError: what the recipe names cannot be read.
    """
    run = _claim(runs / recipe.name, recipe)
    model = build_model(recipe)
    fresh = copy.deepcopy(model.connector.state_dict())
    features = None
    done: dict[str, Path] = {}
    for stage in recipe.stage:
        state = Stop.newest(run / stage.name)
        if state is None or not state.finished:
            if features is None:
                held_out = examples_of(recipe.validation, data)
                learned = [e for each in recipe.stage for e in examples_of(each.data, data)]
                refuse_shared_images(learned, held_out)
                images = (image for e in learned + held_out for image in e.images)
                features = cached_features(model.tower, images)
            # An earlier stage has trained this connector: only a parent hands its own on.
            model.connector.load_state_dict(fresh)
            state = StageRun(recipe, stage, run, model, data, features, done).run()
        done[stage.name] = state.folder
    return done[recipe.stage[-1].name]


def build_model(recipe: Recipe) -> Vlm:
    """The recipe's base model, its connector freshly initialised from the recipe's seed.

    Raises:
        RecipeError: a connector, a setting of it, or a token that does not exist.
        AssetError: base weights that cannot be had.
    """
    torch.manual_seed(recipe.seed)
    tower = Tower(TowerConfig(**recipe.tower.model_dump()))
    language, tokenizer = load_language(recipe.language.model, torch.bfloat16)
    _check_tokens(recipe, tokenizer)
    text_dim = language.get_input_embeddings().weight.shape[1]
    try:
        connector = connectors.build(recipe.connector, tower.dim, text_dim)
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name}: connector: {error}") from error
    return Vlm(tower, connector, language, tokenizer, recipe.language.bos)


def examples_of(sources: Sequence[Source], data: Path) -> list[Example]:
    found: list[Example] = []
    for source in sources:
        for language in source.languages:
            found += one_spelling(load(source.set, data, source.split, language))
    # A few of SLAKE's questions have no answer: nothing can be learned from those.
    return [example for example in found if example.answer]


def load_trained(model: Vlm, checkpoint: Path, trainable: bool = False) -> None:
    """Puts a checkpoint's connector and adapter into `model`, in place."""
    model.connector.load_state_dict(load_file(checkpoint / "connector.safetensors"))
    if (checkpoint / "adapter").is_dir():
        model.language = PeftModel.from_pretrained(
            model.language, checkpoint / "adapter", is_trainable=trainable
        )


@dataclass(frozen=True)
class Stop:
    """A saved step of one stage."""

    folder: Path
    step: int
    finished: bool

    @classmethod
    def newest(cls, stage_folder: Path) -> "Stop | None":
        # state.json is written last, so a folder without one was cut off and does not count.
        stops = [
            cls(path.parent, state["step"], state["finished"])
            for path in stage_folder.glob("step-*/state.json")
            for state in [json.loads(path.read_text())]
        ]
        return max(stops, key=lambda stop: stop.step, default=None)


@dataclass
class Tally:
    """Sums over some steps, for the next report."""

    answer_loss: float = 0.0
    tokens: int = 0
    reconstruction_loss: float = 0.0
    rows: int = 0
    right: int = 0
    questions: int = 0
    load: dict[str, Tensor] = field(default_factory=dict)  # of each expert, where there are any
    since: float = field(default_factory=time.monotonic)

    def shares(self) -> dict[str, list[float]]:
        """Each expert's share of the patches, by modality."""
        return {
            modality: [round(share, 3) for share in (load / load.sum()).tolist()]
            for modality, load in sorted(self.load.items())
        }

    def report(self) -> dict[str, float]:
        return {
            "answer_loss": round(self.answer_loss / self.tokens, 4),
            "reconstruction_loss": round(self.reconstruction_loss / self.rows, 4),
            "exact_match": round(self.right / self.questions, 4),
            "questions_per_s": round(self.questions / (time.monotonic() - self.since), 1),
        }


class StageRun:
    """One stage of one recipe, from its parent (or its own last stop) to its end."""

    def __init__(
        self,
        recipe: Recipe,
        stage: Stage,
        run: Path,
        model: Vlm,
        data: Path,
        features: dict[Path, Tensor],
        done: dict[str, Path],
    ):
        self.recipe, self.stage, self.model, self.features = recipe, stage, model, features
        self.folder = run / stage.name
        self.folder.mkdir(exist_ok=True)
        self.rows = self.packed(examples_of(stage.data, data))
        self.validation = self.packed(examples_of(recipe.validation, data))
        self.steps_per_epoch = math.ceil(len(self.rows) / stage.rows_per_step)
        self.steps = self.steps_per_epoch * stage.epochs
        self.start = Stop.newest(self.folder)
        torch.manual_seed(recipe.seed + 1)
        self.prepare(done.get(stage.parent) if stage.parent else None)

    def packed(self, examples: list[Example]) -> list[Row]:
        model = self.model
        return pack(
            examples,
            model.text_ids,
            self.recipe.prompt,
            model.tokenizer.eos_token_id,
            model.bos,
            model.image_tokens,
        )

    def prepare(self, parent: Path | None) -> None:
        """Loads weights, freezes everything, unfreezes what the stage declares."""
        stage, model = self.stage, self.model
        if isinstance(model.language, PeftModel):
            model.language = model.language.unload()
        model.requires_grad_(False)
        if origin := self.start.folder if self.start else parent:
            load_trained(model, origin, trainable=stage.language == "lora")
        if stage.lora:
            self.prepare_lora(stage.lora)
        model.connector.requires_grad_(stage.connector == "full")
        text_dim = model.text_embeddings(torch.zeros(1, dtype=torch.long)).shape[-1]
        self.reconstructor = Reconstructor(text_dim, model.tower.dim)
        connector = [p for p in model.connector.parameters() if p.requires_grad]
        language = [p for p in model.language.parameters() if p.requires_grad]
        self.trained = [*connector, *language, *self.reconstructor.parameters()]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": connector, "lr": stage.connector_lr},
                {"params": language, "lr": stage.language_lr},
                {"params": list(self.reconstructor.parameters()), "lr": stage.connector_lr},
            ],
            weight_decay=0.01,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self.rate)
        if self.start:
            saved = torch.load(self.start.folder / "optimiser.pt", weights_only=True)
            self.optimiser.load_state_dict(saved["optimiser"])
            self.schedule.load_state_dict(saved["schedule"])
            self.reconstructor.load_state_dict(saved["reconstructor"])
            torch.set_rng_state(saved["rng"])

    def prepare_lora(self, lora: Lora) -> None:
        """A fresh adapter, unless a parent or the last stop has handed one on."""
        if not isinstance(self.model.language, PeftModel):
            settings = LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules="all-linear",
            )
            self.model.language = get_peft_model(self.model.language, settings)
            return
        settings = self.model.language.peft_config["default"]
        handed_on = Lora(rank=settings.r, alpha=settings.lora_alpha, dropout=settings.lora_dropout)
        if handed_on != lora:
            raise TrainingError(
                f"stage {self.stage.name}: its parent's adapter has {handed_on!r}, the recipe says "
                f"{lora!r}. Give both stages the same [stage.lora]."
            )

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a twentieth."""
        warm = min(1.0, (step + 1) / self.stage.warmup_steps)
        return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps))))

    def run(self) -> Stop:
        """Trains from the last stop to the end, saving and validating after every epoch."""
        first = self.start.step if self.start else 0
        print(
            f"{self.recipe.name}/{self.stage.name}: {sum(len(r.questions) for r in self.rows)} "
            f"questions in {len(self.rows)} rows, {self.steps} steps, from step {first}; "
            f"{sum(p.numel() for p in self.trained):,} parameters train"
        )
        self.forget_after(first)
        stop, tally, began = self.start, Tally(), time.monotonic()
        for step in range(first, self.steps):
            proof = Proof(self.model) if step == 0 else None
            self.step(self.rows_of(step), tally)
            if proof:
                proof.check(self.stage)
            if (step + 1) % REPORT_EVERY == 0:
                left = (time.monotonic() - began) / (step + 1 - first) * (self.steps - step - 1)
                self.log(step + 1, "train", tally.report(), f"{left / 60:.0f} min left")
                tally = Tally()
            if (step + 1) % self.steps_per_epoch == 0:
                checked = self.validate()
                self.log(step + 1, "validation", checked.report())
                if shares := checked.shares():
                    self.log_experts(step + 1, shares)
                stop = self.save(step + 1)
                tally = Tally()
        assert stop is not None  # there is at least one step, and the last one saves
        return stop

    def rows_of(self, step: int) -> list[Row]:
        """The step's rows: a function of seed and step alone, so a resumed run sees the same."""
        epoch, place = divmod(step, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(self.recipe.seed * 1000 + epoch)
        order = torch.randperm(len(self.rows), generator=generator).tolist()
        # Rows of like length share a step, so that little of it is padding.
        size = self.stage.rows_per_step
        pools = [order[i : i + 8 * size] for i in range(0, len(order), 8 * size)]
        by_length = [i for pool in pools for i in sorted(pool, key=lambda i: len(self.rows[i].ids))]
        steps = [by_length[i : i + size] for i in range(0, len(order), size)]
        shuffled = torch.randperm(len(steps), generator=generator).tolist()
        return [self.rows[i] for i in steps[shuffled[place]]]

    def step(self, rows: list[Row], tally: Tally) -> None:
        self.model.train()
        loss = self.loss(rows, tally)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"{self.folder}: the loss is {loss.item()}. Lower connector_lr or language_lr in "
                "the recipe, and start this stage anew (delete its folder)."
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad(set_to_none=True)
        for mixture in self.mixtures():
            mixture.balance()

    def mixtures(self) -> list[moe.Connector]:
        return [m for m in self.model.connector.modules() if isinstance(m, moe.Connector)]

    def loss(self, rows: list[Row], tally: Tally) -> Tensor:
        batch = collate(rows, self.model.tokenizer.pad_token_id)
        features = torch.stack([self.features[i] for row in rows for i in row.images])
        with torch.autocast("cpu", torch.bfloat16):
            logits, labels, image = answer_logits(self.model, batch, features)
            rebuilt = self.reconstructor(image, self.model.positions, features)
        # In bfloat16 as they are: 262,144 words a token are too many to copy. Only the mean is not.
        answer = functional.cross_entropy(logits, labels, reduction="none").float().mean()
        tally.answer_loss += answer.item() * len(labels)
        tally.tokens += len(labels)
        tally.reconstruction_loss += rebuilt.item() * len(rows)
        tally.rows += len(rows)
        tally.questions += sum(len(row.questions) for row in rows)
        modalities = [row.questions[0].modality or "unknown" for row in rows for _ in row.images]
        for mixture in self.mixtures():
            for modality, patches in zip(modalities, mixture.load, strict=True):
                tally.load[modality] = tally.load.get(modality, 0) + patches
        tally.right += all_right(logits, labels, self.model.tokenizer.eos_token_id)
        return answer + self.stage.reconstruction * rebuilt

    @torch.no_grad()
    def validate(self) -> Tally:
        """Both losses and exact match on the recipe's validation data.

        Greedy decoding gives exactly the reference where, read with the reference before it,
        every token of it is the likeliest; so one pass scores it without generating.
        """
        self.model.eval()
        tally = Tally()
        for start in range(0, len(self.validation), 8):
            self.loss(self.validation[start : start + 8], tally)
        return tally

    def save(self, step: int) -> Stop:
        folder = self.folder / f"step-{step}"
        scratch = self.folder / f".step-{step}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        save_file(self.model.connector.state_dict(), scratch / "connector.safetensors")
        if isinstance(self.model.language, PeftModel):
            self.model.language.save_pretrained(scratch / "adapter")
        torch.save(
            {
                "optimiser": self.optimiser.state_dict(),
                "schedule": self.schedule.state_dict(),
                "reconstructor": self.reconstructor.state_dict(),
                "rng": torch.get_rng_state(),
            },
            scratch / "optimiser.pt",
        )
        state = {"step": step, "finished": step == self.steps}
        (scratch / "state.json").write_text(json.dumps(state))
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(scratch, folder)
        older = sorted(self.folder.glob("step-*"), key=lambda path: int(path.name[5:]))
        for path in older[:-CHECKPOINTS_PER_STAGE]:
            shutil.rmtree(path)
        return Stop(folder, step, step == self.steps)

    def forget_after(self, step: int) -> None:
        """Drops what was logged of steps that the last stop does not hold: they are run again."""
        log = self.folder / "log.jsonl"
        if log.exists():
            lines = log.read_text().splitlines(keepends=True)
            log.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))

    def log(self, step: int, part: str, figures: dict[str, float], note: str = "") -> None:
        with (self.folder / "log.jsonl").open("a") as stream:
            stream.write(json.dumps({"step": step, "part": part, **figures}) + "\n")
        shown = "  ".join(f"{name} {value:g}" for name, value in figures.items())
        print(f"step {step}/{self.steps}  {part:10}  {shown}  {note}", flush=True)

    def log_experts(self, step: int, shares: dict[str, list[float]]) -> None:
        with (self.folder / "log.jsonl").open("a") as stream:
            stream.write(json.dumps({"step": step, "part": "experts", "load": shares}) + "\n")
        for modality, share in shares.items():
            print(f"step {step}/{self.steps}  experts of {modality}: {share}", flush=True)


class Proof:
    """What the first step moved, held against what the stage declares."""

    def __init__(self, model: Vlm):
        self.model = model
        self.before = dict(self.fingerprints())

    def fingerprints(self) -> Iterator[tuple[str, str]]:
        for name, value in self.model.named_parameters():
            flat = value.detach().contiguous().view(-1).view(torch.uint8)
            yield name, hashlib.blake2b(flat.numpy().data, digest_size=16).hexdigest()

    def check(self, stage: Stage) -> None:
        moved = {name for name, value in self.fingerprints() if self.before[name] != value}
        trains = {name for name, p in self.model.named_parameters() if p.requires_grad}
        if loose := moved - trains:
            raise TrainingError(f"stage {stage.name}: frozen, yet moved: {sorted(loose)[:3]}")
        # A LoRA's first matrix gets no gradient while its second is still zero.
        if stuck := {name for name in trains - moved if ".lora_A." not in name}:
            raise TrainingError(
                f"stage {stage.name}: declared to train, yet still: {sorted(stuck)[:3]}"
            )


def _check_tokens(recipe: Recipe, tokenizer: Any) -> None:
    """Now, not at the export hours later."""
    token = recipe.language.image_token
    if token not in tokenizer.all_special_tokens and token not in tokenizer.get_added_vocab():
        raise RecipeError(
            f"recipe {recipe.name}: language.image_token: {token!r} is no special token of "
            f"{recipe.language.model}. Take one that no text uses."
        )
    if recipe.language.bos and tokenizer.bos_token_id is None:
        raise RecipeError(
            f"recipe {recipe.name}: language.bos: the tokenizer of {recipe.language.model} has "
            "no bos token. Leave it out."
        )


def all_right(logits: Tensor, labels: Tensor, end: int) -> int:
    """How many answers are right in every token; each is closed by `end`."""
    wrong = (logits.argmax(-1) != labels).long().cumsum(0)
    at_end = wrong[labels == end]
    return int((torch.diff(at_end, prepend=torch.zeros(1, dtype=torch.long)) == 0).sum())


def _claim(run: Path, recipe: Recipe) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    claim = run / "recipe.json"
    if not claim.exists():
        scratch = claim.with_suffix(".part")
        scratch.write_text(recipe.model_dump_json(indent=1))
        scratch.rename(claim)
    elif json.loads(claim.read_text()) != recipe.model_dump(mode="json"):
        raise TrainingError(
            f"{run} holds a run of another recipe called {recipe.name!r}. Delete that folder, or "
            "give this recipe another name."
        )
    return run
