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
import re
import secrets
import tomllib
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretBytes,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.contract import BurnedIn, Keep, Language, Uid
from gateway.verdict.competence import Competence, CompetenceError, load_competence
from gateway.verdict.grey_answers import GreyAnswers, GreyAnswersError, beside, load_grey_answers

SUMMARISER = "summariser"  # no worker's name; what its server calls the model
SUMMARISER_PORT = 8100
FIRST_WORKER_PORT = 8101

# Part of the panel's hash: whoever changes how answers are weighed, changes this line.
POLICY = (
    "a linear pool of calibrated beliefs by family, else a vote; what means the same to the "
    "question counts together, units and counts included; newcomers begin halfway"
)

# Of a seat: no part of the hash, since no answer depends on it.
WHERE_IT_RUNS = {"memory_gb", "replicas", "gpus"}

MEND_COMPETENCE = "run consilium calibrate, or remove the key and all voices are equal"


class SettingsError(Exception):
    """One line that names the file, the key, and how to mend it."""


def _template(*fields: str, optional: frozenset[str] = frozenset()) -> AfterValidator:
    """A text that must hold these {fields}, may hold the optional ones, and no others."""

    def check(text: str) -> str:
        try:
            fields_there = [each for each in Formatter().parse(text) if each[1] is not None]
        except ValueError as error:
            raise ValueError(f"is no template ({error}); write a literal brace twice") from error
        wanted = " and ".join(f"{{{name}}}" for name in fields)
        if {name for _, name, _, _ in fields_there} - optional != set(fields):
            raise ValueError(f"must hold {wanted} and no other field in braces")
        if any(form or conversion for _, _, form, conversion in fields_there):
            raise ValueError(f"must hold {wanted} as it is, without : or ! behind the name")
        return text

    return AfterValidator(check)


def _check_url(url: str) -> str:
    example = "such as http://127.0.0.1:8101"
    if not url.startswith(("http://", "https://")) or url.rstrip("/").endswith("/v1"):
        raise ValueError(f"must be the server's root, {example}, without /v1")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:  # a port beyond 65535, or half an IPv6 address
        raise ValueError(f"is no address ({error}); write one {example}") from error
    if parts.query or parts.fragment or re.search(r"\s", url):
        raise ValueError(f"must be the server's root, {example}, without ?, # and blanks")
    if port == 0:
        raise ValueError(f"is no address (there is no port 0); write one {example}")
    if not (_is_name(host) or _is_ip(host)):
        raise ValueError(f"is no address ({host!r} is no host); write one {example}")
    return url.rstrip("/")


def _is_name(host: str) -> bool:
    """Of a machine or a container; four numbers are an address and no name."""
    parts = host.removesuffix(".").split(".")
    return not parts[-1].isdigit() and all(
        re.fullmatch(r"\w([\w-]{0,61}\w)?", part) for part in parts
    )


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _check_store(url: str) -> str:
    if url == "memory://":
        return url
    # Imported where it is used: it would slow the start of every gateway that keeps to memory.
    from gateway.store.redis import is_redis_url

    if url.startswith(("redis://", "rediss://")) and is_redis_url(url):
        return url
    # Without the client's own words: they can quote a password.
    raise ValueError("must be memory:// or redis://HOST:PORT/DB")


def _as_urls(given: Any) -> Any:
    """A seat's `url` is one address or a list of them."""
    urls = [given] if isinstance(given, str) else given
    if not isinstance(urls, list | tuple) or not all(isinstance(url, str) for url in urls):
        raise ValueError("must be an address such as http://127.0.0.1:8101, or a list of such")
    if not urls:
        raise ValueError("names no server; remove the key to serve it here")
    return tuple(urls)


def _check_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    checked = []
    for number, url in enumerate(urls, 1):
        try:
            checked.append(_check_url(url))
        except ValueError as error:
            raise ValueError(f"number {number} {error}" if len(urls) > 1 else error) from error
    if len(set(checked)) < len(checked):
        raise ValueError("names one server twice; remove one")
    return tuple(checked)


Url = Annotated[str, AfterValidator(_check_url)]
Urls = Annotated[tuple[str, ...], BeforeValidator(_as_urls), AfterValidator(_check_urls)]
Store = Annotated[str, AfterValidator(_check_store)]
Languages = Annotated[tuple[Language, ...], Field(min_length=1)]


def _from_to(replicas: Any) -> Any:
    """A number is both, the least and the most."""
    least, most = (
        replicas if isinstance(replicas, list | tuple) and len(replicas) == 2 else (replicas,) * 2
    )
    if type(least) is int and type(most) is int and 1 <= least <= most:
        return least, most
    raise ValueError("must be a number from 1, or the least and the most, such as [1, 4]")


