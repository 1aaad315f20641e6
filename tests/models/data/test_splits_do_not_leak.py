"""No image and no near-duplicate on both sides of a split."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydantic import ValidationError

from models.data import image_hashes, slake, splits, vqa_rad
from models.data.example import DataError, Example, without_images
from models.data.pixels import open_rgb, pixel_hash
from models.recipe import MemoryRecipe, Recipe, load_any_recipe, load_recipe
from models.recipe.programme import RecipeError
from models.recipe.stage import Source
from models.training.crossval import crossval
from models.training.inputs.examples import examples_of, examples_to_learn, learned_by, spelled_as
from models.training.record.checkpoints import CheckpointError
from tests import tiny


def example(*images: Path, id: str = "1") -> Example:
    return Example(id, images, "?", "yes", "en", closed=True)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    image = Image.linear_gradient("L").resize((64, 64))
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill=200)
    image.save(tmp_path / "film.png")
    return tmp_path / "film.png"


def test_the_same_pixels_in_another_format_are_refused(film: Path) -> None:
    copy = film.with_suffix(".tiff")
    with Image.open(film) as image:
        image.save(copy)
    with pytest.raises(DataError, match=r"film\.tiff is also a training image \(.*film\.png\)"):
        splits.refuse_shared_images([example(film)], [example(copy)])


def test_an_image_is_decoded_once_and_anew_where_its_file_is_another(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever became of what was kept, which names no file."""
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path / "cache"))
    decoded: list[Path] = []
    monkeypatch.setattr(
        image_hashes, "open_rgb", lambda path: decoded.append(path) or open_rgb(path)
    )
    first = image_hashes.pixel_hashes([film, film])
    assert image_hashes.pixel_hashes([film]) == first and decoded == [film]
    assert splits.near_duplicates([film]) == [] and decoded == [film]
    kept = tmp_path / "cache" / "image_hashes.json"
    assert "film" not in kept.read_text()
    Image.new("L", (64, 64)).save(film)
    assert image_hashes.pixel_hashes([film]) != first
    for broken in (b'{"half', b'{"a": "of an older reader"}'):
        kept.write_bytes(broken)
        assert image_hashes.pixel_hashes([film])[film] == pixel_hash(open_rgb(film))


def test_a_reencoded_copy_is_a_near_duplicate_and_a_turned_one_is_not(film: Path) -> None:
    with Image.open(film) as image:
        image.save(film.with_name("again.jpg"), quality=60)
        image.rotate(90).save(film.with_name("turned.png"))
    images = [film, film.with_name("again.jpg"), film.with_name("turned.png")]

    splits.refuse_shared_images([example(film)], [example(images[1])])
    (pair,) = splits.near_duplicates(images)

    assert set(pair[:2]) == {film, images[1]} and pair[2] <= splits.NEAR


def test_folds_hold_everything_once_and_keep_together_what_is_alike(dataset: Path) -> None:
    examples = vqa_rad.load(dataset / "vqa_rad", "train", "en")
    parts = splits.folds(examples, 5, seed=0)

    assert sorted(e.id for part in parts for e in part) == sorted(e.id for e in examples)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) < 0.02 * len(examples)
    fold_of = {image: n for n, part in enumerate(parts) for e in part for image in e.images}
    pairs = splits.near_duplicates(fold_of)
    assert pairs and all(fold_of[one] == fold_of[other] for one, other, _ in pairs)
    assert parts == splits.folds(examples, 5, seed=0) != splits.folds(examples, 5, seed=1)
    with pytest.raises(DataError, match="2 groups of images cannot be split into 3 folds"):
        splits.folds([example(*_first(examples, 0)), example(*_first(examples, -1))], 3, seed=0)


