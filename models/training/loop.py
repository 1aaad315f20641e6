"""The training loop: one stage of a recipe, which goes on where it stopped.

It starts from everything frozen, unfreezes what the stage declares, and proves it after the first
step. The base weights stay in bfloat16; what trains is kept in float32 and computed in bfloat16,
a language model that is made here in float32.
On several GPUs (`accelerate launch`) a step's rows are shared among them.
"""

import json
import math
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import models.cpu_torch  # noqa: F401  before accelerate, which imports torchvision

# isort: split
from accelerate import Accelerator
from accelerate.utils import gather_object

from models.connectors import moe
from models.data.datasets import load
from models.data.pixels import open_rgb
from models.parts.packing import IGNORED, Row, collate, in_steps
from models.parts.vlm import build_model
from models.recipe import Programme, Source, Stage, of_parts
from models.training.inputs.augment import augmented
from models.training.inputs.examples import examples_of, examples_to_learn
from models.training.inputs.features import cached_features
from models.training.learning import tuning
from models.training.learning.average import Average
from models.training.learning.grpo import Policy, RewardTally
from models.training.learning.losses import Losses, Objective
from models.training.record import checkpoints
from models.training.record.checkpoints import Checkpoint
from models.training.record.progress import Log, Tally
from models.training.record.tracker import Tracker

REPORT_EVERY = 20  # steps
LOADERS = 8  # processes that read and preprocess images while an accelerator computes
RECONSTRUCTOR = "reconstructor.safetensors"  # beside what is exported: only training needs it

Trained = tuple[list[nn.Parameter], float]  # weights, and their learning rate


class TrainingError(Exception):
    """Training cannot go on; one sentence that says why and how to mend it."""


