"""Killed by SIGKILL, over and over: each case has one verdict, and none was asked again that was
not under way. A short run of `benchmarks.evaluation`, which measures speed and memory too."""

from pathlib import Path

from benchmarks.evaluation import killed, mock, write_set


def test_what_was_written_down_is_not_asked_again(tmp_path: Path) -> None:
    with mock() as url:
        killed(url, write_set(tmp_path, 300), tmp_path / "out", cases=300, kills=2)
