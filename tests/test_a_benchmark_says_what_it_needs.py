"""Where a measurement's data, secrets or servers are not there, it says so in one sentence."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("command", "environ", "says"),
    [
        ("accuracy.meaning", {}, "the following arguments are required: --data"),
        ("accuracy.meaning --data /nowhere", {}, "is missing: point --data or CONSILIUM_DATA"),
        ("accuracy.burned_in --data /nowhere", {}, "/nowhere/slake/imgs holds 0 images"),
        (
            "accuracy.entailment --data /nowhere",
            {"CONSILIUM_SUMMARISER_URL": "http://:secret@NOWHERE"},
            "Nothing answers at http://NOWHERE: start the summariser of panel.gpu.toml",
        ),
        (
            "accuracy.thinking /nowhere --data /nowhere",
            {"CONSILIUM_SUMMARISER_URL": "http://NOWHERE"},
            "Nothing answers at http://NOWHERE: start the summariser of panel.toml",
        ),
        ("accuracy.free_text --data . --consensus http://NOWHERE", {}, "start a model server"),
        ("cost.archive http://NOWHERE", {}, "CONSILIUM_ARCHIVE_AUTHORIZATION is not set: it"),
        (
            "cost.archive http://NOWHERE",
            {"CONSILIUM_ARCHIVE_AUTHORIZATION": "Basic YTpi"},
            "start an archive there",
        ),
        ("cost.processes --store redis://:secret@NOWHERE", {}, "No Redis answers at NOWHERE"),
        ("cost.gateway --litellm /nowhere", {}, "/nowhere does not run: pip install"),
        ("cost.wall_time --gateway http://NOWHERE", {}, "start the panel, make serve"),
        ("cost.weighing /nowhere --data /nowhere", {}, "/nowhere holds no evaluation of this"),
        ("cost.workers nobody", {}, "vLLM serves no seat nobody here"),
    ],
)
def test_what_a_measurement_needs_is_one_sentence(command, environ, says, monkeypatch, dead_url):
    """NOWHERE is an address where nothing listens."""
    nowhere = dead_url.removeprefix("http://")
    command, says = (text.replace("NOWHERE", nowhere) for text in (command, says))
    monkeypatch.delenv("CONSILIUM_DATA", raising=False)
    monkeypatch.delenv("CONSILIUM_ARCHIVE_AUTHORIZATION", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value.replace("NOWHERE", nowhere))
    name, *arguments = command.split()
    ran = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments], capture_output=True, text=True
    )
    assert ran.returncode and says in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr and "secret" not in ran.stderr
