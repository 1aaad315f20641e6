"""benchmarks.accuracy.prior: the commonest training answer to the same question."""

import sys

import pytest

from benchmarks.accuracy.prior import main
from tests.tiny import draw_slake


def test_a_question_is_answered_as_it_mostly_was_in_training(tmp_path, monkeypatch, capsys):
    """Each of four colours is as common, so the first, red; "is it red?" mostly was false. Of every
    image one of the two is right."""
    draw_slake(tmp_path)
    told = ["prior", "slake", "validate", "en", "--data", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", told)

    main()

    assert capsys.readouterr().out == "50.0 (50.0 to 50.0) of 8 questions\n"
    monkeypatch.setattr(sys, "argv", [*told, "--fold", "2", "2"])
    with pytest.raises(SystemExit):
        main()
    assert "--fold: give a number and how many there are" in capsys.readouterr().err
