"""benchmarks.accuracy.familiarity: sets of what a panel should not be sure of, and whether it
tells them."""

import shutil

from benchmarks.accuracy.familiarity import QUESTIONS, draw, tell
from models.data.own_file import read
from services.evaluation.learning.fit import calibrate
from tests.services.evaluation.learning.test_what_is_learned_from_answers import with_likenesses


def test_each_kind_is_a_set_that_evaluate_reads(tmp_path):
    draw(tmp_path)

    for kind in ("blank", "noise", "natural", "text", "ultrasound"):
        examples = read(tmp_path / f"{kind}.csv")
        images = {example.images for example in examples}
        assert len(examples) == len(images) * len(QUESTIONS) >= 15
        right = {example.answer for example in examples}
        assert right == {"nobody can tell"} | ({"ultrasound"} if kind == "ultrasound" else set())


def test_a_run_of_another_sort_is_told_from_the_known_one(stored, settings, data, capsys):
    odd = shutil.copytree(stored, stored.with_name("odd"))

    def like(low: float):
        def tells(worker: str, number: int) -> dict[str, object] | None:
            image = low + number % 10 / 100
            return {"image": image, "question": 0.9, "manner": "slake"} if worker == "w1" else None

        return tells

    with_likenesses(stored, like(0.8))
    with_likenesses(odd, like(0.5))
    learned = calibrate([stored], settings, data)
    tell([stored, odd], settings.model_copy(update={"competence": learned}), data)

    said = capsys.readouterr()
    known, told = (line.split() for line in said.out.splitlines()[1:])
    assert known[2:6] == ["known"] * 3 + ["0.0%"] and float(known[6].rstrip("%")) > 0
    assert told[2:] == ["1.000", "0.500", "not", "told", "100.0%", "0.0%"]
    # Both were asked about the images that it was learned from.
    assert (
        said.err.count("480 of its 480 cases show images that the competence file was learned") == 2
    )
