"""Every command that README.md, CONTRIBUTING.md or docs/ shows has a row in shown_commands.toml: it
is run here, or by the test that the row names, or the row says why neither can be.

A command is a line of a fenced block of shell, or code in a sentence that is a whole command.
"""

import ast
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from pydicom.data import get_testdata_file
from typer.exceptions import TyperException
from typer.main import get_command
from typer.testing import CliRunner

import consilium
from gateway.door import keys
from gateway.settings import Settings, load_settings
from models.metrics import score
from services.cli.__main__ import app
from services.evaluation.learning import fit
from tests.conftest import picture
from tests.mock_vllm import MockVllm

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = tomllib.loads((Path(__file__).parent / "shown_commands.toml").read_text("utf-8"))
RUN = {command.strip() for command in TABLE["run"]}
ELSEWHERE: dict[str, str] = TABLE["elsewhere"]
NOT_HERE: dict[str, str] = TABLE["not_here"]

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PANEL_FILE = re.compile(r"panel file [^`]*`(\S+\.toml)`:\n\n```toml\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
TAKEN_FOR_GRANTED = {"CONSILIUM_DATA": "data", "CONSILIUM_KEYS": "keys.json"}  # told once
LEFT_OPEN = {
    "CONSILIUM_DATA=… ": "",
    "DATASET": "slake",
    "SPLIT": "test",
    "LANGUAGE": "en",
    "RUN": "runs/en",
}
LAUNCHERS = ("make ", "docker compose ", "accelerate ", "python -m ")
GATEWAY, CANDIDATE = "http://127.0.0.1:8000", "http://127.0.0.1:8001"


@dataclass(frozen=True)
class Shown:
    command: str
    page: str
    line: int
    environment: tuple[tuple[str, str], ...] = ()  # what the block has exported above it

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.command}"


def test_the_script_for_slurm_is_one_that_goes_on() -> None:
    """No SLURM is here: that the shell takes it, and that its first line makes it a script."""
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    (script,) = (block[2] for block in FENCED.finditer(page) if "#SBATCH" in block[2])

    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    signal = re.search(r"--signal=B:(\w+)@", script)
    assert signal and f"trap 'scontrol requeue \"$SLURM_JOB_ID\"' {signal[1]}\n" in script


def shown_in(page: Path) -> Iterator[Shown]:
    """The page's commands, in their order."""
    text = page.read_text("utf-8")
    found: list[tuple[int, Shown]] = []
    for block in FENCED.finditer(text):
        if block[1] in ("sh", "bash", "console"):
            found += [(block.start(), each) for each in _of_block(text, block, page.name)]
    prose = FENCED.sub(lambda block: " " * len(block[0]), text)  # the same places, without blocks
    for code in INLINE.finditer(prose):
        command = " ".join(code[1].split())
        if _is_whole(command):
            line = text.count("\n", 0, code.start()) + 1
            found.append((code.start(), Shown(command, page.name, line)))
    yield from (each for _, each in sorted(found, key=lambda pair: pair[0]))


def _of_block(text: str, block: re.Match[str], page: str) -> Iterator[Shown]:
    exported: tuple[tuple[str, str], ...] = ()
    lines = iter(block[2].splitlines())
    number = text.count("\n", 0, block.start()) + 1
    for line in lines:
        number += 1
        first, command = number, _bare(line)
        while command.endswith("\\"):
            command, number = command[:-1].rstrip() + " " + _bare(next(lines)).strip(), number + 1
        if here := re.search(r"<<(\w+)$", command):
            while not command.endswith(f"\n{here[1]}"):
                command, number = f"{command}\n{next(lines)}", number + 1
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            exported += ((name, value),)
        elif command:
            yield Shown(command, page, first, exported)


def _bare(line: str) -> str:
    """Without prompt and comment."""
    return re.sub(r"(^|\s+)#.*$", "", line.removeprefix("$ ")).rstrip()


def filled_in(command: str) -> str:
    """With one of the values that a page leaves open."""
    for word, value in LEFT_OPEN.items():
        command = command.replace(word, value)
    return command


def _is_whole(code: str) -> bool:
    """Whether code in a sentence is a command, not a part of one that it speaks of."""
    words = code.split()
    if len(words) < 2 or "…" in words:
        return False
    if "consilium" in words[:2]:
        return not parse(code)
    return code.startswith(LAUNCHERS)


def words_of(command: str) -> list[str]:
    """Without what stands before the program: variables, and niceness."""
    words = shlex.split(command)
    while "=" in words[0] or words[0] == "nice":
        words = words[1:]
    return words


