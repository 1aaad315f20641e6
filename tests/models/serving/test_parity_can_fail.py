"""Parity of transformers and vLLM: equal, a near-tie, a gap, and an end that comes sooner."""

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.data.example import Example
from models.data.pixels import open_rgb
from models.parts.vlm import Vlm, build_model
from models.parts.whole import load_whole
from models.recipe import Recipe
from models.serving.parity import Comparison, Parity, ParityError, compare
from models.training.inputs.examples import examples_of
from tests.mock_vllm import MockVllm
from tests.tiny_vlm import save_qwen

Vllm = Callable[..., MockVllm]
LENGTH = 32
EQUAL = Comparison(Example("q", Path("i"), "?", "!", "en", True), "!", "!", None)


@pytest.fixture
def model(tiny_recipe: Callable[..., Recipe]) -> Vlm:
    return build_model(tiny_recipe()).float()


def parity_with(
    model: Vlm, vllm: Vllm, data: Path, recipe: Recipe, change: Callable[[list[int]], list[int]],
    gap: float,
) -> Parity:  # fmt: skip
    """One question, to which vLLM says what transformers says, changed; every token by `gap`."""
    example = examples_of(recipe.validation, data)[0]
    images = [Image.open(path) for path in example.images]
    ids = change(model.answer(images, recipe.prompt.format(question=example.question), LENGTH))
    best = [{"top_logprobs": [{"logprob": -0.1}, {"logprob": -0.1 - gap}]}] * len(ids)
    reply = {"choices": [{"token_ids": ids, "logprobs": {"content": best}}]}
    server = vllm(raw=json.dumps(reply).encode())
    return compare(model, server.url, "tiny", recipe.prompt, [example] * 20)


@pytest.mark.parametrize("kind", ["parts", "whole"])
def test_an_answer_is_the_likeliest_whatever_its_publisher_prefers(
    kind: str, tiny_recipe: Callable[..., Recipe], tiny_language: Path, tmp_path: Path
) -> None:
    """Qwen's generation_config makes rarer what was said before, which vLLM is told to leave."""

    def answers(published: Path) -> list[int]:
        if kind == "whole":
            return load_whole(published, torch.float32).answer(images, "Which colour?", LENGTH)
        recipe = tiny_recipe(language_part={"model": str(published)})
        return build_model(recipe, torch.float32).answer(images, "Which colour?", LENGTH)

    images, folder = [Image.new("RGB", (56, 56), "red")], tmp_path / "published"
    if kind == "whole":
        save_qwen(folder)
    else:
        shutil.copytree(tiny_language, folder)
    plain, path = answers(folder), folder / "generation_config.json"
    told = json.loads(path.read_text())
    assert len(set(plain)) < len(plain)

    path.write_text(json.dumps(told | {"repetition_penalty": 50.0}))

    assert answers(folder) == plain


def test_the_same_tokens_are_parity(
    model: Vlm, vllm: Vllm, drawn_slake: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    parity = parity_with(model, vllm, drawn_slake, tiny_recipe(), lambda ids: ids, gap=9)

    assert parity.holds and parity.differing == []


@pytest.mark.parametrize(
    "change",
    [lambda ids: [*ids[:3], ids[3] + 1, *ids[4:]], lambda ids: ids[:3]],
    ids=["another token", "an end that comes sooner"],
)
def test_what_differs_beyond_a_near_tie_is_none(
    model: Vlm,
    vllm: Vllm,
    drawn_slake: Path,
    tiny_recipe: Callable[..., Recipe],
    change: Callable[[list[int]], list[int]],
) -> None:
    """Nor are near-ties, where they are more than two of twenty."""
    far = parity_with(model, vllm, drawn_slake, tiny_recipe(), change, gap=0.08)
    near = parity_with(model, vllm, drawn_slake, tiny_recipe(), change, gap=0.0625)

    assert not far.holds and not near.holds
    assert [round(each.gap or 0, 3) for each in near.differing] == [0.062] * 20
    assert Parity((*near.differing[:2], *[EQUAL] * 18)).holds
    assert not Parity((*near.differing[:3], *[EQUAL] * 17)).holds
    assert not Parity((far.differing[0], *[EQUAL] * 19)).holds


def test_a_server_is_shown_what_transformers_sees(
    model: Vlm, vllm: Vllm, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    """Not the file: of 16 bits, say, it would make another picture than ours."""
    deep = tmp_path / "deep.png"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 9).save(deep)
    server = vllm(raw=b"{}", status=500)

    with pytest.raises(ParityError):
        compare(
            model, server.url, "tiny", tiny_recipe().prompt,
            [Example("1", (deep,), "?", "yes", "en", closed=True)],
        )  # fmt: skip

    sent = server.requests[-1]["messages"][0]["content"][0]["image_url"]["url"]
    shown = Image.open(io.BytesIO(base64.b64decode(sent.partition(",")[2])))
    assert shown.tobytes() == open_rgb(deep).tobytes()


def test_a_server_that_refuses_is_no_parity(
    model: Vlm, vllm: Vllm, drawn_slake: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe()
    server = vllm(raw=b"{}", status=500)

    with pytest.raises(ParityError, match="did not answer"):
        compare(
            model, server.url, "tiny", recipe.prompt, examples_of(recipe.validation, drawn_slake)
        )