Replicas = Annotated[tuple[int, int], BeforeValidator(_from_to)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PanelSettings(_Frozen):
    quorum: int = Field(default=2, ge=1)
    deadline_s: float = Field(default=20, gt=0, le=600)
    store: Store = "memory://"
    competence: str | None = Field(
        default=None,
        description="What `consilium calibrate` wrote; a path from panel.toml's folder.",
    )
    k: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        default="all", description="So many are asked, those who are best in such cases."
    )
    generalist: str | None = Field(default=None, description="Who is always asked beside those.")
    grounding: bool = Field(
        default=True,
        description="Behind a verdict workers are asked what they say without its images, once for "
        "each question; false: only where a case wants to wait for it.",
    )


class WorkerSettings(_Frozen):
    """One seat. `engine` holds vLLM's arguments, without the leading dashes."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    family: str = Field(min_length=1)
    model: str = Field(min_length=1)
    languages: Languages = ("en",)
    max_images: int = Field(default=1, ge=1)
    each_image: bool = Field(
        default=False, description="It sees one image at a time: of several, each one alone."
    )
    deadline_s: float | None = Field(
        default=None, gt=0, le=600, description="Its own, where that is shorter than the panel's."
    )
    prompt: Annotated[str, _template("question")]
    urls: Urls = Field(alias="url", description="Of its servers, which all serve the same model.")
    external: bool = Field(description="The file itself gives the url: not ours to start.")
    memory_gb: float | None = Field(
        default=None, gt=0, description="Of a GPU, for its server: weights, cache and all."
    )
    replicas: Replicas = Field(
        default=(1, 1), description="On a cluster, of its server: 2, or [1, 4] as calls are open."
    )
    gpus: float = Field(
        default=1, gt=0, le=1, description="On a cluster, of each GPU that its server takes."
    )
    shadow: bool = Field(
        default=False, description="A candidate: asked behind verdicts, and compared; never heard."
    )
    one_token: bool = Field(
        default=False, description="Each of its answers is a token: what it nearly said is whole."
    )
    engine: dict[str, Any] = {}

    @property
    def url(self) -> str:
        """Where it is served if it is served here, or else by its first server."""
        return self.urls[0]

    @model_validator(mode="after")
    def _sees_one_or_several(self) -> "WorkerSettings":
        if self.each_image and self.max_images > 1:
            raise ValueError(
                "each_image is for a worker that takes one image; leave it or max_images out"
            )
        return self


class SummariserSettings(_Frozen):
    model: str = Field(min_length=1)
    quantization: str = "bitsandbytes"
    languages: Languages = ("en",)
    prompt: dict[
        Language,
        Annotated[str, _template("question", "answers", optional=frozenset({"winner"}))],
    ]
    opening: dict[Language, str] = Field(
        default={}, description="How each reply begins; the model goes on from there."
    )
    sentence: dict[Language, Annotated[str, _template("question", "claims")]] = Field(
        default={}, description="How it is asked for the style `sentence`; without, it is not."
    )
    thinking_tokens: int | None = Field(
        default=None,
        ge=1,
        description="How long a model that thinks first may think; null: it is none of those.",
    )
    url: Url
    external: bool = Field(description="The file itself gives the url: not ours to start.")
    memory_gb: float | None = Field(
        default=None, gt=0, description="Of a GPU, for its server: weights, cache and all."
    )
    replicas: Replicas = Field(
        default=(1, 1), description="On a cluster, of its server: 2, or [1, 4] as calls are open."
    )
    gpus: float = Field(
        default=1, gt=0, le=1, description="On a cluster, of each GPU that its server takes."
    )
    engine: dict[str, Any] = {}

    @model_validator(mode="after")
    def _thinks_or_is_opened(self) -> "SummariserSettings":
        if self.thinking_tokens and self.opening:
            raise ValueError(
                "opening puts the answer's beginning where a model would think first: leave out "
                "opening, or thinking_tokens"
            )
        return self

    @model_validator(mode="after")
    def _has_a_prompt_per_language(self) -> "SummariserSettings":
        for language in self.languages:
            if language not in self.prompt:
                raise ValueError(f"prompt.{language} is missing; add it, or drop the language")
        return self


class Limits(_Frozen):
    max_images: int = Field(default=4, ge=1)
    max_image_mb: float = Field(default=20, gt=0)
    max_body_mb: float = Field(default=40, gt=0)
    max_question_chars: int = Field(default=2_000, ge=1)
    max_context_chars: int = Field(default=8_000, ge=0)
    min_image_side: int = Field(default=16, ge=1, description="Pixels; smaller shows nothing.")
    max_image_aspect: float = Field(
        default=20, ge=1, description="The longer side by the shorter: more is a line, no picture."
    )
    burned_in: BurnedIn | None = Field(
        default=None, description="What is done about text in an image's pixels; null: nothing."
    )
    max_slices: int = Field(default=2_000, ge=1, description="Files and frames of a series.")
    max_series_mb: float = Field(default=1_000, gt=0, description="All files of it, unpacked.")
    series_s: float = Field(default=30, gt=0, description="To sort, fetch and decode a series.")

    @field_validator("burned_in")
    @classmethod
    def _can_be_read(cls, how: str | None) -> str | None:
        if how and find_spec("rapidocr") is None:
            raise ValueError("needs a reader of text: pip install 'consilium[burned-in]'")
        return how


class Load(_Frozen):
    """What the gateway takes on at a time, and from one key."""

    max_at_work: int = Field(default=64, ge=1, description="Cases that workers are asked about.")
    max_waiting: int = Field(default=256, ge=0, description="Beyond those: 503, try again.")
    max_of_a_key: int | None = Field(
        default=None, ge=1, description="Cases of one key inside at a time; null: any."
    )
    max_per_minute: int | None = Field(default=None, ge=1, description="Of one key; null: any.")
    body_s: float = Field(default=30, gt=0, description="A request's body must be there by then.")
    drain_s: float = Field(
        default=5, ge=0, description="After SIGTERM: not ready, but still answering, for so long."
    )


def _check_origin(origin: str) -> str:
    scheme, mark, host = origin.partition("://")
    if origin == "*" or (scheme in ("http", "https") and mark and host and "/" not in host):
        return origin
    raise ValueError("must be as browsers send it, such as https://ward.example, or *")


def _check_root(path: str) -> str:
    if path and not re.fullmatch(r"(/[^/?#]+)+", path):
        raise ValueError("must begin with / and end without it, such as /consilium")
    return path


class Http(_Frozen):
    """Where the gateway is found by who asks it."""

    root_path: Annotated[str, AfterValidator(_check_root)] = Field(
        default="", description="The path under which a proxy shows the gateway."
    )
    origins: tuple[Annotated[str, AfterValidator(_check_origin)], ...] = Field(
        default=(), description="Whose web pages may ask from a browser; none of another origin."
    )


def _check_archive(url: str) -> str:
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("must be an address alone; its key is CONSILIUM_ARCHIVE_AUTHORIZATION")
    _check_url(f"{parts.scheme}://{parts.netloc}")
    return url.rstrip("/")


class ArchiveSettings(_Frozen):
    """The one archive that cases may name images in, and answers may go back to."""

    url: Annotated[str, AfterValidator(_check_archive)] = Field(
        description="Of its DICOMweb services: what stands before /studies."
    )
    timeout_s: float = Field(default=20, gt=0, description="For each of its answers.")
    store: bool = Field(
        default=False, description="Whether a case may ask that its verdict be stored there."
    )
    tenants: dict[str, tuple[Uid, ...]] | None = Field(
        default=None,
        description="Whose studies a tenant may ask about, as the beginnings of their UIDs, and "
        "who is not named about none; null: everybody about all.",
    )
    authorization: SecretStr | None = Field(default=None, description="From the environment.")

    @field_validator("store")
    @classmethod
    def _can_be_written(cls, store: bool) -> bool:
        if store and find_spec("highdicom") is None:
            raise ValueError("needs a writer of reports: pip install 'consilium[archive]'")
        return store

    def shows(self, study: str, tenant: str) -> bool:
        """Whether a tenant may ask about it."""
        if self.tenants is None:
            return True
        return any(f"{study}.".startswith(f"{root}.") for root in self.tenants.get(tenant, ()))


class AuditSettings(_Frozen):
    folder: str | None = Field(default=None, description="null: none is kept.")
    days: int = Field(default=90, ge=1, description="Older files are deleted.")


class FeedbackSettings(_Frozen):
    """What readers say of verdicts; without the table nothing is kept."""

    folder: str = "feedback"
    keep: Keep = Field(
        default="marks", description="cases: question, answer and images too, of who agrees."
    )
    days: int = Field(default=90, ge=1, description="Older verdicts, and words on them, go.")


class Settings(_Frozen):
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
        if SUMMARISER in names:
            raise ValueError("a worker cannot be called summariser; rename it")
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
    workers = [seat for seat in content["workers"] if not seat.get("shadow")]
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
    filled["workers"] = [seat for seat in seats if not seat.get("shadow")]
    filled["shadows"] = [seat for seat in seats if seat.get("shadow")]
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
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = list(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if where[:1] in (["workers"], ["shadows"]):
        is_shadow = where[0] == "shadows"
        seats = [n for n, each in enumerate(workers) if bool(each.get("shadow")) == is_shadow]
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
