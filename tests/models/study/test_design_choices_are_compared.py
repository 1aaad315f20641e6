"""An ablation changes one thing at a time, goes on where it stopped, and refuses another's."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.metrics.score import mean
from models.parts.packing import collate
from models.parts.vlm import build_model
from models.recipe import Recipe, load_recipe
from models.recipe.stage import Source
from models.serving.export import ExportError, export
from models.study import ablation
from models.study.ablation import Cell, Row, Screening
from models.study.variants import (
    BASELINE,
    FULL,
    AblationError,
    Shown,
    analyses_of,
    variants_of,
)
from models.training.inputs.examples import examples_of
from models.training.learning.losses import Objective, answer_logits
from models.training.planning.dry_run import plan
from models.training.record.progress import read_log
from models.training.stages import train
from tests import tiny
from tests.tiny import write_toml

RecipeMaker = Callable[..., Recipe]
ASKED = ["image-attention", "stages"]  # the baseline, and one variant of each
STEPS = 6


class Killed(Exception):
    pass


def staged_of(language: Path, **stage: Any) -> Recipe:
    """A recipe of two stages; keyword arguments replace keys of both."""
    content = tiny.recipe(language, "staged", **stage)
    content["stage"] += [tiny.STAGE | stage | {"name": "more", "parent": "vqa"}]
    return Recipe.model_validate(content)


@pytest.fixture(scope="module")
def staged(tiny_language: Path) -> Recipe:
    return staged_of(tiny_language)


@pytest.fixture(scope="module")
def unbroken(
    staged: Recipe, drawn_slake: Path, tmp_path_factory: pytest.TempPathFactory
) -> Screening:
    """One that nothing has stopped; whoever changes its folder takes a copy."""
    screening = Screening(staged, STEPS, 1, tmp_path_factory.mktemp("unbroken") / "out")
    screening.run(drawn_slake, ASKED, silent)
    return screening


def silent(line: str) -> None:
    pass


def told(screening: Screening) -> list[Row]:
    """The rows, but for what a clock says."""
    return [replace(row, seconds=0) for row in screening.rows.values()]


def compared(screening: Screening, data: Path) -> list[Any]:
    found = [each for name in ASKED for each in screening.compared(name, data)]
    return [(e.choice.label, e.exact_match, e.over, [r.answer_loss for r in e.rows]) for e in found]


def test_one_stopped_in_the_middle_goes_on_to_the_same_table(
    staged: Recipe,
    unbroken: Screening,
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed between two runs and again while it appends a row; nothing finished is run again."""
    trained: list[str] = []

    def counted(recipe: Recipe, data: Path, runs: Path) -> Path:
        if len(trained) == 2:
            raise Killed
        trained.append(recipe.name)
        return train(recipe, data, runs)

    with monkeypatch.context() as patch:
        patch.setattr(ablation, "train", counted)
        with pytest.raises(Killed):
            Screening(staged, STEPS, 1, tmp_path / "broken").run(drawn_slake, ASKED, silent)
    table = tmp_path / "broken" / "table.jsonl"
    table.write_text(table.read_text()[:-30])  # the second row was being written
    resumed = Screening(staged, STEPS, 1, tmp_path / "broken")
    assert len(resumed.rows) == 1
    first, trained = trained, []
    with monkeypatch.context() as patch:
        patch.setattr(
            ablation, "train", lambda r, *rest: (trained.append(r.name), train(r, *rest))[1]
        )
        resumed.run(drawn_slake, ASKED, silent)

    assert trained == [cell.name for cell in resumed.cells(ASKED)][1:] and first[1] == trained[0]
    assert resumed.open(ASKED) == [] and resumed.seconds_left(ASKED) == 0
    assert told(resumed) == told(unbroken) == told(Screening(staged, STEPS, 1, tmp_path / "broken"))
    assert compared(resumed, drawn_slake) == compared(unbroken, drawn_slake)