class StageRun:
    """One stage of one recipe, from its parent (or its own last checkpoint) to its end."""

    recipe: Programme
    model: Any  # what each kind of worker is made of
    objective: Any

    def __init__(self, recipe: Programme, stage: Stage, run: Path, data: Path, parent: Path | None):
        self.recipe, self.stage = recipe, stage
        self.folder = run / stage.name
        self.folder.mkdir(exist_ok=True)
        # First of all: it says which accelerator is this process's own.
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.model = self.built(run)
        learned = examples_to_learn(stage.data, recipe, data)
        self.rows = self.model.packed(learned, recipe.prompt, stage.questions_per_row)
        sources = stage.validation or recipe.validation
        held_out = examples_of(sources, data, recipe.fold, held_out=True)
        self.validation = self.model.packed(held_out, recipe.prompt)
        self.copied = copied_images(stage.data, data)
        self.steps_per_epoch = math.ceil(len(self.rows) / stage.rows_per_step)
        whole = self.steps_per_epoch * stage.epochs
        self.steps = min(whole, stage.steps or whole)
        self.start = checkpoints.newest(self.folder)
        self.log = Log(self.folder / "log.jsonl", self.steps, self.accelerator.is_main_process)
        torch.manual_seed(recipe.seed + 1)
        self.prepare(parent)

    def prepare(self, parent: Path | None) -> None:
        """Loads what was trained before, freezes and unfreezes, restores the optimiser."""
        stage = self.stage
        self.features: Mapping[Path, Tensor] = {}
        self.copies: list[Mapping[Path, Tensor]] = []
        self.objective, trains = self.adapted(self.start.folder if self.start else parent)
        groups = [{"params": weights, "lr": rate} for weights, rate in trains]
        self.optimiser = tuning.optimiser(groups, stage)
        trained = [weight for group in self.optimiser.param_groups for weight in group["params"]]
        self.average = Average(trained, stage.average)
        self.policy: Policy | None = None
        if stage.grpo:
            self.policy = self.learner_by_reward(trained)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self.rate)
        if self.start:
            kept = self.start.folder / "optimiser.pt"
            saved = torch.load(kept, map_location="cpu", weights_only=True)
            self.optimiser.load_state_dict(saved["optimiser"])
            self.schedule.load_state_dict(saved["schedule"])
            if stage.average:
                self.average.restore(saved["weights"], self.start.step)
            if self.policy:
                self.policy.began = [each.to(self.accelerator.device) for each in saved["began"]]
            torch.set_rng_state(saved["rng"])
            if torch.cuda.is_available() and saved["cuda_rng"]:
                torch.cuda.set_rng_state_all(saved["cuda_rng"])
        self.shared = self.accelerator.prepare_model(self.objective)
        if rank := self.accelerator.process_index:
            # Each process draws its own; what is restored was the first one's.
            first = self.start.step if self.start else 0
            torch.manual_seed(self.recipe.seed + first + 1_000_003 * rank)

    def built(self, run: Path) -> Any:
        """The model as it is before any stage."""
        model = build_model(of_parts(self.recipe), home=run, device=self.accelerator.device)
        if self.accelerator.device.type != "cpu":  # where convolutions are quicker on it
            model.tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def adapted(self, origin: Path | None) -> tuple[nn.Module, list[Trained]]:
        """The objective over the model, which goes on from `origin`, with all frozen but what the
        stage declares; and what trains of it.
        """
        stage, model = self.stage, self.model
        if origin:
            tuning.load_trained(model, origin)
        tuning.prepare(model, stage)
        if stage.tower == "frozen" and stage.cache_features:
            learned = self.learned_from()
            rows = self.validation if stage.augment else self.validation + learned
            self.features = self.features_by_all(images_of(rows))
            self.copies = [
                self.features_by_all(images.intersection(images_of(learned)), number)
                for number, images in enumerate(self.copied, start=1)
            ]
        objective = Objective(model, stage)
        # A fresh one would first have to learn what the parent's knew, and pull the tokens about.
        if origin and (self.start or (origin / RECONSTRUCTOR).exists()):
            objective.reconstructor.load_state_dict(load_file(origin / RECONSTRUCTOR))
        objective.to(self.accelerator.device)
        rates = {
            "tower": stage.tower_lr,
            "connector": stage.connector_lr,
            "language": stage.language_lr,
        }
        groups = [(model.get_submodule(name), rate) for name, rate in rates.items()]
        groups.append((objective.reconstructor, stage.connector_lr))
        trains = [([p for p in part.parameters() if p.requires_grad], lr) for part, lr in groups]
        if gates := tuning.gates(model):
            apart = set(gates)
            trains = [([p for p in part if p not in apart], lr) for part, lr in trains]
            trains.append((gates, stage.gate_lr))
        return objective, trains

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a twentieth."""
        warm = min(1.0, (step + 1) / self.stage.warmup_steps)
        return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps))))

    def run(self, tracker: Tracker | None = None) -> Checkpoint:
        """Trains from the last checkpoint to the end, saving and validating after every epoch,
        a last one that is cut short included. `tracker` is told what the log is."""
        self.log.tracker = tracker
        first = self.start.step if self.start else 0
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.log.say(
            f"{self.recipe.name}/{self.stage.name}: {sum(len(r.questions) for r in self.rows)} "
            f"questions in {len(self.rows)} rows, {self.steps} steps, from step {first}; "
            f"{trained:,} parameters train"
        )
        self.log.forget_after(first)
        stop, tally, began = self.start, self.tally(), time.monotonic()
        for step, shown in zip(range(first, self.steps), self.shown_from(first), strict=True):
            proof = tuning.Proof(self.model) if step == 0 else None
            self.step(self.rows_of(step), shown, tally)
            if proof and tally.has_gradient:
                proof.check(self.stage)
            if (step + 1) % REPORT_EVERY == 0:
                left = (time.monotonic() - began) / (step + 1 - first) * (self.steps - step - 1)
                self.log.figures(step + 1, "train", tally.report(), f"{left / 60:.0f} min left")
                tally = self.tally()
            if (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.steps:
                with self.average.in_place() as weights:
                    stop = self.save(step + 1, self.validate(step + 1), weights)
                tally = self.tally()
        assert stop is not None  # there is at least one step, and the last one saves
        return stop

    def learner_by_reward(self, trained: list[Tensor]) -> Policy:
        assert self.stage.grpo
        if self.accelerator.num_processes > 1:
            raise TrainingError(
                f'stage {self.stage.name}: method = "grpo" learns on one process: start it without '
                "accelerate launch."
            )
        try:
            return Policy(self.model, self.stage.grpo, self.recipe.prompt, trained)
        except ValueError as error:
            raise TrainingError(f"stage {self.stage.name}: {error}.") from error

    def features_by_all(self, images: Iterable[Path], copy: int = 0) -> Mapping[Path, Tensor]:
        """As `cached_features`; each process computes its share of them."""
        found = sorted(set(images))
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        if processes > 1:
            cached_features(self.model.tower, found[rank::processes], copy)
            self.accelerator.wait_for_everyone()
        return cached_features(self.model.tower, found, copy)

    def learned_from(self) -> list[Row]:
        """The rows that its steps come to, where they end before an epoch does."""
        if self.steps >= self.steps_per_epoch:
            return self.rows
        return [row for step in range(self.steps) for row in self.rows_of(step)]

    def rows_of(self, step: int) -> list[Row]:
        """The step's rows: a function of seed and step alone, so a resumed run sees the same."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self.recipe.seed * 1000 + epoch
        return in_steps(self.rows, self.stage.rows_per_step, order)[place]

    def parts_of(self, rows: list[Row]) -> list[list[Row]]:
        """This process's share of a step's rows, part by part. One without a row takes part all the
        same, with nothing to say.
        """
        mine = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        return in_parts(mine or rows[:1], self.stage.accumulate)

    def shown_from(self, first: int) -> Iterable[list[Tensor]]:
        """For each step from `first` on, what each of its parts is shown: see `seen`. On an
        accelerator processes of their own are ahead of it with that.
        """
        on_gpu = self.accelerator.device.type != "cpu"
        decodes = self.stage.augment or not self.features  # features are only read
        return DataLoader(
            Shown(self, range(first, self.steps)),
            batch_size=None,
            num_workers=LOADERS if on_gpu and decodes else 0,
            pin_memory=on_gpu,
            generator=torch.Generator(),  # else it would take one of the run's own lots
        )

    def tally(self) -> Tally | RewardTally:
        return RewardTally() if self.stage.grpo else Tally()

    def step(self, rows: list[Row], shown: Sequence[Tensor], tally: Tally | RewardTally) -> None:
        """One step of the optimiser, by labels or by reward. `shown` is what `shown_from` gives."""
        if isinstance(tally, Tally):
            return self.learn_labels(rows, shown, tally)
        assert self.policy
        return self.learn_by_reward(self.policy, rows, shown, tally)

    def learn_by_reward(
        self, policy: Policy, rows: list[Row], shown: Sequence[Tensor], tally: RewardTally
    ) -> None:
        """Samples once, then moves the weights as often as the stage says."""
        self.objective.eval()
        seen = [each.to(self.accelerator.device) for each in shown]
        parts = zip(self.parts_of(rows), seen, strict=True)
        drawn = [policy.draw(part, each, tally) for part, each in parts]
        questions = sum(len(row.questions) for row in rows)
        for _ in range(policy.settings.updates):
            for each in drawn:
                loss = policy.loss(each, tally) / questions
                self.require_finite(loss, "loss")
                self.accelerator.backward(loss)
            self.update()
        self.schedule.step()

    def learn_labels(self, rows: list[Row], shown: Sequence[Tensor], tally: Tally) -> None:
        """Its gradient is that of all rows together, in however many parts and on however many
        processes they are computed.
        """
        self.objective.train()
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        mine = len(rows) > rank
        share = processes if mine else 0
        parts = self.parts_of(rows)
        tokens = sum(int((row.labels != IGNORED).sum()) for row in rows)
        images = sum(len(row.images) for row in rows)
        load = [torch.zeros_like(mixture.bias) for mixture in self.mixtures()]
        for part, seen in zip(parts, shown, strict=True):
            alone = part is not parts[-1]
            with self.accelerator.no_sync(self.shared) if alone else nullcontext():
                losses = self.losses(self.shared, part, seen, tally)
                loss = losses.answer / tokens
                loss = loss + self.stage.reconstruction * losses.reconstruction / images
                loss = loss + moe.BALANCE * losses.imbalance / images
                self.require_finite(loss, "loss")
                self.accelerator.backward(loss * share)
            for sum_, mixture in zip(load, self.mixtures(), strict=True):
                sum_ += mixture.load.sum(0) * mine
        self.update()
        self.schedule.step()
        if self.stage.connector == "full":
            for sum_, mixture in zip(load, self.mixtures(), strict=True):
                mixture.balance(self.accelerator.reduce(sum_))

    def update(self) -> None:
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), 1.0)
        self.require_finite(norm, "gradient")
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update()

    def require_finite(self, value: Tensor, name: str) -> None:
        if not torch.isfinite(value):
            raise TrainingError(
                f"{self.folder}: the {name} is {value.item()}. Lower tower_lr, connector_lr or "
                "language_lr in the recipe, delete that folder and train again."
            )

    def mixtures(self) -> list[moe.Connector]:
        return moe.within(self.model.connector)

    def losses(self, objective: Any, rows: Sequence[Row], seen: Tensor, tally: Tally) -> Losses:
        batch = collate(rows, self.model.tokenizer.pad_token_id).to(self.accelerator.device)
        losses: Losses = objective(batch, seen.to(self.accelerator.device, non_blocking=True))
        tally.add(batch, losses, self.model.end)
        modalities = [row.questions[0].modality or "unknown" for row in rows for _ in row.images]
        for mixture in self.mixtures():
            tally.add_load(modalities, mixture.load)
        return losses

    def seen(self, rows: Sequence[Row], training: bool) -> Any:
        """The rows' images as the objective takes them: features where the tower keeps still."""
        images = list(images_of(rows))
        augment = self.stage.augment and training
        if self.features and not augment:
            return torch.stack([self.features_of(image, training) for image in images])
        decoded = map(open_rgb, images)
        return self.preprocessed(rows, map(augmented, decoded) if augment else decoded)

    def preprocessed(self, rows: Sequence[Row], images: Iterable[Image.Image]) -> Any:
        """The rows' images, in order, as the objective takes them."""
        return torch.stack([self.model.tower.preprocess(image) for image in images])

    def features_of(self, image: Path, training: bool) -> Tensor:
        """[patches, vision_dim]; in training those of one of its copies, by lot."""
        found = [self.features[image]]
        if training:
            found += [features[image] for features in self.copies if image in features]
        return found[int(torch.randint(len(found), ()))] if len(found) > 1 else found[0]

    @torch.no_grad()
    def validate(self, step: int) -> Tally:
        """Both losses and exact match on the recipe's validation data, of which each process takes
        its share."""
        self.objective.eval()
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        mine, own = self.validation[rank::processes], Tally()
        for start in range(0, len(mine), 8):
            rows = mine[start : start + 8]
            self.losses(self.objective, rows, self.seen(rows, training=False), own)
        tally = Tally.of_all(gather_object([own]))
        self.log.figures(step, "validation", tally.report())
        if shares := tally.shares():
            self.log.experts(step, shares)
        return tally

    def save(self, step: int, validated: Tally, weights: list[Tensor]) -> Checkpoint:
        """`weights` are those of the optimiser, where their average stands in their place."""

        def write(folder: Path) -> None:
            self.keep(folder)
            state = {
                "optimiser": self.optimiser.state_dict(),
                "schedule": self.schedule.state_dict(),
                "weights": weights if self.stage.average else [],
                "began": self.policy.began if self.policy else [],
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            }
            torch.save(state, folder / "optimiser.pt")
            outcome = {question.id: right for question, right in validated.right.items()}
            (folder / "validation.json").write_text(json.dumps(outcome))

        finished = step == self.steps
        if self.accelerator.is_main_process:
            checkpoints.save(self.folder, step, finished, write)
        self.accelerator.wait_for_everyone()  # the next stage may start from it
        return Checkpoint(self.folder / f"step-{step}", step, finished)

    def keep(self, folder: Path) -> None:
        """Writes what was trained."""
        tuning.save_trained(self.model, folder)
        save_file(self.objective.reconstructor.state_dict(), folder / RECONSTRUCTOR)


