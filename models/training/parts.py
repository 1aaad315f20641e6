"""A stage of a worker that is made of a tower, a connector and a language model: by labels or by
reward, on cached features where the tower keeps still.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from models.connectors import moe
from models.data.datasets import load
from models.data.example import Example
from models.parts.packing import Row
from models.parts.vlm import Vlm, build_model
from models.recipe import Recipe
from models.recipe.stage import PartsStage, Source
from models.training.inputs.features import cached_features
from models.training.learning import tuning
from models.training.learning.grpo import Policy, RewardTally
from models.training.learning.losses import Losses, Objective
from models.training.learning.sharding import Trained
from models.training.loop import StageRun, TrainingError, images_of
from models.training.record.progress import Tally

RECONSTRUCTOR = "reconstructor.safetensors"  # beside what is exported: only training needs it


class PartsRun(StageRun):
    """As `StageRun`, whose steps, checkpoints and reports it has."""

    recipe: Recipe
    stage: PartsStage
    model: Vlm
    objective: Objective

    def built(self, run: Path) -> Vlm:
        model = build_model(self.recipe, home=run, device=self.accelerator.device)
        if self.accelerator.device.type != "cpu":  # where convolutions are quicker on it
            model.tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def packed(self, learned: Sequence[Example]) -> list[Row]:
        return self.model.packed(learned, self.recipe.prompt, self.stage.questions_per_row)

    def adapted(self, origin: Path | None) -> tuple[nn.Module, list[Trained]]:
        stage, model = self.stage, self.model
        if model.by_geometry:
            stacks = [row for row in self.rows if len(row.images) > 1]
            placed = sum(row.places is not None for row in stacks)
            self.log.say(f"{stage.name}: {placed} of {len(stacks)} stacks say where they lie")
        if origin:
            tuning.load_trained(model, origin)
        tuning.prepare(model, stage)
        self.features: Mapping[Path, Tensor] = {}
        self.copies: list[Mapping[Path, Tensor]] = []
        if stage.tower == "frozen" and stage.cache_features:
            self.look_once()
        objective = Objective(model, stage)
        # A fresh one would first have to learn what the parent's knew, and pull the tokens about.
        if origin and (self.start or (origin / RECONSTRUCTOR).exists()):
            objective.reconstructor.load_state_dict(tuning.load_kept(origin, RECONSTRUCTOR))
        objective.to(self.accelerator.device)
        trains = self.rates(objective)
        self.policy: Policy | None = None
        if stage.grpo:
            self.policy = self.learner_by_reward([weight for part, _ in trains for weight in part])
        return objective, trains

    def rates(self, objective: Objective) -> list[Trained]:
        """What trains, part by part, with each part's learning rate."""
        stage, model = self.stage, self.model
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
        return trains

    def look_once(self) -> None:
        """Has the tower's features of all images, and of their copies, in the cache."""
        learned = self.learned_from()
        rows = self.validation if self.stage.augment else self.validation + learned
        self.features = self.features_by_all(images_of(rows))
        self.copies = [
            self.features_by_all(images.intersection(images_of(learned)), number)
            for number, images in enumerate(copied_images(self.stage.data, self.data), start=1)
        ]

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

    @property
    def decodes(self) -> bool:
        return self.stage.augment or not self.features

    def seen(self, rows: Sequence[Row], training: bool) -> Any:
        """Features, where the tower keeps still."""
        if self.features and not (self.stage.augment and training):
            return torch.stack([self.features_of(image, training) for image in images_of(rows)])
        return super().seen(rows, training)

    def features_of(self, image: Path, training: bool) -> Tensor:
        """[patches, vision_dim]; in training those of one of its copies, by lot."""
        found = [self.features[image]]
        if training:
            found += [features[image] for features in self.copies if image in features]
        return found[int(torch.randint(len(found), ()))] if len(found) > 1 else found[0]

    def preprocessed(self, rows: Sequence[Row], images: Iterable[Image.Image]) -> Any:
        return torch.stack([self.model.tower.preprocess(image) for image in images])

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

    def tally(self) -> Tally | RewardTally:
        return RewardTally() if self.policy else Tally()

    def step(self, rows: list[Row], shown: Sequence[Tensor], tally: Any) -> None:
        if self.policy:
            self.learn_by_reward(self.policy, rows, shown, tally)
        else:
            self.learn_labels(rows, shown, tally)

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
        """A mixture is balanced by how many patches all rows together gave to each expert."""
        self.load = [torch.zeros_like(mixture.bias) for mixture in self.mixtures()]
        super().learn_labels(rows, shown, tally)
        if self.stage.connector == "full":
            for sum_, mixture in zip(self.load, self.mixtures(), strict=True):
                mixture.balance(self.accelerator.reduce(sum_))

    def loss(self, losses: Losses, tokens: int, images: int, counts: bool) -> Tensor:
        """What each expert was given is counted along."""
        for sum_, mixture in zip(self.load, self.mixtures(), strict=True):
            sum_ += mixture.load.sum(0) * counts
        loss = losses.answer / tokens
        loss = loss + self.stage.reconstruction * losses.reconstruction / images
        return (loss + moe.BALANCE * losses.imbalance / images) * counts

    def losses(self, objective: Any, rows: Sequence[Row], seen: Tensor, tally: Tally) -> Losses:
        found = super().losses(objective, rows, seen, tally)
        modalities = [row.questions[0].modality or "unknown" for row in rows for _ in row.images]
        for mixture in self.mixtures():
            tally.add_load(modalities, mixture.load)
        return found

    def mixtures(self) -> list[moe.Connector]:
        return moe.within(self.model.connector)

    def state(self, weights: list[Tensor]) -> dict[str, Any]:
        return super().state(weights) | {"began": self.policy.began if self.policy else []}

    def restore(self, saved: dict[str, Any], step: int) -> None:
        super().restore(saved, step)
        if self.policy:
            self.policy.began = [each.to(self.accelerator.device) for each in saved["began"]]

    def keep(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        tuning.save_trained(self.model, tuning.within(weights, "model"), folder)
        save_file(tuning.within(weights, "reconstructor"), folder / RECONSTRUCTOR)


def copied_images(sources: Sequence[Source], data: Path) -> list[set[Path]]:
    """For each number of a copy, from 1: the images that have one."""
    found: list[set[Path]] = [set() for _ in range(max(source.copies for source in sources))]
    for source in {source for source in sources if source.copies}:
        for language in source.languages:
            shown = load(source.set, data, source.split, language)
            for images in found[: source.copies]:
                images.update(image for example in shown for image in example.images)
    return found
