"""panel.toml and the environment, read once into one frozen object.

The file says who sits on the panel. The environment overrides URLs and secrets only:
CONSILIUM_WORKER_<NAME>_URL (several with commas), CONSILIUM_SUMMARISER_URL, CONSILIUM_STORE,
CONSILIUM_SECRET (or CONSILIUM_SECRET_FILE, which holds it) and CONSILIUM_KEYS, the file of API
keys; CONSILIUM_PANEL names the panel file. CONSILIUM_ARCHIVE_AUTHORIZATION is the Authorization
header that the archive wants.
"""

import hashlib
import json
import os
import secrets
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretBytes,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.contract import Language
from gateway.must_be import what_it_must_be
from gateway.tables import (
    ArchiveSettings,
    AuditSettings,
    FeedbackSettings,
    Http,
    Limits,
    Load,
    PanelSettings,
    SummariserSettings,
    WorkerSettings,
)
from gateway.verdict.competence import Competence, CompetenceError, load_competence
from gateway.verdict.grey_answers import GreyAnswers, GreyAnswersError, beside, load_grey_answers

SUMMARISER = "summariser"  # no worker's name; what its server calls the model
# Beside workers these stand in tables and reports: other voices, and ways to weigh them.
OTHER_VOICES = {SUMMARISER, "panel", "vote", "confidence", "calibrated", "cross-fitted"}
SUMMARISER_PORT = 8100
FIRST_WORKER_PORT = 8101

# Part of the panel's hash: whoever changes how answers are weighed, changes this line.
POLICY = (
    "a linear pool of calibrated beliefs by family, else a vote; what means the same to the "
    "question counts together, numbers in words, ranges, comparisons, ordinals, units and "
    "counts of none included; who does not know has no vote; newcomers begin halfway; no modality "
    "but the known one, said or nearly said"
)

# Of a seat: no part of the hash, since no answer depends on it.
WHERE_IT_RUNS = {"memory_gb", "replicas", "gpus"}

MEND_COMPETENCE = "run consilium calibrate, or remove the key and all voices are equal"


