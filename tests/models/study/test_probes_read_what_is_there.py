"""A probe reads what embeddings hold, however wide they are, and nothing that they do not."""

import numpy as np
import pytest

from models.study.probe import KINDS, ProbeError, Task, blind, coordinates, majority, rebuilt, right

IMAGES = 90
ALONE = np.arange(IMAGES)  # no two images look alike
LABELS = np.array(["left", "right", "left"] * (IMAGES // 3))
SEEDS = (0,)


def task(labels: np.ndarray = LABELS) -> Task:
    return Task("side", np.arange(len(labels)), np.full(len(labels), ""), labels)


def table(told: float, seed: int = 0) -> np.ndarray:
    """Noise of ten columns, the first of which tells the label so loudly."""
    noise = np.random.default_rng(seed).normal(size=(IMAGES, 10))
    noise[:, 0] += told * (LABELS == "right")
    return noise


def score(told: np.ndarray, **more: bool) -> float:
    return float(right(coordinates(told), task(), ALONE, SEEDS, **more).mean())


@pytest.mark.parametrize(("kind", "least", "most"), [("linear", 0.0, 0.7), ("mlp", 0.9, 1.0)])
def test_an_mlp_reads_what_no_plane_parts(kind: str, least: float, most: float) -> None:
    """Left and right by whether two columns have one sign."""
    told = np.random.default_rng(0).normal(size=(IMAGES, 2))
    labels = np.where(told[:, 0] * told[:, 1] > 0, "left", "right")

    found = right(coordinates(told), task(labels), ALONE, SEEDS, kind=kind)

    assert least <= found.mean() <= most


def test_what_the_embeddings_tell_is_read() -> None:
    assert score(table(told=8)) > 0.95


def test_what_they_do_not_tell_is_not() -> None:
    assert score(table(told=0)) <= majority(task(), ALONE, SEEDS).mean() + 0.05


def test_labels_drawn_anew_are_not_read() -> None:
    assert score(table(told=8), shuffled=True) < 0.75 < score(table(told=8))


def test_a_wider_table_of_the_same_distances_is_read_alike() -> None:
    """Width alone is no advantage: a connector's tokens are wider together than its patches."""
    narrow = table(told=2)
    turned, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3000, 10)))

    assert score(narrow @ turned.T) == score(narrow)


def test_coordinates_keep_every_distance() -> None:
    wide = np.random.default_rng(0).normal(size=(12, 500))

    kept = coordinates(wide)

    assert kept.shape[1] <= 12
    apart = np.linalg.norm(wide[:, None] - wide[None], axis=-1)
    assert np.allclose(np.linalg.norm(kept[:, None] - kept[None], axis=-1), apart)


def test_a_look_alike_does_not_give_an_image_away() -> None:
    """Of three copies of an image on both sides, the label would only have to be remembered."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 3)
    copies = np.repeat(random.normal(size=(40, 5)), 3, axis=0)
    labels = np.repeat(random.permutation(["a", "b"] * 20), 3)

    found = right(coordinates(copies), task(labels), groups, SEEDS)

    assert found.mean() < 0.65


def test_a_question_changes_what_is_read_of_the_same_image() -> None:
    answers = np.concatenate([LABELS == "right", LABELS == "left"])
    both = Task(
        "answer",
        np.tile(np.arange(IMAGES), 2),
        np.repeat(["Is it right?", "Is it left?"], IMAGES),
        np.where(answers, "yes", "no"),
    )

    found = right(coordinates(table(told=8)), both, ALONE, SEEDS)

    assert found.mean() > 0.95
    assert majority(both, ALONE, SEEDS).mean() == pytest.approx(2 / 3, abs=0.01)


def test_the_decoder_rebuilds_what_is_there_and_nothing_from_noise() -> None:
    random = np.random.default_rng(0)
    hidden = random.normal(size=(IMAGES, 6))
    features = (hidden @ random.normal(size=(6, 4 * 30))).reshape(IMAGES, 4, 30) + 1

    for kind in KINDS:
        assert rebuilt(coordinates(hidden), features, ALONE, 0, kind).mean() > 0.95
    of_noise = rebuilt(coordinates(random.normal(size=(IMAGES, 6))), features, ALONE, 0)
    assert of_noise.mean() == pytest.approx(blind(features, ALONE, 0).mean(), abs=0.03)


def test_a_class_of_two_is_named() -> None:
    labels = LABELS.astype("<U6")
    labels[:2] = "middle"

    with pytest.raises(ProbeError, match="'middle' is shown by 2 group") as raised:
        task(labels).check(ALONE)

    assert "\n" not in str(raised.value)


def test_five_copies_of_one_image_are_too_few_for_five_folds() -> None:
    with pytest.raises(ProbeError, match="'right' is shown by 1 group"):
        task().check(np.where(LABELS == "right", 0, ALONE + 1))


def test_one_label_is_nothing_to_read() -> None:
    with pytest.raises(ProbeError, match=r"1 label\(s\)"):
        task(np.full(IMAGES, "left")).check(ALONE)
