"""What training minimises: the answers' cross-entropy, and the reconstruction regulariser."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import models.cpu_torch  # noqa: F401  before peft, which imports torchvision

# isort: split
from peft import PeftModel, PeftType

from models.connectors import moe
from models.parts.packing import IGNORED, Batch
from models.parts.vlm import Embedded, Vlm
from models.parts.words import says_in_one_token
from models.positions import FOURIER_DIM, STACK_FOURIER_DIM, fourier
from models.recipe.stage import PartsStage
from models.training.learning.tuning import soft_prompt

TOWER_BATCH = 32  # images


@dataclass(frozen=True)
class Losses:
    """Over the rows of one batch."""

    answer: Tensor  # summed over the answers' tokens
    reconstruction: Tensor  # summed over images
    imbalance: Tensor  # of a mixture's experts, summed over images
    wrong: Tensor  # [tokens]: is another token than the answer's the likeliest?


class Objective(nn.Module):
    """Model and reconstructor as one module: what several GPUs compute gradients of. In training
    it hides words and smooths labels as the stage says.
    """

    def __init__(self, model: Vlm, stage: PartsStage):
        super().__init__()
        self.model, self.stage = model, stage
        text_dim = model.language.get_input_embeddings().weight.shape[-1]
        place_dim = STACK_FOURIER_DIM if model.stacks else FOURIER_DIM
        self.reconstructor = Reconstructor(text_dim, model.tower.dim, place_dim)
        self.reconstructor.requires_grad_(stage.reconstruction > 0)

    def forward(self, batch: Batch, seen: Tensor) -> Losses:
        """`seen` holds the rows' images in order: pixels [images, 3, size, size], or the features
        [images, patches, vision_dim] that the tower has made of them.
        """
        # A tower that trains on a CPU is so small that to cast costs more than it saves.
        made, device = says_in_one_token(self.model.tokenizer), seen.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            features = in_batches(self.model.tower, seen) if seen.dim() == 4 else seen
        if self.training and self.stage.word_dropout:
            batch = self._with_words_hidden(batch)
        features = features.float() if made else features
        with cast(self.model, features):
            logits, labels, embedded = answer_logits(self.model, batch, features)
            rebuilt = self._rebuilt(embedded)
        # In bfloat16 as they are: 262,144 words a token are too many to copy. Only the sum is not.
        answer = functional.cross_entropy(logits, labels, reduction="none").float()
        if self.training and self.stage.label_smoothing:
            answer = self._smoothed(answer, logits, labels)
        wrong = logits.argmax(-1) != labels
        if made:  # an unknown answer is none, even if "unknown" is said
            wrong |= labels == self.model.tokenizer.unk_token_id
        uneven = [mixture.imbalance.sum() for mixture in moe.within(self.model.connector)]
        return Losses(answer.sum(), rebuilt.sum(), sum(uneven, rebuilt.new_zeros(())), wrong)

    def _rebuilt(self, embedded: Sequence[Embedded]) -> Tensor:
        """[images]: how much of each cannot be rebuilt. Where nothing learns to, it is only asked
        in validation.
        """
        if self.training and not self.stage.reconstruction:
            return embedded[0].tokens.new_zeros(1)
        # Of a tower that moves only the answers say where to: else it would move to where it is
        # easy to rebuild. A stack is rebuilt as one, and counts as its images.
        found = [
            self.reconstructor(each.tokens, each.positions, each.features.detach())
            * (each.features.shape[1] / self.model.tower.patches)
            for each in embedded
        ]
        return torch.cat(found)

    def _with_words_hidden(self, batch: Batch) -> Batch:
        """Words of questions, unknown by lot; the last one, which the answer follows, stays."""
        hidden = torch.rand_like(batch.ids, dtype=torch.float32) < self.stage.word_dropout
        hidden &= (batch.labels == IGNORED) & ~batch.images
        return replace(batch, ids=batch.ids.masked_fill(hidden, self.model.tokenizer.unk_token_id))

    def _smoothed(self, answer: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Label smoothing (Szegedy et al. 2016, section 7) of each token's loss [n], but for the
        end, which is certain once all has been said.
        """
        share = self.stage.label_smoothing * (labels != self.model.tokenizer.eos_token_id)
        even = (logits.logsumexp(-1) - logits.mean(-1)).float()
        return answer.lerp(even, share)


def cast(model: Vlm, features: Tensor) -> torch.autocast:
    """Within it connector and language model compute in bfloat16; not, on a CPU, a made one, which
    is so small that to cast costs more than it saves. No weight is used twice, so none is kept in
    bfloat16 after its layer: of a model that is trained whole that would be half of it again."""
    device = features.device.type
    small = says_in_one_token(model.tokenizer) and device == "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=not small, cache_enabled=False)