def test_two_processes_in_one_folder_share_the_work(
    staged: Recipe,
    unbroken: Screening,
    drawn_slake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another one, at the second run when we begin, ends with it while we wait for that alone."""
    ours, other = (Screening(staged, STEPS, 1, tmp_path / "shared") for _ in range(2))
    second = ours.cells(ASKED)[1]
    lock = other._lock(ours.recipe_of(second).name)
    lock.acquire()
    said: list[str] = []
    trained: list[str] = []

    def counted(recipe: Recipe, data: Path, runs: Path) -> Path:
        trained.append(recipe.name)
        if len(trained) == len(ours.cells(ASKED)) - 1:
            other._append(*other._do(second, data, "theirs"))
            lock.release()
        return train(recipe, data, runs)

    monkeypatch.setattr(ablation, "train", counted)
    ours.run(drawn_slake, ASKED, said.append)

    assert f"{second.name}: another process is at it" in said
    assert sorted(trained) == sorted(cell.name for cell in ours.cells(ASKED))  # each of them once
    assert ours.rows[second].commit == "theirs"
    rows = told(Screening(staged, STEPS, 1, tmp_path / "shared"))
    commit = unbroken.rows[second].commit
    assert {replace(row, commit=commit) for row in rows} == set(told(unbroken))


def test_every_variant_takes_the_whole_budget_and_says_how_it_came_about(
    unbroken: Screening,
) -> None:
    """Four validation images with two questions each; the whole of SLAKE's layout is four steps."""
    rows = unbroken.rows
    assert [row.steps for row in rows.values()] == [STEPS] * 3
    assert {row.questions for row in rows.values()} == {8}
    assert len({row.recipe for row in rows.values()}) == 3
    assert all(row.commit and row.answer_loss > 0 and row.seconds > 0 for row in rows.values())
    steps = [stage.steps for stage in unbroken.variants["stages-vqa-more"].stage]
    assert steps == [2, 4]


def test_each_variant_differs_from_the_baseline_in_one_thing() -> None:
    variants = variants_of(load_recipe("screening"), 60)
    baseline = flat(variants[BASELINE].model_dump() | {"name": ""})

    for name, variant in variants.items():
        dumped = flat(variant.model_dump() | {"name": ""})
        keys = {
            key for key in baseline.keys() | dumped.keys() if baseline.get(key) != dumped.get(key)
        }
        owner = name.split("-")[0]
        if owner == "connector":
            extra = {"stage.0.rows_per_step"} if name == "connector-fusion" else set()
            assert keys - {"connector.hidden"} == {"connector.name"} | extra
        elif owner == "reconstruction":
            assert keys == {"stage.0.reconstruction"}
        elif owner == "image":
            assert keys == {"language.image_attention"}
        elif owner == "stages":
            assert all(key.startswith("stage.") for key in keys)
        assert sum(stage.steps or 0 for stage in variant.stage) == 60


def test_reward_is_held_against_as_many_steps_by_labels() -> None:
    variants = variants_of(load_recipe("reward"), 40)

    labels, reward = (flat(variants[name].model_dump()) for name in (BASELINE, "reward"))

    differing = {key for key in labels.keys() | reward.keys() if labels.get(key) != reward.get(key)}
    assert {key for key in differing if not key.startswith("stage.0.grpo")} == {
        "name",
        "stage.0.method",
    }
    assert (labels["stage.0.method"], reward["stage.0.method"]) == ("supervised", "grpo")
    assert labels["stage.0.steps"] == reward["stage.0.steps"] == 40
    compared = analyses_of(load_recipe("reward"), variants)["reward"]
    assert [(choice.label, choice.variant, choice.against) for choice in compared] == [
        ("labels", BASELINE, (BASELINE, "own")),
        ("reward", "reward", (BASELINE, "own")),
    ]


def test_codes_are_held_against_what_they_were_made_of() -> None:
    variants = variants_of(load_recipe("codes"), 60)

    codes, continuous = (flat(variants[name].model_dump()) for name in (BASELINE, "continuous"))

    differing = {key for key in codes if codes[key] != continuous[key]}
    assert differing == {"name", "tower.name"} and continuous["tower.name"] == "vq_features"
    assert [choice.variant for choice in analyses_of(load_recipe("codes"), variants)["codes"]] == [
        BASELINE,
        "continuous",
    ]


def test_every_variant_of_the_shipped_recipe_can_be_built(
    first_layers: Callable[[Recipe], Recipe],
) -> None:
    """Not found out hours later, in the middle of the table. What is run in full is built alike."""
    screening = Screening(first_layers(load_recipe("screening")), 60, 1, Path("nowhere"))

    for name, variant in screening.screened.items():
        assert built(screening.variants[f"full-{name}"]) == built(variant)
        rebuilds = {"reconstructor"} if variant.stage[-1].reconstruction else set()
        trains = [set(stage.trains) for stage in plan(variant)]
        assert trains[-1] == {"connector", "language"} | rebuilds


LENGTHS = {"epochs", "steps", "warmup_steps"}


def built(variant: Recipe) -> dict[str, Any]:
    """All that it says but its name and how long each stage is."""
    told = flat(variant.model_dump() | {"name": ""})
    return {key: value for key, value in told.items() if key.split(".")[-1] not in LENGTHS}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict | list | tuple):
        return {path[1:]: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, each in pairs for k, v in flat(each, f"{path}.{key}").items()}


