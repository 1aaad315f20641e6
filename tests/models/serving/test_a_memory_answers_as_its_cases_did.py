"""A worker that remembers: made of drawn cases, served over HTTP, asked by a gateway."""

import base64
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from gateway.settings import Settings, load_settings
from models.data.example import DataError
from models.exported import MEMORY, served_name
from models.recipe import load_any_recipe, load_recipe
from models.recipe.programme import RecipeError
from models.serving.export import ExportError, remember, served_folder
from models.serving.memory import CASES, Memory, Wordings
from models.serving.memory_server import create_app, main
from services.running.beforehand.check import check
from services.running.beforehand.plan import needs, plan
from services.running.deploying.compose import compose
from services.running.engine import (
    EngineError,
    arguments_of,
    engines,
    gpu_shares,
    launch,
    model_folder,
)
from tests import tiny
from tests.conftest import listening


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, drawn_slake: Path) -> Path:
    """A memory of eight drawn images, two questions each."""
    folder = tmp_path_factory.mktemp("memory")
    recipe = tiny.write_toml(tiny.memory(), folder / "tiny.toml")
    return remember(str(recipe), drawn_slake, folder / "zoo")


@pytest.fixture(scope="module")
def url(zoo: Path) -> Iterator[str]:
    folder = served_folder(zoo)
    with listening(create_app(Memory(folder), "w0", folder)) as address:
        yield address


@pytest.fixture
def asked(
    url: str, gateway: Callable[..., str], drawn_slake: Path
) -> Callable[..., dict[str, Any]]:
    """What the memory answers a gateway about the drawn image of that number."""
    panel = gateway([url])

    def ask(number: int, question: str, **more: Any) -> dict[str, Any]:
        image = drawn_slake / "slake" / "imgs" / f"xmlab{number}" / "source.jpg"
        case = {"question": question, "images": [base64.b64encode(image.read_bytes()).decode()]}
        verdict = httpx.post(f"{panel}/vqa", json=case | more).raise_for_status().json()
        answer: dict[str, Any] = verdict["answers"][0]
        return answer

    return ask


@pytest.mark.parametrize(("number", "colour"), [(8, "red"), (9, "green"), (10, "blue")])
def test_a_case_is_answered_as_the_most_alike_one_was(
    number: int, colour: str, asked: Callable[..., dict[str, Any]]
) -> None:
    """About an image that it does not know; the cases that it goes by are shown, and what others
    of them say is told as what it came near to saying."""
    answer = asked(number, "which colour")

    assert answer["text"] == colour and answer["error"] is None
    first = answer["remembers"][0]
    assert (first["question"], first["answer"]) == ("Which colour?", colour)
    assert first["id"].startswith("slake/train-")
    assert 0.5 < answer["confidence"] < first["likeness"] <= 1
    assert sum(a["probability"] for a in answer["alternatives"]) + answer["confidence"] < 1


def test_what_is_like_nothing_is_answered_and_not_believed(
    asked: Callable[..., dict[str, Any]],
) -> None:
    """A question of words that it never heard, in a language that it was never asked in."""
    answer = asked(8, "Où est le foie?")

    assert answer["text"]
    assert answer["confidence"] < 0.01


@pytest.mark.parametrize(
    ("choices", "text", "confidence"),
    [
        (["GREEN", "red"], "red", (0.5, 1.0)),
        (["green", " Red"], "Red", (0.5, 1.0)),
        (["north", "south"], "north", (0.49, 0.51)),
    ],
)
def test_choices_are_chosen_from(
    choices: list[str],
    text: str,
    confidence: tuple[float, float],
    asked: Callable[..., dict[str, Any]],
) -> None:
    """In the caller's spelling; where it knows none of them, each is as likely."""
    answer = asked(8, "Which colour?", choices=choices)

    assert answer["text"].strip() == text
    assert confidence[0] < answer["confidence"] < confidence[1]