class Shown(Dataset[list[Tensor]]):
    """What a run's steps show, by lots that hang on the recipe's seed, the step and the process
    alone: whoever makes it, and however far ahead, it is the same.
    """

    def __init__(self, run: StageRun, steps: range):
        self.run, self.steps = run, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> list[Tensor]:
        run, step = self.run, self.steps[index]
        rank = run.accelerator.process_index
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{run.recipe.seed} {step} {rank}".encode()))
            return [run.seen(part, training=True) for part in run.parts_of(run.rows_of(step))]


def copied_images(sources: Sequence[Source], data: Path) -> list[set[Path]]:
    """For each number of a copy, from 1: the images that have one."""
    found: list[set[Path]] = [set() for _ in range(max(source.copies for source in sources))]
    for source in {source for source in sources if source.copies}:
        for language in source.languages:
            shown = load(source.set, data, source.split, language)
            for images in found[: source.copies]:
                images.update(image for example in shown for image in example.images)
    return found


def images_of(rows: Sequence[Row]) -> Iterator[Path]:
    return (image for row in rows for image in row.images)


def in_parts(rows: list[Row], count: int) -> list[list[Row]]:
    """At most `count` parts, none empty, the first ones the longer."""
    size = math.ceil(len(rows) / count)
    return [rows[i : i + size] for i in range(0, len(rows), size)]
