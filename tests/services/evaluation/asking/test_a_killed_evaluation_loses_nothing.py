"""Killed by SIGKILL at a random moment: each case has one verdict, and none was asked again that
was not under way. A short run of `benchmarks.faults.evaluation`, which measures speed and memory
too."""

from pathlib import Path

from benchmarks.faults.evaluation import killed, mock, write_set


def test_what_was_written_down_is_not_asked_again(tmp_path: Path) -> None:
    with mock() as url:
        killed(url, write_set(tmp_path, 200), tmp_path / "out", cases=200, kills=1)
