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
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader, Dataset

import models.cpu_torch  # noqa: F401  before accelerate, which imports torchvision

# isort: split
from accelerate import Accelerator
from accelerate.utils import gather_object

from models.data.example import Example
from models.data.pixels import open_rgb
from models.files import write_whole
from models.parts.packing import IGNORED, Row, collate, in_steps
from models.recipe.programme import Programme
from models.recipe.stage import Stage
from models.training.inputs.augment import augmented
from models.training.inputs.examples import (
    ASKED,
    checksum,
    examples_of,
    examples_to_learn,
    spelled_as,
)
from models.training.learning import sharding, tuning
from models.training.learning.average import Average
from models.training.learning.losses import Losses
from models.training.learning.sharding import Trained
from models.training.record import checkpoints
from models.training.record.checkpoints import Checkpoint, CheckpointError
from models.training.record.progress import Log, Tally
from models.training.record.tracker import Tracker

REPORT_EVERY = 20  # steps, or sooner in a run of fewer than a hundred
LOADERS = 8  # processes that read and preprocess images while an accelerator computes


class TrainingError(Exception):
    """Training cannot go on; one sentence that says why and how to mend it."""


class StageRun(ABC):
    """One stage of one recipe, from its parent (or its own last checkpoint) to its end. What its
    model is, what that is shown and what is kept of it says each kind of worker's own:
    `models.training.parts`, `models.training.whole`.
    """

    recipe: Programme
    stage: Stage
    model: Any
    objective: Any

    def __init__(self, recipe: Programme, stage: Stage, run: Path, data: Path, parent: Path | None):
        self.recipe, self.stage, self.data = recipe, stage, data
        self.folder = run / stage.name
        self.folder.mkdir(exist_ok=True)
        # First of all: it says which accelerator is this process's own.
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.model = self.built(run)
        learned = examples_to_learn(stage.data, recipe, data)
        self.rows = self.packed(learned)
        sources = stage.validation or recipe.validation
        held_out = examples_of(sources, data, recipe.fold, held_out=True)
        self.asked = checksum(held_out)
        # Exact match is by tokens here, and a split may write in capitals what another does not.
        self.validation = self.model.packed(spelled_as(learned, held_out), recipe.prompt)
        self.data_read = self.require_one_view()
        self.steps_per_epoch = math.ceil(len(self.rows) / stage.rows_per_step)
        self.ordered: tuple[int, list[list[Row]]] = (-1, [])  # an epoch, and its steps
        at_most = self.steps_per_epoch * stage.epochs
        self.steps = min(at_most, stage.steps or at_most)
        self.start = checkpoints.newest(self.folder)
        self.log = Log(self.folder / "log.jsonl", self.steps, self.accelerator.is_main_process)
        torch.manual_seed(recipe.seed + 1)
        self.prepare(parent)

    def require_one_view(self) -> str:
        """A checksum of what is learned and scored. Raises TrainingError where processes, each of
        which reads the data for itself, differ in it: each would learn and score other rows than it
        should. Of an image its name and size count: to read every one in each process and stage
        would take long."""
        rows = (*self.rows, *self.validation)
        asked = [question for row in rows for question in row.questions]
        told = "\n".join(
            [
                *(f"{each.id} {each.question} {each.answer}" for each in asked),
                *(f"{image.name} {image.stat().st_size}" for image in images_of(rows)),
            ]
        )
        counts, hashes = zip(*gather_object([(len(asked), zlib.crc32(told.encode()))]), strict=True)
        if len(set(hashes)) > 1:
            raise TrainingError(
                f"stage {self.stage.name}: its processes read unequal data "
                f"({' and '.join(map(str, counts))} questions, and not the same, or of other "
                "images). Give every machine the same data sets under --data."
            )
        return str(hashes[0])

    def require_same_data(self) -> None:
        """Raises CheckpointError where a stopped run would go on with other data."""
        kept = self.folder / "data.crc32"
        if self.start and kept.exists() and kept.read_text() != self.data_read:
            raise CheckpointError(
                f"{self.folder} has begun on other data than there is now: give it back under "
                "--data, or delete that folder and train the stage anew."
            )
        if self.accelerator.is_main_process:
            write_whole(kept, self.data_read)

    def prepare(self, parent: Path | None) -> None:
        """Loads what was trained before, freezes and unfreezes, restores the optimiser."""
        stage = self.stage
        self.objective, trains = self.adapted(self.start.folder if self.start else parent)
        parted = stage.shard and self.accelerator.num_processes > 1
        if stage.shard and not parted:
            self.log.say(
                f"{stage.name}: shard: one process keeps all of the weights; accelerate launch "
                "starts one for each GPU"
            )
        if parted:
            device, processes = self.accelerator.device, self.accelerator.num_processes
            trains = sharding.shard(
                self.objective, trains, init_device_mesh(device.type, (processes,))
            )
        groups = [{"params": weights, "lr": rate} for weights, rate in trains]
        self.optimiser = tuning.optimiser(groups, stage)
        trained = [weight for group in self.optimiser.param_groups for weight in group["params"]]
        self.average = Average(trained, stage.average)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self.rate)
        if self.start:
            self.restore(self.saved_state(self.start.folder / "optimiser.pt"), self.start.step)
        self.shared = self.objective if parted else self.accelerator.prepare_model(self.objective)
        if rank := self.accelerator.process_index:
            # Each process draws its own; what is restored was the first one's.
            first = self.start.step if self.start else 0
            torch.manual_seed(self.recipe.seed + first + 1_000_003 * rank)

    def saved_state(self, path: Path) -> Any:
        """Raises CheckpointError where the file is broken."""
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, UnpicklingError) as error:
            raise CheckpointError(
                f"{path} is broken or cut short: {tuning.mend_of(path.parent)}."
            ) from error

    @abstractmethod
    def built(self, run: Path) -> Any:
        """The model as it is before any stage."""

    @abstractmethod
    def packed(self, learned: Sequence[Example]) -> list[Row]:
        """What the stage learns from, in rows."""

    @abstractmethod
    def adapted(self, origin: Path | None) -> tuple[nn.Module, list[Trained]]:
        """The objective over the model, which goes on from `origin`, with all frozen but what the
        stage declares; and what trains of it.
        """

    @abstractmethod
    def preprocessed(self, rows: Sequence[Row], images: Iterable[Image.Image]) -> Any:
        """The rows' images, in order, as the objective takes them."""

    @abstractmethod
    def keep(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Writes what was trained; `weights` are the objective's, by name."""

    def tally(self) -> Any:
        """Sums of what the next steps come to, for `step` to add to."""
        return Tally()

    def step(self, rows: list[Row], shown: Sequence[Tensor], tally: Any) -> None:
        """One step of the optimiser. `shown` is what `shown_from` gives."""
        self.learn_labels(rows, shown, tally)

    def loss(self, losses: Losses, tokens: int, images: int, counts: bool) -> Tensor:
        """What a part of a step adds to what is to be made small, of so many answers' tokens and
        images in all of it; nothing, where the part only takes part."""
        return losses.answer / tokens * counts

    @property
    def decodes(self) -> bool:
        """Is an image file read and preprocessed in every step?"""
        return True

    def state(self, weights: list[Tensor]) -> dict[str, Any]:
        """What a run goes on with, beside what it has trained. `weights` is as `in_place` of the
        average gives it."""
        device = self.accelerator.device
        return {
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "weights": weights,
            "averaged": self.average.updates,
            "rng": torch.get_rng_state(),
            "cuda_rng": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
        }

    def restore(self, saved: dict[str, Any], step: int) -> None:
        """Goes on from what `state` gave after so many steps."""
        moments = sharding.shares_of_moments(saved["optimiser"], self.average.weights)
        self.optimiser.load_state_dict(moments)
        self.schedule.load_state_dict(saved["schedule"])
        if self.stage.average:
            self.average.restore(saved["weights"], saved.get("averaged", step))
        torch.set_rng_state(saved["rng"])
        device = self.accelerator.device
        if saved["cuda_rng"] and device.type == "cuda":
            # The first process's own. There may be fewer GPUs than there were, and earlier versions
            # kept what each of them had.
            torch.cuda.set_rng_state(saved["cuda_rng"][0], device)

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a twentieth."""
        warm = min(1.0, (step + 1) / self.stage.warmup_steps)
        return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps))))

    def run(self, tracker: Tracker | None = None) -> Checkpoint:
        """Trains from the last checkpoint to the end, saving and validating after every epoch,
        a last one that is cut short included. `tracker` is told what the log is."""
        self.require_same_data()
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
        every = min(REPORT_EVERY, max(1, self.steps // 5))
        for step, shown in zip(range(first, self.steps), self.shown_from(first), strict=True):
            proof = tuning.Proof(self.model) if step == 0 else None
            self.step(self.rows_of(step), shown, tally)
            if proof and tally.has_gradient:
                proof.check(self.stage)
            if (step + 1) % every == 0:
                left = (time.monotonic() - began) / (step + 1 - first) * (self.steps - step - 1)
                self.log.figures(step + 1, "train", tally.report(), f"{left / 60:.0f} min left")
                tally = self.tally()
            if (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.steps:
                with self.average.in_place() as weights:
                    stop = self.save(step + 1, self.validate(step + 1), weights)
                tally = self.tally()
        assert stop is not None  # there is at least one step, and the last one saves
        return stop

    def rows_of(self, step: int) -> list[Row]:
        """The step's rows: a function of seed and step alone, so a resumed run sees the same."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self.ordered[0] != epoch:  # to order many rows takes longer than a step
            order = self.recipe.seed * 1000 + epoch
            self.ordered = epoch, in_steps(self.rows, self.stage.rows_per_step, order)
        return self.ordered[1][place]

    def parts_of(self, rows: list[Row]) -> list[list[Row]]:
        """This process's share of a step's rows, part by part: as many parts as the first process
        has. Where its own are fewer it takes part all the same, with nothing to say.
        """
        own, most = self.own_parts(rows), self.own_parts(rows, rank=0)
        return own + [rows[:1]] * (len(most) - len(own))

    def own_parts(self, rows: list[Row], rank: int | None = None) -> list[list[Row]]:
        """Those parts of a step that are the process's own, or another's."""
        rank = self.accelerator.process_index if rank is None else rank
        return in_parts(rows[rank :: self.accelerator.num_processes], self.stage.accumulate)

    def shown_from(self, first: int) -> DataLoader[list[Tensor]]:
        """For each step from `first` on, what each of its parts is shown: see `seen`. On an
        accelerator processes of their own are ahead of it with that.
        """
        on_gpu = self.accelerator.device.type != "cpu"
        loaders = LOADERS if on_gpu and self.decodes else 0
        return DataLoader(
            Shown(self, range(first, self.steps)),
            batch_size=None,
            num_workers=loaders,
            # They take over the run as it is: Python 3.14's own way, forkserver, would pickle it,
            # model and optimiser included. They compute nothing on the accelerator.
            multiprocessing_context="fork" if loaders else None,
            pin_memory=on_gpu,
            generator=torch.Generator(),  # else it would take one of the run's own lots
        )

    def learn_labels(self, rows: list[Row], shown: Sequence[Tensor], tally: Tally) -> None:
        """Its gradient is that of all rows together, in however many parts and on however many
        processes they are computed.
        """
        self.objective.train()
        parts, own = self.parts_of(rows), len(self.own_parts(rows))
        tokens = sum(int((row.labels != IGNORED).sum()) for row in rows)
        images = sum(len(row.images) for row in rows)
        for number, (part, seen) in enumerate(zip(parts, shown, strict=True), start=1):
            with self.without_sync() if number < len(parts) else nullcontext():
                losses = self.losses(self.shared, part, seen, tally)
                loss = self.loss(losses, tokens, images, counts=number <= own)
                self.require_finite(loss, "loss")
                self.accelerator.backward(loss * self.accelerator.num_processes)
        self.update()
        self.schedule.step()

    def without_sync(self) -> AbstractContextManager[None]:
        """Within it gradients add up on each process alone; those of weights that are shared out
        are shared out at once, or each process would keep all of them."""
        if isinstance(self.shared, FSDPModule):
            return nullcontext()
        without: AbstractContextManager[None] = self.accelerator.no_sync(self.shared)
        return without

    def update(self) -> None:
        norm = sharding.whole(nn.utils.clip_grad_norm_(self.objective.parameters(), 1.0))
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

    def losses(self, objective: Any, rows: Sequence[Row], seen: Tensor, tally: Tally) -> Losses:
        batch = collate(rows, self.model.tokenizer.pad_token_id).to(self.accelerator.device)
        losses: Losses = objective(batch, seen.to(self.accelerator.device, non_blocking=True))
        tally.add(batch, losses, self.model.end)
        return losses

    def seen(self, rows: Sequence[Row], training: bool) -> Any:
        """The rows' images as the objective takes them."""
        augment = self.stage.augment and training
        decoded = map(open_rgb, images_of(rows))
        return self.preprocessed(rows, map(augmented, decoded) if augment else decoded)

    @torch.no_grad()
    def validate(self, step: int) -> Tally:
        """Both losses and exact match on the recipe's validation data, of which each process takes
        its share."""
        self.objective.eval()
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        mine, own = self.validation[rank::processes], Tally()
        # As many times as the first one has rows for: weights that are shared out want all at once.
        for start in range(0, math.ceil(len(self.validation) / processes), 8):
            rows, tally = mine[start : start + 8], own
            if not rows:
                rows, tally = self.validation[:1], Tally()
            self.losses(self.objective, rows, self.seen(rows, training=False), tally)
        sharding.put_away(self.objective)
        tally = Tally.of_all(gather_object([own]))
        self.log.figures(step, "validation", tally.report())
        if shares := tally.shares():
            self.log.experts(step, shares)
        return tally

    def save(self, step: int, validated: Tally, weights: list[Tensor]) -> Checkpoint:
        """`weights` is as in `state`."""

        main = self.accelerator.is_main_process
        trained = sharding.gathered(self.objective.state_dict(), main)
        state = sharding.gathered(self.state(weights), main)

        def write(folder: Path) -> None:
            self.keep(folder, trained)
            torch.save(state, folder / "optimiser.pt")
            outcome = {question.id: right for question, right in validated.right.items()}
            (folder / "validation.json").write_text(json.dumps(outcome))
            (folder / ASKED).write_text(self.asked)

        finished = step == self.steps
        if main:
            checkpoints.save(self.folder, step, finished, write)
        self.accelerator.wait_for_everyone()  # the next stage may start from it
        return Checkpoint(self.folder / f"step-{step}", step, finished)


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


def images_of(rows: Sequence[Row]) -> Iterator[Path]:
    return (image for row in rows for image in row.images)


def in_parts(rows: list[Row], count: int) -> list[list[Row]]:
    """At most `count` parts, none empty, the first ones the longer."""
    size = max(1, math.ceil(len(rows) / count))
    return [rows[i : i + size] for i in range(0, len(rows), size)]