def test_what_is_known_of_the_patient_does_not_change_which_question_it_is(
    asked: Callable[..., dict[str, Any]],
) -> None:
    plain, with_context = (
        asked(8, "Which colour?", context=context) for context in (None, "Is it red? It is.")
    )

    # The panel file's prompt begins with a word that is then on another line.
    assert with_context["text"] == plain["text"] == "red"
    assert [c["id"] for c in with_context["remembers"]] == [c["id"] for c in plain["remembers"]]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        ([], 400, "Send one image: a memory looks at one, not 0."),
        ([IMAGE, IMAGE], 400, "Send one image: a memory looks at one, not 2."),
        ([IMAGE], 400, "Cannot read the image: send a PNG or JPEG as base64."),
        ([{"type": "image_url", "image_url": {"url": ",é"}}], 400, "Cannot read the image: send a"),
        ([{"type": "video_url"}], 422, "body.messages.0.content.0.type: Input should be 'text' or"),
    ],
)
def test_what_it_cannot_take_is_one_sentence(
    content: list[Any], status: int, says: str, url: str
) -> None:
    """Without a word of the case: FastAPI's own reply would quote it."""
    content = [*content, {"type": "text", "text": "secret"}]

    reply = httpx.post(f"{url}/v1/chat/completions", json={"messages": [{"content": content}]})

    assert reply.status_code == status
    assert reply.json()["detail"].startswith(says)
    assert "secret" not in reply.text


def test_it_tells_what_it_serves_and_how_it_is(url: str, zoo: Path, gateway: Any) -> None:
    """As vLLM does: so an evaluation finds the recipe, and what was remembered."""
    seat = httpx.get(f"{gateway([url])}/panel").json()["workers"][0]

    assert (seat["reachable"], seat["model"]) == (True, served_name(zoo))
    metrics = httpx.get(f"{url}/metrics", follow_redirects=True)
    assert metrics.status_code == 200 and "process_resident_memory_bytes" in metrics.text


