"""What may stand in each table of panel.toml: every key, its default, its bounds, its meaning."""

import re
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address
from string import Formatter
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from gateway.contract import BurnedIn, Keep, Language, Uid


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
    if not url.startswith(("http://", "https://")) or "/v1/" in f"{url}/":
        raise ValueError(f"must be the server's root, {example}, without /v1")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:  # whose own words may hold half a password
        wrong = "its port is no number up to 65535, or its host is cut or none"
        raise ValueError(f"is no address ({wrong}); write one {example}") from error
    if parts.query or parts.fragment or re.search(r"\s", url):
        raise ValueError(f"must be the server's root, {example}, without ?, # and blanks")
    if port == 0:
        raise ValueError(f"is no address (there is no port 0); write one {example}")
    if not (_is_name(host) or _is_ip(host)):
        raise ValueError(f"is no address ({host!r} is no host); write one {example}")
    return url.rstrip("/")


def _check_seat(name: str) -> str:
    """It becomes a part of host names and of variables."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise ValueError("must be small letters, digits and hyphens between them, at most 63")
    return name


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
Languages = Annotated[tuple[Language, ...], Field(min_length=1, strict=False)]


def _from_to(replicas: Any) -> Any:
    """A number is both, the least and the most."""
    least, most = (
        replicas if isinstance(replicas, list | tuple) and len(replicas) == 2 else (replicas,) * 2
    )
    if type(least) is int and type(most) is int and 1 <= least <= most:
        return least, most
    raise ValueError("must be a number from 1, or the least and the most, such as [1, 4]")


Replicas = Annotated[tuple[int, int], BeforeValidator(_from_to)]


def _number_or_all(k: Any) -> Any:
    if k == "all" or (type(k) is int and k >= 1):
        return k
    raise ValueError('must be a number from 1, or "all"')


class _Frozen(BaseModel):
    # TOML has kinds: true is no number, and "false" is no false. Of its lists we make tuples.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class PanelSettings(_Frozen):
    quorum: int = Field(default=2, ge=1)
    deadline_s: float = Field(default=20, gt=0, le=600)
    store: Store = "memory://"
    competence: str | None = Field(
        default=None,
        description="What `consilium calibrate` wrote; a path from panel.toml's folder.",
    )
    k: Annotated[int | Literal["all"], BeforeValidator(_number_or_all)] = Field(
        default="all", description="So many are asked, those who are best in such cases."
    )
    generalist: str | None = Field(default=None, description="Who is always asked beside those.")
    grounding: bool = Field(
        default=True,
        description="Behind a verdict workers are asked what they say without its images, once for "
        "each question; false: only where a case wants to wait for it.",
    )


class _Served(_Frozen):
    """What a worker's table and the summariser's both say of the server."""

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


class WorkerSettings(_Served):
    """One seat. `engine` holds vLLM's arguments, without the leading dashes."""

    name: Annotated[str, AfterValidator(_check_seat)]
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
    shadow: bool = Field(
        default=False, description="A candidate: asked behind verdicts, and compared; never heard."
    )
    one_token: bool = Field(
        default=False, description="Each of its answers is a token: what it nearly said is whole."
    )

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


class SummariserSettings(_Served):
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
    entails: dict[
        Language, Annotated[str, _template("one", "other", optional=frozenset({"question"}))]
    ] = Field(
        default={},
        description="How it is asked, for a yes or a no, whether one claim entails the other; "
        "without, rules alone decide which mean the same.",
    )
    thinking_tokens: int | None = Field(
        default=None,
        ge=1,
        description="How long a model that thinks first may think; null: it is none of those.",
    )
    url: Url

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
    max_series_mb: float = Field(default=1_000, gt=0, description="Unpacked; all series at once.")
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
    """Another spelling than the browsers' (RFC 6454 section 6.1) would fit nobody."""
    if origin == "*":
        return origin
    scheme, _, place = origin.partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme)
    if port and origin == origin.lower() and origin.isascii():
        with suppress(ValueError):
            if not re.search(f"[/@]|{port}$", place):
                return _check_url(origin)
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
        default=(),
        strict=False,
        description="Whose web pages may ask from a browser; none of another origin.",
    )


def _check_archive(url: str) -> str:
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("must be an address alone; its key is CONSILIUM_ARCHIVE_AUTHORIZATION")
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    _check_url(f"{parts.scheme}://{parts.netloc}")
    return url.rstrip("/")


class ArchiveSettings(_Frozen):
    """The one archive that cases may name images in, and answers may go back to."""

    url: Annotated[str, AfterValidator(_check_archive)] = Field(
        description="Of its DICOMweb services: what stands before /studies."
    )
    timeout_s: float = Field(
        default=20, gt=0, description="For each of its answers, and for storing."
    )
    store: bool = Field(
        default=False, description="Whether a case may ask that its verdict be stored there."
    )
    tenants: dict[str, Annotated[tuple[Uid, ...], Field(strict=False)]] | None = Field(
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

    folder: str = Field(default="feedback", min_length=1)
    keep: Keep = Field(
        default="marks", description="cases: question, answer and images too, of who agrees."
    )
    days: int = Field(default=90, ge=1, description="Older verdicts, and words on them, go.")