def parse(command: str, whole: bool = True) -> str:
    """What the command line has against a `consilium` command; "" where nothing.

    Where it need not be whole, its verb and its options must be there.
    """
    try:
        arguments = words_of(command)[1:]
    except ValueError as error:
        return f"no shell reads it: {error}"
    verb: Any = get_command(app)
    context = verb.make_context("consilium", [], resilient_parsing=True)
    while hasattr(verb, "commands"):
        if not arguments or arguments[0] not in verb.commands:
            return f"no verb {' '.join(arguments[:1])!r}"
        verb = verb.commands[arguments.pop(0)]
    known = {"--help", *(option for each in verb.params for option in each.opts)}
    if strange := [word for word in arguments if word.startswith("--") and word not in known]:
        return f"no such option: {', '.join(strange)}"
    if not whole or "--help" in arguments:
        return ""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TAKEN_FOR_GRANTED.items():
            patch.setenv(name, value)
        try:
            verb.make_context("consilium", arguments, parent=context)
        except TyperException as error:
            # Whoever reads the page has the file.
            return "" if str(error).endswith("does not exist.") else str(error)
    return ""


EVERY = [each for page in PAGES for each in shown_in(page)]


def test_every_command_that_is_shown_has_one_row() -> None:
    """Whoever shows a new one says in shown_commands.toml what becomes of it."""
    rows = [*RUN, *ELSEWHERE, *NOT_HERE]

    assert [str(each) for each in EVERY if each.command not in rows] == []
    assert {each for each in rows if rows.count(each) > 1} == set()


def test_every_row_is_a_command_that_is_shown() -> None:
    shown = {each.command for each in EVERY}

    assert {*RUN, *ELSEWHERE, *NOT_HERE} - shown == set()


