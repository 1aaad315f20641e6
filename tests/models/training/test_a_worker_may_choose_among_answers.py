"""A language model made here: its words and answers are whole, and what is trained is served."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from models.data.example import DataError
from models.parts.packing import IGNORED, Batch, Row, collate
from models.parts.vlm import Vlm, build_model
from models.parts.words import IMAGE, UNKNOWN, answer_ids, make_language, word_tokenizer
from models.recipe import Recipe, load_recipe
from models.recipe.parts import MadeLanguage
from models.serving.export import export, load_served, served_folder
from models.study import confidence
from models.study.confidence import chances
from models.training.inputs.examples import examples_of
from models.training.inputs.vocabulary import keep_vocabulary, vocabulary_of
from models.training.learning.average import Average
from models.training.learning.losses import Losses, Objective, answer_logits
from models.training.learning.tuning import load_trained
from models.training.parts import PartsRun
from models.training.planning.dry_run import plan
from models.training.record.checkpoints import claim
from models.training.record.progress import all_right
from models.training.stages import train
from tests import tiny

ASKED = ["Is the Liver healthy?", "Is the liver big?", "肺在哪里？", "肺健康吗？"]
ANSWERS = ["Left Lung, Right", "Liver", "Yes", "左肺", "Left Lung"]
CHOOSER: dict[str, Any] = {
    "language": "full",
    "lora": None,
    "data": [tiny.DATA | {"copies": 2}],
    "word_dropout": 0.2,
    "label_smoothing": 0.1,
    "weight_decay": 0.05,
    "average": 0.9,
}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(write_chooser(tmp_path))


def write_chooser(folder: Path, **stage: Any) -> Path:
    content = tiny.recipe(Path("none"), "chooser", **CHOOSER | stage)
    made = {"layers": 2, "width": 32, "hidden": 48, "heads": 4, "dropout": 0.1}
    content["language"] = {"made": made, "family": "tiny", "image_token": IMAGE}
    content["tower"]["strides"] = [16, 32]
    return tiny.write_toml(content, folder / "chooser.toml")


@pytest.fixture
def chooser(recipe: Recipe, drawn_slake: Path, tmp_path: Path) -> Vlm:
    """As it starts to train."""
    keep_vocabulary(recipe, drawn_slake, tmp_path)
    return build_model(recipe, torch.float32, home=tmp_path)


def test_every_answer_is_one_token_that_is_read_as_it_is_written() -> None:
    tokenizer = word_tokenizer(ASKED, ANSWERS)

    for answer in ANSWERS:
        (token,) = answer_ids(tokenizer, answer)
        assert tokenizer.decode([token, tokenizer.eos_token_id], skip_special_tokens=True) == answer
    assert answer_ids(tokenizer, "Kidney") == [tokenizer.unk_token_id]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("is the LIVER?", ["is", "the", "liver", "?"]),
        ("肺健在？", ["肺", UNKNOWN, UNKNOWN, "？"]),
        ("Yes: 左肺 Left Lung?", [UNKNOWN, UNKNOWN, UNKNOWN, "肺", UNKNOWN, UNKNOWN, "?"]),
        (f"{IMAGE}Is left lung?", [IMAGE, "is", UNKNOWN, UNKNOWN, "?"]),
        ("", []),
    ],
    ids=["capitals", "Chinese", "an answer's words", "an image", "nothing"],
)
def test_a_question_is_read_by_words_that_were_seen_twice(text: str, words: list[str]) -> None:
    """Chinese ones by character; an answer's own token never comes of a question's words."""
    tokenizer = word_tokenizer(ASKED, ANSWERS)

    assert tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) == words


def test_at_first_half_of_the_heads_look_at_the_image_and_half_at_the_text() -> None:
    """Or a few words would be lost among all the patches, and long be learned by heart instead."""
    torch.manual_seed(0)
    made = MadeLanguage(layers=2, width=64, hidden=64, heads=4)
    language = make_language(made, 30, torch.float32)
    language.set_attn_implementation("eager")
    patches = functional.layer_norm(torch.randn(1, 100, 64), (64,)) * 0.5 + 0.5
    question = language.get_input_embeddings()(torch.arange(8)[None])

    layers = language(inputs_embeds=torch.cat([patches, question], 1), output_attentions=True)

    for attention in layers.attentions:
        *text, image, other = attention[0, :, -1, :100].sum(-1).tolist()
        assert max(text) < 0.5 < 0.99 < min(image, other)


def test_the_vocabulary_is_a_function_of_the_data_and_not_of_its_order() -> None:
    one, other = word_tokenizer(ASKED, ANSWERS), word_tokenizer(ASKED[::-1], ANSWERS[::-1])

    assert one.get_vocab() == other.get_vocab()


def test_a_set_that_is_named_twice_makes_no_word_commoner(tmp_path: Path) -> None:
    """Or the words that are known would depend on how often a stage shows them."""
    data = tiny.draw_slake(tmp_path)
    file = data / "slake" / "train.json"
    file.write_text(file.read_text().replace("Which colour?", "Which odd colour?", 1))
    recipe = load_recipe(write_chooser(tmp_path, data=[tiny.DATA, tiny.DATA | {"copies": 1}]))

    known = vocabulary_of(recipe, data).get_vocab()

    assert "colour" in known and "odd" not in known


def test_how_sure_it_is_is_told_beside_how_often_it_is_right(
    recipe: Recipe, drawn_slake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight validation questions three are given their reference at 0.9, the others no word that
    is an answer at 0.6. The calibration error is that of two bins."""
    keep_vocabulary(recipe, drawn_slake, run := claim(tmp_path / "run", recipe))
    stage_run = PartsRun(recipe, recipe.stage[0], run, drawn_slake, None)
    given = iter([True] * 3 + [False] * 5)

    def chances(model: Vlm, rows: Sequence[Row], _: Tensor) -> Tensor:
        found = torch.zeros(sum(len(row.questions) for row in rows), len(model.tokenizer))
        for place, question in enumerate(q for row in rows for q in row.questions):
            (own,) = answer_ids(model.tokenizer, question.answer)
            sure, token = (0.9, own) if next(given) else (0.6, model.tokenizer.unk_token_id)
            found[place, token] = sure
        return found

    monkeypatch.setattr(confidence, "chances", chances)

    told = confidence.scores(confidence.spoken(stage_run))

    right = told["right"]
    assert right.value == 3 / 8 and right.cases == 8
    assert told["sure"].value == pytest.approx((3 * 0.9 + 5 * 0.6) / 8)
    assert told["surer than right"].value == pytest.approx((5 * 0.6 - 3 * 0.1) / 8)
    assert told["calibration error"].value == pytest.approx((3 * 0.1 + 5 * 0.6) / 8)
    assert 0 <= right.low < 3 / 8 < right.high


