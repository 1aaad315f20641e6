"""API keys: who may ask, for which tenant, how often. A file of hashes; the keys are nowhere.

A key is 256 random bits, so one round of SHA-256 keeps it: slow hashes are for what people make up.
"""

import codecs
import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gateway.refusals import Unauthorized

KEY = re.compile(r"consilium_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"

log = logging.getLogger("consilium.gateway")


class KeysError(Exception):
    """A keys file that cannot be used; one sentence says why and what to do."""


class _Frozen(BaseModel):
    # Strict: "admin": 1 may be a slip, and makes nobody an admin.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Key(_Frozen):
    """What is known of a key. Tenants never share an answer; an admin may change the panel."""

    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    tenant: str = Field(pattern=NAME)
    per_minute: int | None = Field(default=None, ge=1, description="null: the panel's own limit.")
    admin: bool = False
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: datetime
    revoked: datetime | None = None


class _File(_Frozen):
    keys: tuple[Key, ...] = ()

    @field_validator("keys")
    @classmethod
    def _ids_differ(cls, keys: tuple[Key, ...]) -> tuple[Key, ...]:
        """Of two, one may be revoked: which of them counts must not hang on their order."""
        if len({key.id for key in keys}) < len(keys):
            raise ValueError("two keys have one id")
        return keys


# Who asks where no key is wanted: somebody on this machine.
NOBODY = Key(id="0" * 8, tenant="public", admin=True, sha256="0" * 64, created=datetime.min)


class Keys:
    """The keys of the file at `path`, which is read again when it changes: a revoked key is refused
    at once, without a restart. Without a path everybody is `NOBODY`.

    Raises:
        KeysError: the file cannot be used. Later on the keys that were last read stay.
    """

    def __init__(self, path: Path | None):
        self._path, self._seen = path, _version(path)
        self._keys = {key.id: key for key in read(path)} if path else {}

    def holder(self, authorization: str | None) -> Key:
        """Whose key stands in the header `Authorization: Bearer …`; raises Unauthorized."""
        if self._path is None:
            return NOBODY
        self._refresh(self._path)
        scheme, _, sent = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not sent:
            raise Unauthorized("Send your key as the header Authorization: Bearer KEY.")
        match = KEY.fullmatch(sent.strip())
        key = self._keys.get(match[1]) if match else None
        # A key that is not known costs as much time as one that is.
        expected = key.sha256 if key else NOBODY.sha256
        same = hmac.compare_digest(_hash(sent.strip()), expected)
        if key is None or not same or key.revoked:
            raise Unauthorized("This key is not known here, or was revoked. Ask for a new one.")
        return key

    def _refresh(self, path: Path) -> None:
        if (version := _version(path)) == self._seen:
            return
        self._seen = version
        try:
            self._keys = {key.id: key for key in read(path)}
        except KeysError as error:
            log.error(json.dumps({"event": "keys_not_taken_up", "why": str(error)}))


def read(path: Path) -> tuple[Key, ...]:
    """Every key of the file, revoked ones too.

    Raises:
        KeysError: there is none, or it is none.
    """
    try:
        # Some editors put a byte order mark before it.
        return _File.model_validate_json(path.read_bytes().removeprefix(codecs.BOM_UTF8)).keys
    except OSError as error:
        raise KeysError(
            f"{path} cannot be read ({error.strerror}); make a key: consilium key add"
        ) from error
    except ValidationError as error:
        # Without the file's own content.
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "its JSON"
        if first["type"] == "value_error":  # a sentence of ours
            place += f": {first['ctx']['error']}"
        raise KeysError(f"{path} is no keys file ({place}); mend it, or make a new one") from error


def add(path: Path, tenant: str, per_minute: int | None, admin: bool) -> str:
    """A new key, which is in no file and is not told again.

    Raises:
        KeysError: the file cannot be used, or the tenant is no name.
    """
    if not re.fullmatch(NAME, tenant):
        raise KeysError(f"{tenant!r} is no name; take small letters, digits and hyphens")
    with _changing(path) as keys:
        identity = secrets.token_hex(4)
        key = f"consilium_{identity}_{secrets.token_urlsafe(32)}"
        keys[identity] = Key(
            id=identity,
            tenant=tenant,
            per_minute=per_minute,
            admin=admin,
            sha256=_hash(key),
            created=_now(),
        )
    return key


def revoke(path: Path, identity: str) -> None:
    """No request with this key is answered from now on.

    Raises:
        KeysError: the file cannot be used, or holds no such key.
    """
    read(path)  # there is nothing to revoke in a file that is not there
    with _changing(path) as keys:
        if identity not in keys:
            raise KeysError(f"{path} holds no key {identity}; consilium key list shows them")
        if keys[identity].revoked is None:
            keys[identity] = keys[identity].model_copy(update={"revoked": _now()})


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[dict[str, Key]]:
    """The keys by id; what is made of them is written as one. A new file is its owner's alone."""
    path = path.resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two who change it at once lose nothing
        before = path.stat() if path.exists() else None
        keys = {key.id: key for key in read(path)} if before else {}
        yield keys
        new = path.with_name(path.name + ".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(_File(keys=tuple(keys.values())).model_dump_json(indent=1) + "\n")
            if before:  # it may belong to the gateway's user, who must go on reading it
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
                os.fchown(descriptor, before.st_uid, before.st_gid)
        new.replace(path)


def _version(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    # The change time: another owner or mode may make it readable again.
    return (found.st_ino, found.st_ctime_ns, found.st_size) if found else None


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