class SettingsError(Exception):
    """One line that names the file, the key, and how to mend it."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    file: Path
    keys: Path | None = None
    panel: PanelSettings = PanelSettings()
    workers: tuple[WorkerSettings, ...] = Field(min_length=1)
    shadows: tuple[WorkerSettings, ...] = ()
    summariser: SummariserSettings | None = None
    limits: Limits = Limits()
    load: Load = Load()
    audit: AuditSettings = AuditSettings()
    feedback: FeedbackSettings | None = None
    http: Http = Http()
    archive: ArchiveSettings | None = None
    competence: Competence | None = None
    grey_answers: GreyAnswers | None = None
    panel_hash: str
    secret: SecretBytes
    secret_is_random: bool = Field(default=False, description="None was given: others differ.")

    @property
    def secret_bytes(self) -> bytes:
        return self.secret.get_secret_value()

    @property
    def seats(self) -> tuple[WorkerSettings, ...]:
        """Everybody who is to be started and looked after."""
        return (*self.workers, *self.shadows)

    @property
    def families(self) -> dict[str, str]:
        return {worker.name: worker.family for worker in self.workers}

    def takes(self, worker: WorkerSettings) -> int:
        """How many images of one case the worker can be asked about, together or one by one."""
        return self.limits.max_images if worker.each_image else worker.max_images

    def most_images(self, language: Language, workers: Collection[str] | None) -> int:
        """With so many a quorum of the workers (null: all) can be asked in that language; of fewer
        than a quorum, each of them. At least 1: what nobody can be asked is refused elsewhere."""
        takes = sorted(
            self.takes(worker)
            for worker in self.workers
            if language in worker.languages and (workers is None or worker.name in workers)
        )
        return min(takes[-self.panel.quorum :], default=1)

    @property
    def audit_folder(self) -> Path | None:
        return self.file.parent / self.audit.folder if self.audit.folder else None

    @property
    def feedback_folder(self) -> Path | None:
        return self.file.parent / self.feedback.folder if self.feedback else None

    def as_it_is_now(self) -> "Settings":
        """What the file says now, with what only a restart changes.

        Raises:
            SettingsError: the file is not to be used.
        """
        now = load_settings(self.file)
        if now.panel.store != self.panel.store:
            raise SettingsError(f"{self.file}: panel.store: another one needs a restart")
        # The same secret, so that what was kept is found again; and what is kept of readers' words
        # is what /panel says of it.
        same = {"secret": self.secret, "feedback": self.feedback}
        return now.model_copy(update=same | {"secret_is_random": self.secret_is_random})

    def is_calibrated(self, worker: str) -> bool | None:
        """Whether its voice was; None where all are equal."""
        return worker in self.competence.workers if self.competence else None

    @property
    def learned_from(self) -> str | None:
        """What voices were calibrated on, and whose were not."""
        if self.competence is None:
            return None
        new = [w.name for w in self.workers if not self.is_calibrated(w.name)]
        begins = f"; not {', '.join(new)}, whose voice begins at a prior" if new else ""
        return self.competence.learned_from + begins

    @field_validator("workers", "shadows")
    @classmethod
    def _names_differ(
        cls, workers: tuple[WorkerSettings, ...], before: ValidationInfo
    ) -> tuple[WorkerSettings, ...]:
        names = [worker.name for worker in (*before.data.get("workers", ()), *workers)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two workers are called {name}; rename one")
        if taken := OTHER_VOICES.intersection(names):
            raise ValueError(f"a worker cannot be called {min(taken)}; rename it")
        return workers

    @model_validator(mode="after")
    def _seats_fit_the_panel(self) -> "Settings":
        if self.panel.k != "all" and self.panel.competence is None:
            raise ValueError("panel.k needs panel.competence, which says who is best at what")
        generalist = self.panel.generalist
        if generalist is not None and generalist not in {w.name for w in self.workers}:
            raise ValueError(f"panel.generalist: no worker is called {generalist}")
        if self.panel.quorum > len(self.workers):
            raise ValueError(
                f"panel.quorum is {self.panel.quorum} but {len(self.workers)} workers are seated; "
                "lower it, or seat more"
            )
        return self


def load_settings(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    with_competence: bool = True,
) -> Settings:
    """Read the panel file (default: $CONSILIUM_PANEL, else ./panel.toml); raises SettingsError.

    Without its competence file all voices are equal, and who is seated may have changed.
    """
    path = path or Path(environ.get("CONSILIUM_PANEL", "panel.toml"))
    content = _read(path)
    content["workers"] = content.pop("worker", [])
    content["competence"] = None
    settings = _validated(path, content, environ)
    if with_competence and settings.panel.competence:
        content["competence"] = _competence(path, settings)
        content["grey_answers"] = _grey_answers(path, settings)
        settings = _validated(path, content, environ)
    return settings


def url_variable(name: str) -> str:
    """What the environment calls the address of a seat."""
    seat = name if name == SUMMARISER else f"worker_{name}"
    return f"CONSILIUM_{seat}_URL".upper().replace("-", "_")


def _validated(path: Path, content: dict[str, Any], environ: Mapping[str, str]) -> Settings:
    content = content | {"file": path, "panel_hash": _panel_hash(content)}
    try:
        return Settings.model_validate(_with_environment(content, environ))
    except ValidationError as error:
        raise SettingsError(_one_line(path, error, content["workers"])) from error


def _competence(path: Path, settings: Settings) -> Competence:
    """What was learned of the workers that are seated as they were then; the others are new."""
    file = path.parent / str(settings.panel.competence)
    try:
        learned = load_competence(file)
    except (CompetenceError, ValueError) as error:
        raise SettingsError(f"{path}: panel.competence: {error}; {MEND_COMPETENCE}") from error
    seats = {worker.name: (worker.model, worker.prompt) for worker in settings.workers}
    known = {
        name: each
        for name, each in learned.workers.items()
        if seats.get(name) == (each.model, each.prompt)
    }
    if not known:
        raise SettingsError(
            f"{path}: panel.competence: {file} was learned from no worker as it is seated now; "
            f"{MEND_COMPETENCE}"
        )
    tells = tuple(name for name in learned.tells if name in known)
    return learned.model_copy(update={"workers": known, "tells": tells})


def _grey_answers(path: Path, settings: Settings) -> GreyAnswers | None:
    """Those beside the competence file, of the workers that are seated as they were then."""
    try:
        found = load_grey_answers(beside(path.parent / str(settings.panel.competence)))
    except GreyAnswersError as error:
        raise SettingsError(
            f"{path}: panel.competence: {error}; run consilium calibrate --grey, or remove it"
        ) from error
    return found and found.of_seats({w.name: (w.model, w.prompt) for w in settings.workers})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise SettingsError(
            f"{path}: {error.strerror}; name the panel file with CONSILIUM_PANEL"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: not TOML: {error}; mend that line") from error
    tables = ("panel", "summariser", "limits", "load", "audit", "feedback", "http", "archive")
    for key in content:
        if key not in {*tables, "worker"}:
            raise SettingsError(
                f"{path}: unknown section [{key}]; the sections are [[worker]], "
                f"{', '.join(f'[{table}]' for table in tables)}"
            )
    for key in tables:
        if not isinstance(content.get(key, {}), dict):
            raise SettingsError(f"{path}: {key} must be a table; write it as [{key}]")
    seats = content.get("worker", [])
    if not isinstance(seats, list) or not all(isinstance(seat, dict) for seat in seats):
        raise SettingsError(f"{path}: worker must be a list of tables; write each as [[worker]]")
    if any("external" in table for table in [*seats, content.get("summariser", {})]):
        raise SettingsError(f"{path}: external follows from url; remove the key")
    if "authorization" in content.get("archive", {}):
        raise SettingsError(
            f"{path}: archive.authorization is for the environment: CONSILIUM_ARCHIVE_AUTHORIZATION"
        )
    return content


def _panel_hash(content: dict[str, Any]) -> str:
    """What could change a verdict, and nothing else: limits, deadline and store cannot."""
    panel = content.get("panel")
    panel = panel if isinstance(panel, dict) else {}
    chosen = {key: panel.get(key) for key in ("quorum", "k", "generalist")}
    competence = content["competence"] and content["competence"].model_dump()
    workers = [seat for seat in content["workers"] if seat.get("shadow") is not True]
    seats = [*workers, content.get("summariser") or {}]
    said = [{key: seat[key] for key in seat if key not in WHERE_IT_RUNS} for seat in seats]
    decisive = [POLICY, chosen, said, competence]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()


def _with_environment(content: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Fill every url, from the environment, the file or the seat, in this order; add the secret."""

    def place(table: dict[str, Any], variable: str, port: int) -> dict[str, Any]:
        local = f"http://127.0.0.1:{port}"
        url = environ.get(variable) or table.get("url", local)
        return table | {"url": url, "external": "url" in table}

    def seated(worker: dict[str, Any], seat: int) -> dict[str, Any]:
        variable = url_variable(str(worker.get("name")))
        placed = place(worker, variable, FIRST_WORKER_PORT + seat)
        url = placed["url"]
        several = isinstance(url, str) and "," in url
        return placed | {"url": [each.strip() for each in url.split(",")] if several else url}

    filled = dict(content)
    seats = [seated(worker, seat) for seat, worker in enumerate(content["workers"])]
    filled["workers"] = [seat for seat in seats if seat.get("shadow") is not True]
    filled["shadows"] = [seat for seat in seats if seat.get("shadow") is True]
    if "summariser" in content:
        variable = url_variable(SUMMARISER)
        filled["summariser"] = place(content["summariser"], variable, SUMMARISER_PORT)
    if store := environ.get("CONSILIUM_STORE"):
        filled["panel"] = content.get("panel", {}) | {"store": store}
    if keys := environ.get("CONSILIUM_KEYS"):
        filled["keys"] = keys
    if "archive" in content:
        authorization = environ.get("CONSILIUM_ARCHIVE_AUTHORIZATION")
        filled["archive"] = content["archive"] | {"authorization": authorization}
    given = _secret(environ)
    # A random one is safe: other processes then merely cannot share the cache.
    secret = given or secrets.token_bytes(32)
    return filled | {"secret": secret, "secret_is_random": not given}