def test_it_is_told_of_the_average_where_that_is_what_was_kept(
    recipe: Recipe, drawn_slake: Path, tmp_path: Path
) -> None:
    """As sure as the weights that its checkpoint keeps, and not those that it would go on with."""
    stage = recipe.stage[0].model_copy(update={"connector_lr": 0.05})
    recipe = recipe.model_copy(update={"stage": (stage,)})
    checkpoint = train(recipe, drawn_slake, tmp_path)
    stage_run = PartsRun(recipe, stage, tmp_path / recipe.name, drawn_slake, None)
    kept = build_model(recipe, torch.float32, home=tmp_path / recipe.name)
    load_trained(kept, checkpoint)

    said = confidence.spoken(stage_run)

    rows = stage_run.validation
    sure = chances(kept.eval(), rows, stage_run.seen(rows, training=False)).amax(-1)
    assert said.sure == pytest.approx(sure.tolist(), abs=1e-5)


def test_two_runs_are_told_apart_question_by_question() -> None:
    """Reward, surer by a tenth of each answer and as often right, is told to be surer than right
    by that tenth, with no doubt of it, though either one's own figure has a wide interval."""
    images, right = [n // 2 for n in range(40)], [n % 3 > 0 for n in range(40)]
    asked = [(str(n), "Where?") for n in range(40)]
    labels = confidence.Spoken(right, [0.7] * 40, [1] * 40, images, asked)
    reward = confidence.Spoken(right, [0.8] * 40, [2] * 40, images, asked)
    other_seed = confidence.Spoken([True] * 40, [0.8] * 40, [2] * 40, images, asked)

    told = confidence.differences([(reward, labels)])
    both = confidence.differences([(reward, labels), (other_seed, reward)])

    surer, error = told["surer than right"], told["calibration error"]
    assert (surer.value, surer.low, surer.high) == pytest.approx((0.1, 0.1, 0.1))
    own = confidence.scores(reward)["surer than right"]
    assert own.high - own.low > 0.1
    share = sum(right) / 40
    assert told["right"].value == 0 and told["words"].value == 1
    assert error.value == pytest.approx((0.8 - share) - (0.7 - share))
    # The mean of two pairs: the second is no surer, and right where the first was wrong.
    assert both["right"].value == pytest.approx((1 - share) / 2)
    assert both["surer than right"].value == pytest.approx((0.1 - (1 - share)) / 2)
    assert both["calibration error"].value == pytest.approx((0.1 + 0.2 - (0.8 - share)) / 2)


def test_runs_that_were_asked_other_questions_are_not_beside_each_other() -> None:
    """Nor about the same image: a set with as many in Chinese is another."""
    cases = [("a", ("1", "Where?")), ("b", ("1", "Where?")), ("a", ("2", "Where?"))]
    cases.append(("a", ("1", "在哪里?")))
    one, *others = (
        confidence.Spoken([True], [0.7], [1], [image], [asked]) for image, asked in cases
    )

    for other in others:
        with pytest.raises(confidence.ConfidenceError, match="asked the same questions"):
            confidence.differences([(one, other)])


def test_chances_are_those_of_an_answers_first_token(
    recipe: Recipe, drawn_slake: Path, tmp_path: Path
) -> None:
    keep_vocabulary(recipe, drawn_slake, run := claim(tmp_path / "run", recipe))
    stage_run = PartsRun(recipe, recipe.stage[0], run, drawn_slake, None)
    rows, model = stage_run.validation[:2], stage_run.model.eval()
    seen = stage_run.seen(rows, training=False)

    found = confidence.chances(model, rows, seen)

    # The last question once more, in a row of its own.
    alone = model.packed(rows[1].questions[-1:], recipe.prompt, max_questions=1)
    assert found.shape == (sum(len(row.questions) for row in rows), len(model.tokenizer))
    assert found.sum(-1).tolist() == pytest.approx([1.0] * len(found), abs=1e-4)
    assert torch.allclose(confidence.chances(model, alone, seen[-1:])[0], found[-1], atol=1e-3)


def test_a_stopped_run_ends_with_the_weights_and_average_of_an_unbroken_one(
    recipe: Recipe, drawn_slake: Path, tmp_path: Path
) -> None:
    """Copies, hidden words and dropout are drawn as if nothing had been."""
    unbroken = train(recipe, drawn_slake, tmp_path / "unbroken")
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    finished = tmp_path / "broken" / unbroken.relative_to(tmp_path / "unbroken")
    (finished / "state.json").unlink()  # as if it had been cut off while saving

    resumed = train(recipe, drawn_slake, tmp_path / "broken")

    for name in ("connector", "language"):
        expected, found = (load_file(at / f"{name}.safetensors") for at in (unbroken, resumed))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    own, again = (torch.load(at / "optimiser.pt")["weights"] for at in (unbroken, resumed))
    assert all(map(torch.equal, own, again))


def test_an_exported_chooser_is_asked_as_it_was_trained(drawn_slake: Path, tmp_path: Path) -> None:
    """The chat template's ids are those of training, and its folder needs neither the data nor a
    base language model."""
    file = write_chooser(tmp_path, epochs=1, data=[tiny.DATA])
    recipe = load_recipe(file)
    checkpoint = train(recipe, drawn_slake, tmp_path / "runs")

    zoo = export(file, checkpoint, tmp_path / "zoo")
    served = load_served(served_folder(zoo))

    row, *_ = served.packed(examples_of(recipe.stage[0].data, drawn_slake)[:1], recipe.prompt)
    text = recipe.prompt.format(question=row.questions[0].question)
    content = [{"type": "image"}, {"type": "text", "text": text}]
    ids = served.tokenizer.apply_chat_template([{"role": "user", "content": content}]).input_ids
    assert ids == [served.tokenizer.convert_tokens_to_ids(IMAGE), *row.asked[0].tolist()]
    assert served.tokenizer.decode(row.labels[row.labels != IGNORED][:1]) == "red"
    kept = load_file(checkpoint / "language.safetensors")
    for name, weight in served.language.state_dict().items():
        assert torch.equal(weight, kept[name].to(torch.bfloat16))
    assert "language" not in (zoo / "base.json").read_text()
    assert "made here: a Llama of 2 layers of width 32" in (zoo / "README.md").read_text()


def test_a_dry_run_counts_the_words_of_the_data(recipe: Recipe, drawn_slake: Path) -> None:
    (with_words,), (without,) = plan(recipe, drawn_slake), plan(recipe)

    # is it red ? which colour answer :, blue green red white True False
    words = {"is", "it", "red", "?", "which", "colour", "answer", ":"}
    words |= {"blue", "green", "white", "True", "False"}
    grown = with_words.trains["language"] - without.trains["language"]
    assert grown == 2 * 32 * len(words)


def batch_of(chooser: Vlm, recipe: Recipe, data: Path) -> tuple[Batch, torch.Tensor]:
    rows = chooser.packed(examples_of(recipe.stage[0].data, data), recipe.prompt)
    generator = torch.Generator().manual_seed(0)
    shape = (len(rows), chooser.tower.patches, chooser.tower.dim)
    return collate(rows, 0), torch.randn(shape, generator=generator)


def losses_of(chooser: Vlm, recipe: Recipe, data: Path, **stage: Any) -> Losses:
    """In training, without dropout, with nothing of the recipe's but `stage`."""
    plain = {"word_dropout": 0.0, "label_smoothing": 0.0}
    objective = Objective(chooser, recipe.stage[0].model_copy(update=plain | stage))
    chooser.eval()
    objective.training = True
    found: Losses = objective(*batch_of(chooser, recipe, data))
    return found


def test_an_answers_label_is_smoothed_and_its_end_is_not(
    chooser: Vlm, recipe: Recipe, drawn_slake: Path
) -> None:
    """As torch smooths; the end would else cost every answer a tenth of its confidence."""
    logits, labels, _ = answer_logits(chooser.eval(), *batch_of(chooser, recipe, drawn_slake))
    said = labels != chooser.tokenizer.eos_token_id
    expected = functional.cross_entropy(
        logits[said].float(), labels[said], label_smoothing=0.1, reduction="sum"
    ) + functional.cross_entropy(logits[~said].float(), labels[~said], reduction="sum")

    found = losses_of(chooser, recipe, drawn_slake, label_smoothing=0.1).answer

    assert found.item() == pytest.approx(expected.item(), rel=2e-3)


def test_only_words_of_questions_are_hidden(
    chooser: Vlm, recipe: Recipe, drawn_slake: Path
) -> None:
    """Never the image, the answer, or the last word, which the answer follows."""
    batch, _ = batch_of(chooser, recipe, drawn_slake)
    stage = recipe.stage[0].model_copy(update={"word_dropout": 0.999999})

    hidden = Objective(chooser, stage)._with_words_hidden(batch)

    kept = (batch.labels != IGNORED) | batch.images
    assert torch.equal(hidden.ids[kept], batch.ids[kept])
    assert (hidden.ids[~kept] == chooser.tokenizer.unk_token_id).all()


def test_a_validated_loss_is_neither_smoothed_nor_hidden(
    chooser: Vlm, recipe: Recipe, drawn_slake: Path
) -> None:
    plain = losses_of(chooser, recipe, drawn_slake).answer
    validated = Objective(chooser, recipe.stage[0]).eval()

    assert torch.equal(validated(*batch_of(chooser, recipe, drawn_slake)).answer, plain)


def test_the_average_follows_the_weights_and_stands_in_for_them() -> None:
    """Of 1, 2, 3 …: a tenth of the first step stays, later ones weigh as the decay says."""
    weight = nn.Parameter(torch.zeros(1))
    average, expected = Average([weight], 0.5), 0.0
    for step in range(20):
        weight.data.fill_(step)
        average.update()
        decay = min(0.5, (step + 1) / (step + 10)) if step else 0.0
        expected = decay * expected + (1 - decay) * step

    with average.in_place() as own:
        assert weight.item() == pytest.approx(expected)
        assert [each.item() for each in own] == [19.0]
    assert weight.item() == 19


def test_an_average_that_goes_on_is_what_it_would_have_been() -> None:
    """It counts its updates, of which a step of reward makes several."""
    found = []
    for stops in (False, True):
        weight = nn.Parameter(torch.zeros(1))
        average = Average([weight], 0.99)
        for update in range(12):
            if stops and update == 8:
                with average.in_place() as own:
                    kept, updates = weight.detach().clone(), average.updates
                weight = nn.Parameter(kept)
                average = Average([weight], 0.99)
                average.restore(own, updates)
            weight.data.fill_(update)
            average.update()
        with average.in_place():
            found.append(weight.item())

    assert found[0] == found[1]


def test_without_a_decay_nothing_is_averaged() -> None:
    weight = nn.Parameter(torch.ones(1))
    average = Average([weight], 0.0)
    average.update()

    with average.in_place() as own:
        assert weight.item() == 1 and own == []


def test_a_vocabulary_stays_with_its_run(recipe: Recipe, drawn_slake: Path, tmp_path: Path) -> None:
    """A run that goes on, and a worker that is trained on, keep the tokens they have learned."""
    run = claim(tmp_path / "runs", recipe)
    keep_vocabulary(recipe, drawn_slake, run)
    before = (run / "vocabulary" / "tokenizer.json").read_bytes()
    onward = recipe.model_copy(update={"start": str(run), "prompt": "Now: {question}"})

    keep_vocabulary(onward, drawn_slake, run)
    keep_vocabulary(onward, drawn_slake, tmp_path)

    assert (run / "vocabulary" / "tokenizer.json").read_bytes() == before
    assert (tmp_path / "vocabulary" / "tokenizer.json").read_bytes() == before


@pytest.mark.parametrize("answer", ["violet", UNKNOWN, IMAGE])
@pytest.mark.parametrize("goes_on", [False, True], ids=["started from it", "the same run"])
def test_an_answer_that_cannot_be_said_is_not_taught(
    goes_on: bool, answer: str, recipe: Recipe, tmp_path: Path
) -> None:
    """It would be learned as the unknown word. What an older vocabulary lacks is named."""
    data = tiny.draw_slake(tmp_path)
    keep_vocabulary(recipe, data, tmp_path)
    file = data / "slake" / "train.json"
    file.write_text(file.read_text().replace('"red"', f'"{answer}"', 1))
    onward = recipe if goes_on else recipe.model_copy(update={"start": str(tmp_path)})

    with pytest.raises(DataError, match=f"no token for 1 of . answers to learn, such as '{answer}"):
        keep_vocabulary(onward, data, tmp_path if goes_on else claim(tmp_path / "run", onward))


@pytest.mark.parametrize("answer", ["violet", UNKNOWN, "<end>"])
def test_an_unknown_answer_is_never_right(
    answer: str, chooser: Vlm, recipe: Recipe, drawn_slake: Path
) -> None:
    """Not even of a model that says that it does not know."""
    examples = examples_of(recipe.stage[0].data, drawn_slake)[:2]
    examples = [replace(each, answer=answer) for each in examples]
    batch = collate(chooser.packed(examples, recipe.prompt), 0)
    unknown = chooser.tokenizer.unk_token_id
    head = chooser.language.get_output_embeddings()
    head.register_forward_hook(lambda *call: call[2].index_fill(-1, torch.tensor(unknown), 99.0))

    seen = torch.zeros(len(batch.rows), chooser.tower.patches, chooser.tower.dim)
    wrong = Objective(chooser, recipe.stage[0]).eval()(batch, seen).wrong

    labels = batch.labels[batch.labels != IGNORED]
    assert all_right(wrong, labels, chooser.tokenizer.eos_token_id) == [False, False]
    assert wrong[labels == unknown].tolist() == [True, True]