def test_differences_are_paired_by_question_and_average_the_seeds(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    """Written outcomes: the seeds of one variant are right in the first two images, then in the
    first alone, the baseline never. A seed that only one of them has run counts for neither."""
    screening = Screening(tiny_recipe(), 4, 3, tmp_path)
    asked = [f"slake/validate-{number}" for number in range(8)]
    for variant, right_of in ((BASELINE, (0, 0)), ("reconstruction-3", (4, 2, 8))):
        for seed, count in enumerate(right_of):
            cell = Cell(variant, seed)
            row = Row(*cell, "hash", 4, "commit", count / 8, 8, 1.0, 1.0)
            screening._append(row, {q: n < count for n, q in enumerate(asked)})

    found = {each.choice.label: each for each in screening.compared("reconstruction", drawn_slake)}

    images = [n // 2 for n in range(8)]
    expected = mean([1, 1, 0.5, 0.5, 0, 0, 0, 0], images)
    assert found["3"].over == expected and [row.seed for row in found["3"].rows] == [0, 1]
    assert found["0.1"].over is None and found["0.1"].exact_match == mean([0] * 8, images)
    assert found["10"].exact_match is None and found["10"].rows == ()
    assert screening.best(1) == ["reconstruction-3"]
    screening._outcome(Cell(BASELINE, 0)).write_text('{"slake/validate-0": true}')
    with pytest.raises(AblationError, match="scored on other questions than the data holds"):
        screening.compared("reconstruction", drawn_slake)


def test_what_is_in_folds_is_compared_on_the_recipe_s_own(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    folded = Source.model_validate(tiny.DATA | {"folds": 2})
    recipe = tiny_recipe(data=[folded]).model_copy(update={"validation": (folded,), "fold": 1})
    screening = Screening(recipe, 4, 1, tmp_path)
    asked = [e.id for e in examples_of([folded], drawn_slake, 1, held_out=True)]
    row = Row(*Cell(BASELINE, 0), "hash", 4, "commit", 1.0, len(asked), 1.0, 1.0)
    screening._append(row, dict.fromkeys(asked, True))

    found = {each.choice.label: each for each in screening.compared("reconstruction", drawn_slake)}

    assert (score := found["0.1"].exact_match) and (score.value, score.cases) == (1, len(asked))


def test_the_best_and_the_baseline_are_run_in_full_once_all_are_screened(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    """Eight images, two a step, twice: eight steps in place of the budget's four, one seed in place
    of two. What was screened is written, not run."""
    best = ["connector-linear", "reconstruction-0", "image-bidirectional"]
    screening = Screening(tiny_recipe(), 4, 2, tmp_path)
    asked = [f"slake/validate-{number}" for number in range(8)]
    for variant in screening.screened:
        if variant in (BASELINE, [*screening.screened][-1]):
            with pytest.raises(AblationError, match="until every variant is trained with 2 seed"):
                screening.run(drawn_slake, [FULL], silent)
        for cell in (Cell(variant, 0), Cell(variant, 1)):
            count = 8 - best.index(variant) if variant in best else 1
            recipe = ablation._hash(screening.recipe_of(cell))
            row = Row(*cell, recipe, 4, "commit", count / 8, 8, 1.0, 1.0)
            screening._append(row, {q: n < count for n, q in enumerate(asked)})
    before = screening.cells()

    screening.run(drawn_slake, [FULL], silent)

    run = [row for row in screening.rows.values() if row.variant not in screening.screened]
    assert [row.variant for row in run] == [f"full-{name}" for name in (BASELINE, *best)]
    assert {(row.seed, row.steps) for row in run} == {(0, 8)}
    found = screening.compared(FULL, drawn_slake)
    assert [(each.choice.label, each.over is None) for each in found] == [
        (BASELINE, True),
        *((name, False) for name in best),
    ]
    assert screening.best() == best and screening.cells() == before


@pytest.mark.parametrize("shown", ["blank", "other"])
def test_a_look_is_at_other_images_than_the_questions_own(
    unbroken: Screening, drawn_slake: Path, monkeypatch: pytest.MonkeyPatch, shown: Shown
) -> None:
    """What the objective sees: one grey image for all, or each image where another one was. The
    run's own log says nothing of it."""
    runs = unbroken.out / "runs"
    log = runs / "baseline-seed0" / "more" / "log.jsonl"
    before = log.read_text()
    seen = []
    forward = Objective.forward
    monkeypatch.setattr(
        Objective, "forward", lambda self, batch, at: (seen.append(at), forward(self, batch, at))[1]
    )
    baseline = unbroken.recipe_of(Cell(BASELINE, 0))
    right, figures = ablation._look(baseline, runs, drawn_slake, "own")
    (own,), seen = seen, []

    right, figures = ablation._look(baseline, runs, drawn_slake, shown)

    (at,) = seen
    assert len(right) == 8 and figures["answer_loss"] > 0 and log.read_text() == before
    if shown == "blank":
        assert all(torch.equal(one, at[0]) for one in at)
        assert not any(torch.equal(one, at[0]) for one in own)
    else:
        place = [next(n for n, o in enumerate(own) if torch.equal(o, one)) for one in at]
        assert sorted(place) == list(range(len(own))) and all(n != p for n, p in enumerate(place))


def test_a_look_is_through_the_average_where_that_is_what_was_kept(
    tiny_recipe: RecipeMaker, drawn_slake: Path, tmp_path: Path
) -> None:
    """The run's own images, looked at once more, have the figures that it was validated with."""
    recipe = tiny_recipe(average=0.9, connector_lr=0.05)
    checkpoint = train(recipe, drawn_slake, tmp_path)
    told = [line for line in read_log(checkpoint.parent / "log.jsonl") if line["step"] == 8]

    _, figures = ablation._look(recipe, tmp_path, drawn_slake, "own")

    assert figures["answer_loss"] == told[-1]["answer_loss"]


def test_image_tokens_see_those_after_them_only_where_the_recipe_says_so(
    tiny_recipe: RecipeMaker, drawn_slake: Path
) -> None:
    """The last patch is changed: in both directions every image token's state changes with it,
    under causal attention none before it; a question sees all of it either way."""
    both = {"image_attention": "bidirectional"}
    for part, moved in (({}, False), (both, True)):
        model = build_model(tiny_recipe(language_part=part)).eval()
        states = [first_image_state(model, drawn_slake, change) for change in (0.0, 5.0)]
        assert torch.equal(*states) is not moved


def first_image_state(model: Any, data: Path, change: float) -> torch.Tensor:
    source = Source(set="slake", split="validate", languages=("en",))
    row = model.packed(examples_of([source], data), "{question} Answer:")[0]
    torch.manual_seed(0)
    features = torch.randn(1, model.tower.patches, model.tower.dim)
    features[0, -1, : model.tower.dim // 2] += change
    kept = []
    decoder = model.language.get_decoder()
    hook = decoder.register_forward_hook(lambda _, __, out: kept.append(out.last_hidden_state))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        answer_logits(model, collate([row], 0), features)
    hook.remove()
    return kept[0][0, 0]


def test_a_worker_whose_images_are_seen_in_both_directions_is_not_exported(
    tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """Nor asked: neither vLLM nor `generate` has a mask for it."""
    recipe = tiny_recipe(language_part={"image_attention": "bidirectional"})
    toml = write_toml(recipe.model_dump(), tmp_path / "recipe.toml")

    with pytest.raises(ExportError, match=r"language\.image_attention: vLLM lets no token see"):
        export(toml, tmp_path, tmp_path / "zoo")
    with pytest.raises(ValueError, match="trains and validates only"):
        build_model(recipe).answer([], "?")


def test_an_unknown_analysis_is_named_with_those_that_there_are(
    tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    with pytest.raises(AblationError, match=r"No analysis lambda. There are: connectors, recon"):
        Screening(tiny_recipe(), 4, 1, tmp_path).cells(["stages", "lambda"])


def test_a_folder_of_another_plan_is_refused(
    unbroken: Screening, staged: Recipe, tiny_language: Path, tmp_path: Path
) -> None:
    """Other steps, another recipe, another version, another kind of folder, a row that today's
    variant would not give; but more seeds only add to it, and other epochs change no budget."""
    out = shutil.copytree(unbroken.out, tmp_path / "out")
    longer = Screening(staged_of(tiny_language, epochs=9), STEPS, 2, out)
    assert len(longer.open(["image-attention"])) == 2

    with pytest.raises(AblationError, match="another plan: recipe 'staged' as it was then, in 6 s"):
        Screening(staged, STEPS + 1, 1, out)
    with pytest.raises(AblationError, match="another plan"):
        Screening(staged_of(tiny_language, connector_lr=0.5), STEPS, 1, out)
    table = (out / "table.jsonl").read_text()
    (out / "table.jsonl").write_text(table.replace('"recipe": "', '"recipe": "0'))
    with pytest.raises(AblationError, match="baseline-seed0 was run by another recipe than it has"):
        Screening(staged, STEPS, 1, out)
    kept = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(kept | {"version": 0}))
    with pytest.raises(AblationError, match="is of version 0, not 1: give another --out"):
        Screening(staged, STEPS, 1, out)
    (out / "plan.json").unlink()
    with pytest.raises(AblationError, match="something else than an ablation"):
        Screening(staged, STEPS, 1, out)
    shutil.rmtree(out)
    assert Screening(staged, STEPS, 1, out).rows == {}


def test_choices_are_not_made_on_a_test_split(tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    source = {"set": "slake", "split": "test", "languages": ["en"]}

    with pytest.raises(AblationError, match="validated on the test split of slake"):
        Screening(tiny_recipe(validation=[source]), 4, 1, tmp_path)


def test_a_tower_that_moves_is_not_screened(tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    with pytest.raises(AblationError, match="take one whose tower is frozen in every stage"):
        Screening(tiny_recipe(tower="full"), 4, 1, tmp_path)


def test_only_what_is_named_is_run_beside_the_baseline(staged: Recipe, tmp_path: Path) -> None:
    """Without a budget, as many epochs as the recipe says."""
    both = [BASELINE, "image-bidirectional"]

    screening = Screening(staged, None, 2, tmp_path, both[1:])

    cells = screening.cells()
    assert {(cell.variant, cell.seed) for cell in cells} == {(v, s) for v in both for s in (0, 1)}
    assert [s.steps for cell in cells for s in screening.recipe_of(cell).stage] == [None] * len(
        cells
    )
    with pytest.raises(AblationError, match="No variant image-upside-down"):
        Screening(staged, None, 2, tmp_path, ["image-upside-down"])