def test_a_memory_of_another_towers_features_is_refused(zoo: Path, tmp_path: Path) -> None:
    """By what it was made with, before it is served, and by its shape when it is loaded."""
    for name in (MEMORY, CASES, "recipe.toml"):
        (tmp_path / name).write_bytes((zoo / name).read_bytes())
    (tmp_path / "base.json").write_text((zoo / "base.json").read_text().replace('6": "', '6": "0'))
    with pytest.raises(ExportError, match=r"made with\. Make it anew: consilium remember tiny"):
        served_folder(tmp_path)

    served = served_folder(zoo)
    for name in (CASES, "config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((served / name).read_bytes())
    tensors = load_file(zoo / MEMORY)
    tensors["basis"] = tensors["basis"][1:].clone()
    save_file(tensors, tmp_path / MEMORY)
    with pytest.raises(ValueError, match=r"features 1279 wide, and its tower's are 1280: make it"):
        Memory(tmp_path)


@pytest.mark.parametrize("name", [MEMORY, CASES, "model.safetensors"])
def test_a_memory_whose_file_was_cut_short_is_one_sentence(
    name: str, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the server too, in whose log it stands."""
    folder = Path(shutil.copytree(served_folder(zoo), tmp_path / "served"))
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    words = ["memory_server", "--model", str(folder), "--served-model-name", "w0", "--port", "1"]
    monkeypatch.setattr(sys, "argv", words)

    with pytest.raises(SystemExit, match=f"{name} is broken or cut short.* consilium remember"):
        main()


@pytest.mark.parametrize("images", [1, 2])
def test_a_memory_may_be_of_one_or_two_images(
    images: int, drawn_slake: Path, tmp_path: Path
) -> None:
    """Pictures of one colour each, of whose features few are not nought."""
    rows = ["id,images,question,answer"]
    for n, colour in enumerate(["black", "red"][:images]):
        Image.new("RGB", (16, 16), colour).save(tmp_path / f"{n}.png")
        rows.append(f"{n},{n}.png,Which colour?,{colour}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    own = {"set": str(tmp_path / "own.csv"), "split": "all", "languages": ["en"]}
    file = tiny.write_toml(tiny.memory() | {"remembers": [own]}, tmp_path / "tiny.toml")

    memory = Memory(served_folder(remember(str(file), tmp_path, tmp_path / "zoo")))

    for n, colour in enumerate(["black", "red"][:images]):
        seen = memory.look_at(Image.open(tmp_path / f"{n}.png").convert("RGB"))
        assert next(iter(memory.recall(seen, "Which colour?").answers)) == colour


def test_a_memory_that_lacks_a_file_is_one_sentence(zoo: Path, tmp_path: Path) -> None:
    for name in (MEMORY, "recipe.toml", "base.json"):
        (tmp_path / name).write_bytes((zoo / name).read_bytes())

    with pytest.raises(ExportError, match=r"lacks cases\.json: make it anew with consilium"):
        served_folder(tmp_path)


def test_its_card_says_what_it_holds_and_scores_go_with_what_was_scored(
    zoo: Path, drawn_slake: Path
) -> None:
    (zoo / "scores.json").write_text('[{"on": "a test", "score": "50 %", "command": "measure"}]')

    remember(str(zoo / "recipe.toml"), drawn_slake, zoo)

    card = (zoo / "README.md").read_text("utf-8")
    assert "16 cases about 8 images: 2 questions, 6 answers" in card
    assert "SLAKE (Liu et al. 2021), CC BY 4.0: split `train`, en" in card and "50 %" in card
    assert (zoo / MEMORY).stat().st_mode & 0o777 == 0o644


@pytest.fixture
def seated(zoo: Path, tmp_path: Path) -> Callable[..., Settings]:
    """A panel of a memory and a model; `more` are lines of the memory's seat."""

    def settings(more: str = "") -> Settings:
        panel = tmp_path / "panel.toml"
        seats = (("memory", str(zoo), more), ("model", "no-such/model", "memory_gb = 4"))
        panel.write_text(
            "\n".join(
                f'[[worker]]\nname = "{name}"\nfamily = "f"\nmodel = "{model}"\n'
                f'prompt = "{{question}}"\n{lines}'
                for name, model, lines in seats
            )
        )
        return load_settings(panel, {})

    return settings


def test_what_lies_in_its_folder_says_how_it_is_started(
    seated: Callable[..., Settings], zoo: Path
) -> None:
    settings = seated()
    folder = model_folder(settings, "memory")

    command = launch(settings, "memory", folder, host="0.0.0.0").command

    assert command[1:] == (
        *("-m", "models.serving.memory_server", "--model", str(folder)),
        *("--served-model-name", "memory", "--host", "0.0.0.0", "--port", "8101"),
    )
    assert folder.name == served_name(zoo)
    other = launch(settings, "model", folder).command
    assert other[2] == "vllm.entrypoints.openai.api_server"


def test_it_takes_no_gpu(seated: Callable[..., Settings]) -> None:
    """None is planned for it, shared with it or reserved for its container."""
    import yaml

    settings, lines = seated(), list[str]()

    assert check(settings, lines.append) and lines[0].endswith("all of it on this machine")
    assert list(needs(settings)) == list(gpu_shares(engines(settings))) == ["model"]
    assert "memory  no gpu" in plan(settings, (24,))
    services = yaml.safe_load(compose(settings))["services"]
    containers = [services[f"worker-memory-{profile}"] for profile in ("gpu", "one-gpu", "cpu")]
    assert not any("deploy" in each for each in containers)
    assert containers[0]["command"] == ["consilium", "worker", "memory", "--host", "0.0.0.0"]
    assert services["worker-model-gpu"]["deploy"]
    assert set(services["gateway"]["depends_on"]) >= {"worker-memory-gpu", "worker-memory-one-gpu"}


@pytest.mark.parametrize("key", ["engine = { dtype = 'auto' }", "memory_gb = 1", "max_images = 2"])
def test_a_seat_that_asks_more_of_it_is_refused(key: str, seated: Callable[..., Settings]) -> None:
    with pytest.raises(EngineError, match=f"looks at one image; remove {key.split(' ')[0]}"):
        arguments_of(seated(key), "memory")


def test_what_is_trained_is_not_remembered_and_the_other_way_round(
    drawn_slake: Path, tmp_path: Path, zoo: Path
) -> None:
    with pytest.raises(RecipeError, match="recipe mobilenet remembers nothing: consilium train"):
        remember("mobilenet", drawn_slake, tmp_path)
    with pytest.raises(RecipeError, match=r"nothing to train: consilium remember .*recipe\.toml"):
        load_recipe(zoo / "recipe.toml")
    content = tiny.memory() | {"remembers": [tiny.DATA | {"copies": 2}]}
    with pytest.raises(RecipeError, match="copies: an image is remembered as it is"):
        load_any_recipe(tiny.write_toml(content, tmp_path / "copies.toml"))


def test_a_tower_that_there_is_not_is_told_before_anything_is_read(tmp_path: Path) -> None:
    tower = tiny.memory()["tower"] | {"name": "mobilnet"}
    recipe = tiny.write_toml(tiny.memory() | {"tower": tower}, tmp_path / "tiny.toml")

    with pytest.raises(RecipeError, match="recipe tiny: tower: timm has no tower 'mobilnet'"):
        remember(str(recipe), tmp_path / "no data", tmp_path / "zoo")


def test_a_memory_by_folds_says_so(drawn_slake: Path, tmp_path: Path) -> None:
    content = tiny.memory() | {"remembers": [tiny.DATA | {"folds": 2}], "fold": 1}
    recipe = tiny.write_toml(content, tmp_path / "tiny.toml")

    kept = remember(str(recipe), drawn_slake, tmp_path / "zoo")

    card = (kept / "README.md").read_text("utf-8")
    assert "split `train`, all but one of 2 folds by image, en" in card
    assert "8 cases about 4 images" in card


def test_answers_that_differ_in_capitals_and_blanks_are_one(
    zoo: Path, drawn_slake: Path, tmp_path: Path
) -> None:
    """Its own cases hold an answer spelled in two ways: what speaks for either speaks for both."""
    folder = shutil.copytree(served_folder(zoo), tmp_path / "served")
    content = json.loads((folder / CASES).read_text())
    red = content["answers"].index("red")
    content["answers"].append("RED ")
    cases = [case for case in content["cases"] if case[3] == red]
    cases[0][3] = len(content["answers"]) - 1
    (folder / CASES).write_text(json.dumps(content))
    image = Image.open(drawn_slake / "slake" / "imgs" / "xmlab8" / "source.jpg")

    before, after = Memory(served_folder(zoo)), Memory(folder)
    asked = [
        (each, each.recall(each.look_at(image), "Which colour?", choices))
        for choices in ((), ("Red", "green"))
        for each in (before, after)
    ]

    assert len(cases) > 1
    for (_, one), (_, other) in (asked[:2], asked[2:]):
        plain = [
            {k.casefold().strip(): v for k, v in each.answers.items()} for each in (one, other)
        ]
        assert plain[0] == pytest.approx(plain[1])
        assert len(one.answers) == len(other.answers)


def test_a_case_of_several_images_is_not_remembered(tmp_path: Path) -> None:
    data = tiny.draw_abdomens(tmp_path)
    stacks = {"set": "slake_synthetic_stacks", "split": "train", "languages": ["en"]}
    recipe = tiny.write_toml(tiny.memory() | {"remembers": [stacks]}, tmp_path / "tiny.toml")

    with pytest.raises(DataError, match="has several images: only cases of one image"):
        remember(str(recipe), data, tmp_path / "zoo")


def test_wordings_are_as_alike_as_what_they_share_is_rare() -> None:
    """Case, marks and order of nothing but words count; Chinese is read by its characters."""
    asked = ["Is the liver healthy?", "Is the lung healthy?", "Where is the spleen?", "肝在哪里？"]
    wordings = Wordings(asked)

    first = wordings.likeness("is the LIVER healthy")
    assert first[0] == pytest.approx(1) and 1 > first[1] > first[2] > first[3] == 0
    chinese = wordings.likeness("肺在哪里?")
    assert 0.3 < chinese[3] < 1 and not chinese[:3].any()
    assert not wordings.likeness("?").any()
