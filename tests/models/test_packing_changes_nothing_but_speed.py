"""Image-once packing: the same loss and gradients as one row per question."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from models.losses import answer_logits
from models.packing import IGNORED, Row, collate, pack
from models.stages import Recipe
from models.training import build_model, examples_of
from models.vlm import Vlm


def rows_of(model: Vlm, recipe: Recipe, data: Path, max_questions: int) -> list[Row]:
    return pack(
        examples_of(recipe.stage[0].data, data),
        model.text_ids,
        recipe.prompt,
        model.tokenizer.eos_token_id,
        model.bos,
        model.image_tokens,
        max_questions,
    )


def loss_and_gradients(model: Vlm, rows: list[Row]) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator()
    features = []
    for row in rows:  # the same features for the same image, in whatever row it stands
        generator.manual_seed(int(row.image.parent.name.removeprefix("xmlab")))
        features.append(torch.randn(model.tower.patches, model.tower.dim, generator=generator))
    model.zero_grad()
    logits, labels, _ = answer_logits(model, collate(rows, 0), torch.stack(features))
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    return loss.detach(), {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


def test_packed_rows_have_the_loss_and_every_gradient_of_single_ones(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path
) -> None:
    """Each question sees its image and itself, at the positions it would have had alone."""
    recipe = tiny_recipe()
    model = build_model(recipe).float()
    packed = rows_of(model, recipe, drawn_slake, max_questions=16)
    single = rows_of(model, recipe, drawn_slake, max_questions=1)
    assert (len(packed), len(single)) == (8, 16)

    loss, gradients = loss_and_gradients(model, packed)
    plain_loss, plain_gradients = loss_and_gradients(model, single)

    torch.testing.assert_close(loss, plain_loss, rtol=1e-5, atol=0)
    assert gradients.keys() == plain_gradients.keys() and len(gradients) > 10
    for name, gradient in gradients.items():
        error = (gradient - plain_gradients[name]).norm() / plain_gradients[name].norm()
        assert error < 1e-4, name


def test_only_answers_are_learned_and_each_ends(
    tiny_recipe: Callable[..., Recipe], drawn_slake: Path
) -> None:
    """The labels of a row, read together, are its answers, each closed by the end token."""
    recipe = tiny_recipe()
    model = build_model(recipe)

    row = rows_of(model, recipe, drawn_slake, max_questions=16)[0]

    assert model.tokenizer.decode(row.labels[row.labels != IGNORED]) == " red<end> True<end>"