def _secret(environ: Mapping[str, str]) -> bytes:
    if file := environ.get("CONSILIUM_SECRET_FILE"):
        try:
            found = Path(file).read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"CONSILIUM_SECRET_FILE: {file}: {error.strerror}") from error
        if not found:
            raise SettingsError(f"CONSILIUM_SECRET_FILE: {file} is empty; write 32 random bytes")
        return found
    return environ.get("CONSILIUM_SECRET", "").encode()


def _one_line(path: Path, error: ValidationError, workers: list[dict[str, Any]]) -> str:
    """The first complaint, in the words of the file: `panel.toml: worker 2 (thorax): prompt: …`."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = list(first["loc"])
    message = what_it_must_be(first, "a table") or first["msg"].removeprefix("Value error, ")
    if where[:1] in (["workers"], ["shadows"]):
        is_shadow = where[0] == "shadows"
        seats = [n for n, each in enumerate(workers) if (each.get("shadow") is True) == is_shadow]
        if len(where) == 1:
            message = message if seats else "none is seated; add a [[worker]]"
            where = ["worker"]
        else:
            seat = seats[int(where[1])]
            where = [f"worker {seat + 1} ({workers[seat].get('name', 'unnamed')})", *where[2:]]
    if first["type"] == "missing":
        message = "is missing; add it"
    elif first["type"] == "extra_forbidden":
        message = "is not a known key; remove it, or mend its spelling"
    key = ": ".join(str(part) for part in where)
    return f"{path}: {key}: {message}" if key else f"{path}: {message}"