def in_batches(tower: nn.Module, pixels: Tensor) -> Tensor:
    """What a tower makes of pixels [images, 3, size, size]. On an accelerator batches have one
    size: for every other its library would look for kernels anew, for seconds.
    """
    if pixels.device.type == "cpu":
        return tower(pixels)
    batches = pixels.split(TOWER_BATCH)
    missing = TOWER_BATCH - len(batches[-1])
    full = torch.cat([batches[-1], pixels.new_zeros(missing, *pixels.shape[1:])])
    return torch.cat([tower(each) for each in (*batches[:-1], full)])[: len(pixels)]


def answer_logits(
    model: Vlm, batch: Batch, features: Tensor
) -> tuple[Tensor, Tensor, list[Embedded]]:
    """Logits at the answers' positions only: with 262,144 words the others would cost the most.

    `features` is [images, patches, vision_dim], the rows' images in order. Returns logits
    [n, vocabulary], labels [n], and the images' embeddings.
    """
    counts = [len(row.images) for row in batch.rows]
    asked = [row.asked[0].to(batch.ids.device) for row in batch.rows] if model.fuses else []
    embedded = model.image_embeddings(features, counts, [row.places for row in batch.rows])
    image = model.placed(embedded, counts, asked)
    embeddings = model.text_embeddings(batch.ids)
    embeddings = embeddings.masked_scatter(batch.images[..., None], image.to(embeddings.dtype))
    seen, positions, past = batch.mask, batch.positions, None
    if model.image_attention == "bidirectional":
        seen = seen | (batch.images[:, None, :, None] & batch.images[:, None, None, :])
    if soft_prompt(model.language):
        embeddings, seen, positions, past = _behind_soft_prompt(
            model.language, embeddings, seen, positions
        )
    blocked = torch.finfo(embeddings.dtype).min
    bias = torch.zeros_like(seen, dtype=embeddings.dtype).masked_fill(~seen, blocked)
    mask: Tensor | dict[str, Tensor] = bias
    if getattr(model.language.config, "layer_types", None):
        # No question is longer than a sliding window, so one mask serves both kinds of layer.
        mask = {kind: bias for kind in set(model.language.config.layer_types)}
    hidden = model.language.get_decoder()(
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=past,
        use_cache=past is not None,
    ).last_hidden_state[:, -batch.labels.shape[1] :]
    rows, places = batch.labelled
    logits = model.language.get_output_embeddings()(hidden[rows, places])
    return logits, batch.labels[rows, places], embedded


def _behind_soft_prompt(
    language: PeftModel, embeddings: Tensor, seen: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor, Tensor, Any]:
    """The soft prompt goes first, and everything sees all of it.

    Returns embeddings, mask, positions and the keys and values that come before them, if any.
    """
    rows, length = positions.shape
    first = language.active_peft_config.num_virtual_tokens
    prompt = language.get_prompt(rows)
    seen = torch.cat([seen.new_ones(rows, 1, length, first), seen], dim=-1)
    if language.peft_type == PeftType.PREFIX_TUNING:
        return embeddings, seen, positions + first, prompt
    own = seen.new_ones(first, first + length).tril().expand(rows, 1, -1, -1)
    places = torch.arange(first, device=positions.device).expand(rows, -1)
    return (
        torch.cat([prompt.to(embeddings.dtype), embeddings], dim=1),
        torch.cat([own, seen], dim=2),
        torch.cat([places, positions + first], dim=1),
        None,
    )


class Reconstructor(nn.Module):
    """Rebuilds every patch's features from the image's tokens, so that little is squeezed out.

    Each patch's position asks the tokens by one cross-attention; it is used in training only.
    """

    def __init__(self, text_dim: int, vision_dim: int, place_dim: int, width: int = 256):
        super().__init__()
        self.query = nn.Linear(place_dim, width)
        self.key_value = nn.Linear(text_dim, 2 * width)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vision_dim))

    def forward(self, tokens: Tensor, positions: Tensor, features: Tensor) -> Tensor:
        """[b]: mean of 1 - cosine over patches: 0 where all is kept, 1 where nothing is."""
        key, value = self.key_value(functional.layer_norm(tokens, tokens.shape[-1:])).chunk(2, -1)
        query = self.query(fourier(positions)).expand(len(tokens), -1, -1).to(key.dtype)
        rebuilt = self.out(functional.scaled_dot_product_attention(query, key, value))
        alike = functional.cosine_similarity(rebuilt.float(), features.float(), dim=-1)
        return (1 - alike).mean(-1)
