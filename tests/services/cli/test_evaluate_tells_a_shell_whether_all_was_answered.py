"""`consilium evaluate`: status 1 where a question has no verdict, and how to go on; then 0."""

import shlex

from tests.fake_gateway import problem


def test_a_question_without_a_verdict_is_a_failure(fake, consilium, data, tmp_path):
    """All figures are there all the same, and the command that is told asks what is left."""
    gateway, out = fake(problem(500)), tmp_path / "a folder"
    where = ("--dataset", "slake", "--split", "validate", "--language", "en", "--data", data)
    how = ("--limit", 5, "--gateway", gateway.url, "--concurrency", 1, "--workers", " w0,")

    first = consilium("evaluate", *where, *how, "--out", out)

    assert first.status == 1 and (out / "summary.json").exists()
    assert "consilium: 1 of 5 questions have no verdict; " in first.err
    (again,) = [line for line in first.out.splitlines() if line.startswith("again: ")]
    assert consilium(*shlex.split(again)[2:]).status == 0
    assert len(gateway.requests) == 6
