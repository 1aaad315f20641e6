"""Image-once packing: the same loss and gradients as one question at a time, fed plainly."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

# isort: split
from tokenizers import Tokenizer, normalizers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForCausalLM,
    BioGptConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
)

from models.data.example import Example
from models.parts.packing import IGNORED, collate
from models.parts.vlm import Vlm, build_model
from models.parts.words import answer_ids
from models.recipe import Recipe
from models.training.inputs.examples import examples_of
from models.training.learning.losses import answer_logits
from models.training.record.progress import all_right
from tests.tiny import save_tokenizer

RecipeMaker = Callable[..., Recipe]
SMALL = {"width": 16, "heads": 2}
CONNECTORS: dict[str, dict[str, Any]] = {
    "spatial3d": {"hidden": 16},
    "cross_attention": SMALL,
    "gated_cross_attention": {"tokens": {"name": "linear"}, "blocks": 2, **SMALL},
    "fusion": {"depth": 2, **SMALL},
}
# Language models whose places are learned: their layers are called and named otherwise.
LEARNED_PLACES: dict[str, Any] = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "biogpt": BioGptConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    ),
}


@pytest.fixture(params=["llama", "gemma", *LEARNED_PLACES, *CONNECTORS])
def recipe(
    request: pytest.FixtureRequest, tiny_recipe: RecipeMaker, tiny_gemma: Path, tmp_path: Path
) -> Recipe:
    """Gemma brings a <bos> before the image, and two kinds of attention layer; spatial3d takes all
    images of a row at once; the last three read the question, or reach into the layers."""
    name: str = request.param
    language: dict[str, Any] | None = None
    connector = CONNECTORS.get(name)
    if name == "gemma":
        language = {"model": str(tiny_gemma), "bos": True}
    elif name in LEARNED_PLACES:
        language = {"model": str(saved(LEARNED_PLACES[name], tmp_path / name))}
        name, connector = "gated_cross_attention", CONNECTORS["gated_cross_attention"]
    recipe = tiny_recipe(language_part=language)
    return recipe.model_copy(update={"connector": {"name": name} | connector} if connector else {})


def saved(config: Any, folder: Path) -> Path:
    """A folder with a fresh model of that kind, and the tokenizer of single bytes."""
    config.vocab_size = save_tokenizer(folder)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


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
        error = (gradient - plain_gradients[name]).norm()
        # A bias of all keys alike moves nothing: its gradient is rounding alone.
        assert error < 1e-4 * plain_gradients[name].norm() + 1e-7, name


def test_only_answers_are_learned_and_each_ends(recipe: Recipe, drawn_slake: Path) -> None:
    """The labels of a row, read together, are its answers, each closed by the end token."""
    model = build_model(recipe)

    row = model.packed(examples_of(recipe.stage[0].data, drawn_slake), recipe.prompt)[0]

    assert model.tokenizer.decode(row.labels[row.labels != IGNORED]) == (
        " red<end>" if model.fuses else " red<end> True<end>"
    )


def test_an_answer_begins_with_its_own_word_whatever_stands_before_a_text() -> None:
    """Mistral's tokenizer puts a blank before any text: with the one that parts an answer from its
    prompt there would be two, a token that every answer began with."""
    letters = ["<unk>", "▁", *":yesno"]
    merges = [("▁", "▁"), ("e", "s"), ("y", "es"), ("▁", "yes"), ("n", "o"), ("▁", "no")]
    pieces = dict.fromkeys([*letters, *map("".join, merges)])
    known = {piece: number for number, piece in enumerate(pieces)}
    raw = Tokenizer(tokenizer_models.BPE(known, merges, unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")

    taught = [answer_ids(tokenizer, answer) for answer in ("yes", "no", "no yes")]

    assert list(map(tokenizer.convert_ids_to_tokens, taught)) == [
        ["▁yes"],
        ["▁no"],
        ["▁no", "▁yes"],
    ]


def test_an_answer_is_right_where_every_token_and_its_end_are() -> None:
    """Three answers, each closed by token 0: right, wrong in its first token, without its end."""
    labels = torch.tensor([1, 2, 0, 3, 0, 4, 0])
    likeliest = torch.tensor([1, 2, 0, 4, 0, 4, 4])

    assert all_right(likeliest != labels, labels, end=0) == [True, False, False]
