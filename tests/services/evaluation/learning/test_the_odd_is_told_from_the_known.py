"""benchmarks.accuracy.familiarity: sets of what a panel should not be sure of, and whether it
tells them. benchmarks.accuracy.trust: the two pictures of it."""

import json
import shutil

from PIL import Image

from benchmarks.accuracy import trust
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


def test_what_a_confidence_is_worth_is_drawn(stored, data, tmp_path, monkeypatch, capsys):
    """Half of the cases of the second run have none."""
    half = shutil.copytree(stored, stored.with_name("half"))
    records = [json.loads(line) for line in (half / "verdicts.jsonl").read_text().splitlines()]
    for number, record in enumerate(records):
        record["verdict"]["confidence"] = 0.9 if number % 2 else None
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (half / "verdicts.jsonl").write_text(lines)
    runs, case = [str(stored), str(half)], records[0]["id"]
    given = [*runs, "--case", case, "--ways", *runs, "--data", str(data), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["trust", *given])

    trust.main()

    _, second = capsys.readouterr().out.splitlines()
    assert second.startswith("slake: 480 cases, 240 with a confidence, of those ")
    for name in ("risk", "four-ways"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 400