def test_a_recipes_fold_is_held_out_and_all_others_are_learned(
    dataset: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    """Every question of VQA-RAD is validated on in one fold and trained on in the others."""
    rad = {"set": "vqa_rad", "split": "all", "languages": ["en"], "folds": 5}
    recipe = (
        tiny_recipe(data=[rad], validation=[rad]).model_copy(update={"validation": ()}).of_fold(2)
    )
    official = vqa_rad.load(dataset / "vqa_rad", "all", "en")
    whole = {f"vqa_rad/{e.id}" for e in official if e.answer}

    held_out = examples_of(recipe.held_out, dataset, recipe.fold, held_out=True)
    learned = examples_of(recipe.stage[0].data, dataset, recipe.fold)

    assert {e.id for e in held_out} | {e.id for e in learned} == whole
    assert len(held_out) + len(learned) == len(whole)
    splits.refuse_shared_images(learned, held_out)
    assert recipe.name == "tiny-fold2"
    with pytest.raises(RecipeError, match="fold 5 of 5: they are counted from 0"):
        recipe.of_fold(5)
    with pytest.raises(RecipeError, match="no validation data is in folds"):
        tiny_recipe().of_fold(0)


def in_folds(recipe: Recipe, count: int) -> Recipe:
    """What its last stage learns from is in folds, wherever a stage learns from it."""
    asked = recipe.stage[-1].data

    def folded(sources: tuple[Source, ...]) -> tuple[Source, ...]:
        return tuple(
            source.model_copy(update={"folds": count}) if source in asked else source
            for source in sources
        )

    stages = tuple(s.model_copy(update={"data": folded(s.data)}) for s in recipe.stage)
    return recipe.model_copy(update={"stage": stages, "validation": folded(asked)})


def test_a_worker_in_folds_never_learns_from_a_held_out_image(dataset: Path) -> None:
    """Not in an earlier stage either: captions show the same images as the questions."""
    recipe = in_folds(load_recipe("efficientnet"), 3).of_fold(1)
    held_out = examples_of(recipe.validation, dataset, recipe.fold, held_out=True)
    shown = {image for e in held_out for image in e.images}
    captions, asked = recipe.stage[1].data[:1], recipe.stage[-1].data
    everything = {e.id: e.images for e in examples_of(captions, dataset)}
    learned = {e.id for e in examples_to_learn(captions, recipe, dataset)}
    assert learned == {id for id, images in everything.items() if shown.isdisjoint(images)}
    answered = examples_to_learn(asked, recipe, dataset)
    assert len(answered) + len(held_out) == len(
        examples_of(load_recipe("mobilenet").stage[0].data, dataset)
    )


def own_set(folder: Path, *rows: dict[str, str]) -> dict[str, Any]:
    """A source in `folder`, of questions about drawn images, each of another shade."""
    folder.mkdir()
    for row in rows:
        shade = zlib.crc32(f"{folder} {row['id']}".encode())
        noise = np.random.default_rng(shade).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{row['id']}.png")
    asked = [{"question": "?", "answer": "yes", "images": f"{row['id']}.png"} | row for row in rows]
    file = folder / f"{folder.name}.jsonl"
    file.write_text("\n".join(map(json.dumps, asked)))
    return {"set": str(file), "languages": ["en"]}


def test_other_images_of_a_held_out_patient_are_not_learned(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    """Though the set is named again, without folds; one of another set is another patient."""
    patients = [{"id": str(n), "patient": f"P{n}"} for n in range(4)]
    spanish = [{"id": f"es{n}", "patient": f"P{n}", "language": "es"} for n in range(4)]
    own = own_set(tmp_path / "first", *patients, *spanish, {"id": "es4", "language": "es"})
    folded, again = own | {"folds": 2}, own | {"languages": ["es"]}
    other = own_set(tmp_path / "second", *patients)
    recipe = tiny_recipe(data=[folded, again, other], validation=[folded])
    recipe = recipe.model_copy(update={"validation": ()})

    held_out = examples_of(recipe.held_out, tmp_path, held_out=True)
    learned = examples_to_learn(recipe.stage[0].data, recipe, tmp_path)

    first = [e for e in learned if e.id.startswith("first/")]
    assert {e.patient for e in held_out}.isdisjoint(e.patient for e in first)
    assert len(held_out) == 2 and len(first) == 2 + 3 and len(learned) - len(first) == 4


def test_a_fold_that_leaves_nothing_to_learn_is_told(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    spanish = {"id": "es", "patient": "P0", "language": "es"}
    own = own_set(
        tmp_path / "first", *({"id": f"{n}", "patient": f"P{n}"} for n in (0, 1)), spanish
    )
    folded, learned = own | {"folds": 2}, own | {"languages": ["es"]}
    recipe = tiny_recipe(data=[learned], validation=[folded]).model_copy(update={"validation": ()})
    told = []
    for fold in range(2):
        try:
            found = examples_to_learn(
                recipe.stage[0].data, recipe.model_copy(update={"fold": fold}), tmp_path
            )
        except DataError as error:
            told.append(str(error))
        else:
            assert [example.id for example in found] == ["first/es"]

    assert told == ["recipe tiny: all that it learns from is held out by its folds."]


def test_what_is_held_out_is_spelled_as_its_own_set_is_taught() -> None:
    def asked(id: str, answer: str, language: str = "en") -> Example:
        return Example(id, (Path("x"),), "?", answer, language, closed=True)

    learned = [asked("a/1", "Axial"), *[asked(f"b/{n}", "axial") for n in range(3)]]
    learned += [asked("a/2", "no", "es"), asked("a/3", "no", "es"), asked("a/4", "No")]
    held_out = [
        asked("a/5", "axial"),
        asked("b/5", "Axial"),
        asked("a/6", "no"),
        asked("c/1", "PA"),
    ]

    spelled = spelled_as(learned, held_out)

    assert [e.answer for e in spelled] == ["Axial", "axial", "No", "PA"]


def test_what_is_kept_of_a_run_tells_questions_apart(dataset: Path, tmp_path: Path) -> None:
    """Though MEDIQA asks the same encounters in three languages; two sets of one name are
    refused."""
    several = Source(set="mediqa_m3g", split="validate", languages=("en", "es", "zh"))
    first = own_set(tmp_path / "first", {"id": "1"})
    twin = tmp_path / "twin" / "first.jsonl"
    twin.parent.mkdir()
    twin.write_bytes(Path(first["set"]).read_bytes())
    (tmp_path / "first" / "1.png").rename(twin.with_name("1.png"))

    with without_images():
        ids = [example.id for example in examples_of([several], dataset)]

    assert len(set(ids)) == len(ids) == 3 * 56
    both = [Source(set=str(each), languages=("en",)) for each in (first["set"], twin)]
    with pytest.raises(DataError, match="are both called 'first': give one of the files another"):
        examples_of(both, dataset)


def test_a_memory_in_folds_keeps_no_held_out_image(dataset: Path) -> None:
    """Of VQA-RAD all that is not held out, or looks like it; of the other sets what they share
    with the fold is gone too."""
    recipe = load_any_recipe("rad-memory")
    assert isinstance(recipe, MemoryRecipe)
    other = recipe.model_copy(update={"fold": 3})
    held_out = examples_of(other.held_out, dataset, other.fold, held_out=True)

    kept = learned_by(other, dataset)

    assert len(held_out) > 500 and {e.id.partition("/")[0] for e in held_out} == {"vqa_rad"}
    assert {e.id.partition("/")[0] for e in kept} == {"slake", "vqa_med_2019", "vqa_rad"}
    assert not splits.near_duplicates_between(kept, held_out)
    assert {e.id for e in kept} != {e.id for e in learned_by(recipe, dataset)}
    with pytest.raises(ValidationError, match="fold 5 of 5: they are counted from 0"):
        MemoryRecipe.model_validate(recipe.model_dump() | {"fold": 5})


def test_what_another_set_shows_in_another_size_is_not_learned_either(
    film: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    """VQA-Med 2019 has images of VQA-RAD, and no pixel of them is the same."""
    data = tiny.draw_slake(film.parent)
    folded = tiny.DATA | {"folds": 2}
    other = {"set": "vqa_rad", "split": "train", "languages": ["en"]}
    recipe = tiny_recipe(data=[folded, other], validation=[folded])
    recipe = recipe.model_copy(update={"validation": ()})
    held_out = examples_of(recipe.held_out, data, recipe.fold, held_out=True)[0].images[0]
    (data / "vqa_rad" / "images").mkdir(parents=True)
    with Image.open(held_out) as image:
        image.resize((48, 48)).save(data / "vqa_rad" / "images" / "twin.png")
    film.rename(data / "vqa_rad" / "images" / "film.png")
    row = {"question": "?", "answer": "yes", "answer_type": "CLOSED", "question_type": "PRES"}
    rows = [row | {"qid": name, "image_name": f"{name}.png"} for name in ("twin", "film")]
    (data / "vqa_rad" / "trainset.json").write_text(json.dumps(rows))

    learned = {e.id for e in examples_to_learn(recipe.stage[0].data, recipe, data)}

    assert {id for id in learned if id.startswith("vqa_rad")} == {"vqa_rad/train-film"}
    assert len(learned) > 1  # and of SLAKE the other fold


def test_in_cross_validation_every_question_is_answered_once_by_a_run_that_did_not_see_it(
    drawn_slake: Path, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    drawn = tiny.DATA | {"folds": 2}
    recipe = tiny_recipe(data=[drawn], epochs=1)
    with pytest.raises(RecipeError, match="must all be in one number of folds"):
        crossval(recipe, drawn_slake, tmp_path)

    recipe = Recipe.model_validate(recipe.model_dump() | {"validation": [drawn]})
    scores = crossval(recipe, drawn_slake, tmp_path)

    checked = [
        set(json.loads(path.read_text()))
        for path in sorted(tmp_path.glob("tiny-fold*/vqa/step-*/validation.json"))
    ]
    assert len(checked) == 2 and not checked[0] & checked[1]
    assert len(checked[0] | checked[1]) == scores["all"].cases == scores["open"].cases == 16
    (last,) = tmp_path.glob("tiny-fold1/vqa/step-*/validation.json")
    last.write_text(json.dumps(dict.fromkeys(sorted(checked[1])[1:], True)))
    with pytest.raises(CheckpointError, match="tiny-fold1 was scored on other questions than the"):
        crossval(recipe, drawn_slake, tmp_path)


def _first(examples: list[Example], place: int) -> tuple[Path, ...]:
    return examples[place].images


def test_images_of_one_case_stay_together(tmp_path: Path) -> None:
    images = []
    for number in range(6):
        image = Image.effect_noise((64, 64), 100).convert("RGB")
        image.save(tmp_path / f"{number}.png")
        images.append(tmp_path / f"{number}.png")
    cases = [example(images[n], images[n + 1], id=str(n)) for n in (0, 1, 3)]
    cases.append(example(images[5], id="5"))

    parts = splits.folds(cases, 2, seed=0)

    assert sorted(sorted(e.id for e in part) for part in parts) == [["0", "1"], ["3", "5"]]


def test_official_splits_of_vqa_rad_leak_and_of_slake_do_not(dataset: Path) -> None:
    train, test = (vqa_rad.load(dataset / "vqa_rad", part, "en") for part in ("train", "test"))
    with pytest.raises(DataError, match="is also a training image"):
        splits.refuse_shared_images(train, test)
    train, test = (slake.load(dataset / "slake", part, "en") for part in ("train", "test"))
    splits.refuse_shared_images(train, test)