@pytest.mark.parametrize("shown", EVERY, ids=str)
def test_what_starts_it_takes_its_arguments(shown: Shown) -> None:
    """Where it cannot be run, at least its verb, options, target, module or profile are there."""
    program, *arguments = words_of(shown.command)
    if program == "consilium":
        assert parse(filled_in(shown.command)) == ""
    elif program == "make":
        targets = [word for word in arguments if "=" not in word] or ["demo"]
        makefile = (ROOT / "Makefile").read_text("utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    elif program == "docker" and "--profile" in arguments:
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
        profiles = {
            name for each in compose["services"].values() for name in each.get("profiles", ())
        }
        assert arguments[arguments.index("--profile") + 1] in profiles
    elif program == "python":
        assert find_spec(arguments[1])


def test_every_mention_of_a_command_names_verbs_and_options_that_there_are() -> None:
    """A sentence may leave the rest of a command out, but names nothing that is not there."""
    wrong = []
    for page in PAGES:
        for found in INLINE.findall(FENCED.sub("", page.read_text("utf-8"))):
            code = " ".join(found.split())
            if re.match(r"(\S+=\S+ )?consilium [a-z]", code) and (why := parse(code, whole=False)):
                wrong.append((page.name, code, why))

    assert wrong == []


@pytest.mark.parametrize("place", sorted(set(ELSEWHERE.values())))
def test_the_test_that_a_row_names_is_there(place: str) -> None:
    file, _, name = place.partition("::")
    defined = ast.walk(ast.parse((ROOT / file).read_text("utf-8")))

    functions = ast.FunctionDef | ast.AsyncFunctionDef
    assert name in {each.name for each in defined if isinstance(each, functions)}


@dataclass(frozen=True)
class Desk:
    """A folder with what a reader has at hand, where a panel of mocks answers, and where a worker
    that is its candidate."""

    folder: Path
    url: str
    candidate: str
    panel: Path  # the file of that panel

    def run(self, shown: Shown) -> None:
        """Runs it as it is shown, with this desk's names for what the page leaves open."""
        command = filled_in(shown.command)
        for usual, here in ((GATEWAY, self.url), (CANDIDATE, self.candidate)):
            command = command.replace(usual, here)
        if (made := self.folder / "keys.json").exists():
            command = command.replace("1a2b3c4d", keys.read(made)[0].id)
        environ = TAKEN_FOR_GRANTED | dict(shown.environment)
        if words_of(command)[0] == "consilium":
            words = words_of(command)[1:]
            arguments = words if "--gateway" in words else [*words, *self._whereabouts(words[0])]
            done = CliRunner().invoke(app, arguments, env=environ)
            assert done.exit_code == 0, f"{shown}\n{done.output}\n{done.exception!r}"
        else:
            # --fail: an answer that is no verdict fails.
            command = command.replace("curl ", "curl --fail --max-time 30 ")
            shell = ["bash", "-euo", "pipefail", "-c", command]
            ended = subprocess.run(shell, env=os.environ | environ, capture_output=True, text=True)
            assert ended.returncode == 0, f"{shown}\n{ended.stdout}{ended.stderr}"

    def _whereabouts(self, verb: str) -> list[str]:
        """The pages speak of a gateway at its usual place, and of the panel that it serves."""
        if verb in ("ask", "evaluate", "explain"):
            return ["--gateway", self.url]
        return ["--panel", str(self.panel)] if verb in ("calibrate", "join", "replay") else []


def draw_slake(data: Path) -> None:
    """SLAKE's layout: 18 images a split, four questions each in two languages: as little as a panel
    is calibrated on."""
    for split in ("validate", "test"):
        rows = []
        for number in range(18):
            folder = data / "slake" / "imgs" / f"{split}{number}"
            folder.mkdir(parents=True)
            Image.new("L", (16, 16), 10 * number + len(split)).save(folder / "source.jpg")
            for asked, language in itertools.product(range(4), ("en", "zh")):
                row = {"img_name": f"{split}{number}/source.jpg", "qid": len(rows)}
                row |= {"question": f"Is there organ {asked}?", "q_lang": language}
                row |= {"answer": ("Yes", "No")[(asked + number) % 2], "answer_type": "CLOSED"}
                rows.append(row | {"modality": "CT", "content_type": "Organ"})
        (data / "slake" / f"{split}.json").write_text(json.dumps(rows), "utf-8")


@pytest.fixture
def desk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    vllm: Callable[..., MockVllm],
    gateway: Callable[..., str],
    serve: Callable[[Settings], str],
) -> Desk:
    def looks(modulus: int) -> Callable[[dict[str, Any]], str]:
        """A worker of its own mind, that sees every effusion."""

        def says(asked: dict[str, Any]) -> str:
            lot = zlib.crc32(str(asked).encode()) % modulus
            return "No" if lot and "organ" in str(asked) else "Yes"

        return says

    # A tenth of the bootstrap and one ridge of five: nobody reads the figures.
    monkeypatch.setattr(score, "RESAMPLES", 200)
    monkeypatch.setattr(fit, "STRENGTHS", (0.1,))
    folder = tmp_path / "desk"
    for made in ("deploy/secrets", "deploy/keys", "models/zoo", "models/recipes", "data"):
        (folder / made).mkdir(parents=True)
    kept = ("models/zoo/competence.json", "models/recipes/mobilenet.toml")
    for name in ("panel.toml", "panel.gpu.toml", *kept):
        shutil.copy(ROOT / name, folder / name)
    for name in ("chest.dcm", "scan.dcm"):
        shutil.copy(str(get_testdata_file("CT_small.dcm", download=False)), folder / name)
    (folder / "chest.png").write_bytes(picture())
    (folder / "scans").mkdir()
    (folder / "scans" / "chest.png").write_bytes(picture())
    draw_slake(folder / "data")
    keys.add(folder / "keys.json", "reader", None, False)
    workers = [vllm(looks(modulus)) for modulus in (2, 3, 5)]
    seats = ['languages = ["en", "zh"]'] * len(workers)
    url = gateway(workers, seats=seats, summariser=vllm("Yes").url)
    alone = tmp_path / "candidate.toml"
    alone.write_text(
        '[panel]\nquorum = 1\n[[worker]]\nname = "candidate"\nfamily = "mock"\nmodel = "mock"\n'
        f'prompt = "{{question}}"\nlanguages = ["en"]\nurl = "{vllm(looks(7)).url}"\n'
    )
    candidate = serve(load_settings(alone, environ={}))
    monkeypatch.chdir(folder)
    return Desk(folder, url, candidate, tmp_path / "panel.toml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_runs(page: Path, desk: Desk) -> None:
    """From top to bottom, as a reader would follow it."""
    for name, content in PANEL_FILE.findall(page.read_text("utf-8")):
        (desk.folder / name).write_text(content, "utf-8")
    for shown in shown_in(page):
        if shown.command in RUN:
            desk.run(shown)


@pytest.mark.parametrize("page", ["asking.md", "chat.md", "client.md"])
def test_what_a_page_shows_in_python_runs(
    page: str, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(consilium.ask.__kwdefaults__, "url", desk.url)
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL)

    for code in shown:
        exec(code.replace(GATEWAY, desk.url), {})
        assert "yes" in capsys.readouterr().out.lower()


def test_every_python_that_is_shown_is_run() -> None:
    """What the other pages show is held by tests of their own."""
    shown = {page.name for page in PAGES if "```python" in page.read_text("utf-8")}

    assert shown == {
        *("asking.md", "chat.md", "client.md"),
        *("connectors.md", "datasets.md", "evaluate.md", "scorers.md"),
    }
