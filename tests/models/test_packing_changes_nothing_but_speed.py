"""Image-once packing: the same loss and gradients as one question at a time, fed plainly."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.data.example import Example
from models.examples import examples_of
from models.losses import answer_logits
from models.packing import IGNORED, collate
from models.progress import all_right
from models.stages import Recipe
from models.vlm import Vlm, build_model

RecipeMaker = Callable[..., Recipe]
SMALL = {"width": 16, "heads": 2}
CONNECTORS: dict[str, dict[str, Any]] = {
    "spatial3d": {"hidden": 16},
    "cross_attention": SMALL,
    "gated_cross_attention": {"tokens": {"name": "linear"}, "blocks": 2, **SMALL},
    "fusion": {"depth": 2, **SMALL},
}


@pytest.fixture(params=["llama", "gemma", *CONNECTORS])
def recipe(request: pytest.FixtureRequest, tiny_recipe: RecipeMaker, tiny_gemma: Path) -> Recipe:
    """Gemma brings a <bos> before the image, and two kinds of attention layer; spatial3d takes all
    images of a row at once; the last three read the question, or reach into the layers."""
    gemma: dict[str, Any] = {"model": str(tiny_gemma), "bos": True}
    recipe = tiny_recipe(language_part=gemma if request.param == "gemma" else None)
    if settings := CONNECTORS.get(request.param):
        recipe = recipe.model_copy(update={"connector": {"name": request.param} | settings})
    return recipe


def features_of(model: Vlm, images: Sequence[Path]) -> Tensor:
    """Any features, the same for the same image."""
    found = []
    for image in images:
        generator = torch.Generator().manual_seed(int(image.parent.name.removeprefix("xmlab")))
        found.append(torch.randn(model.tower.patches, model.tower.dim, generator=generator))
    return torch.stack(found)


def plain_loss(model: Vlm, recipe: Recipe, example: Example) -> tuple[Tensor, int]:
    """One question as transformers takes it: embeddings and labels, its own mask and positions.

    Returns the summed loss of the answer's tokens, and their number.
    """
    asked = model.text_ids(recipe.prompt.format(question=example.question))
    answered = [*model.text_ids(" " + example.answer), model.tokenizer.eos_token_id]
    features = features_of(model, example.images)
    counts = [len(example.images)]
    image = model.placed(model.image_embeddings(features, counts), counts, [torch.tensor(asked)])
    text = model.text_embeddings(torch.tensor([[*model.bos, *asked, *answered]]))
    start = len(model.bos)
    embeddings = torch.cat([text[:, :start], image[None], text[:, start:]], dim=1)
    before = start + len(image) + len(asked)
    labels = torch.tensor([[IGNORED] * before + answered])
    mean = model.language(inputs_embeds=embeddings, labels=labels).loss
    return mean * len(answered), len(answered)


def gradients_of(model: Vlm) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def test_packed_rows_have_the_loss_and_every_gradient_of_plain_questions(
    recipe: Recipe, drawn_slake: Path
) -> None:
    """Each question sees its image and itself, at the positions it would have had alone."""
    model = build_model(recipe).float()
    for name, parameter in model.connector.named_parameters():
        if name.endswith("_gate"):  # closed, they would hide all that is behind them
            torch.nn.init.constant_(parameter, 0.5)
    examples = examples_of(recipe.stage[0].data, drawn_slake)
    first, second = examples[0].images[0], examples[2].images[0]
    examples += [replace(example, images=(first, second)) for example in examples[:3]]
    rows = model.packed(examples, recipe.prompt)
    assert (len(rows), len(examples)) == (19 if model.fuses else 9, 19)

    features = torch.cat([features_of(model, row.images) for row in rows])
    logits, labels, _ = answer_logits(model, collate(rows, 0), features)
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    gradients = gradients_of(model)
    plain = [plain_loss(model, recipe, example) for example in examples]
    expected = torch.stack([one for one, _ in plain]).sum() / sum(count for _, count in plain)
    expected.backward()
    plain_gradients = gradients_of(model)

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    assert gradients.keys() == plain_gradients.keys() and len(gradients) > 10
    for name, gradient in gradients.items():
        error = (gradient - plain_gradients[name]).norm() / plain_gradients[name].norm()
        assert error < 1e-4, name


def test_only_answers_are_learned_and_each_ends(recipe: Recipe, drawn_slake: Path) -> None:
    """The labels of a row, read together, are its answers, each closed by the end token."""
    model = build_model(recipe)

    row = model.packed(examples_of(recipe.stage[0].data, drawn_slake), recipe.prompt)[0]

    assert model.tokenizer.decode(row.labels[row.labels != IGNORED]) == (
        " red<end>" if model.fuses else " red<end> True<end>"
    )


def test_an_answer_is_right_where_every_token_and_its_end_are() -> None:
    """Three answers, each closed by token 0: right, wrong in its first token, without its end."""
    labels = torch.tensor([1, 2, 0, 3, 0, 4, 0])
    likeliest = torch.tensor([1, 2, 0, 4, 0, 4, 4])

    assert all_right(likeliest != labels, labels, end=0) == [True, False, False]
