"""The audit log: who asked, when, what was decided, by which panel. No text and no pixels: the case
and the answer are HMACs, so whoever holds the case and the secret can show that it was asked:
`consilium audit match`. Nobody else learns a word; but that a case was asked again, and answered
alike, and how sure the panel was.

One JSON object a line, in a file for each day (UTC) and host; what is older than `days` is
deleted with the first line of a day.
"""

import contextlib
import hashlib
import hmac
import json
import logging
import re
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.contract import Verdict

NAME = re.compile(r"audit-(\d{4}-\d\d-\d\d)-.*\.jsonl")
HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())

log = logging.getLogger("consilium.gateway")


class AuditError(Exception):
    """The audit's folder cannot be used; one line that says why."""


class Audit:
    """Writes to `folder`; None writes nothing.

    Raises:
        AuditError: the folder cannot be used.
    """

    def __init__(self, folder: Path | None, days: int):
        self._folder, self._days = folder, days
        self._today: date | None = None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file(folder).touch()
        except (OSError, ValueError) as error:
            raise AuditError(f"audit.folder: {folder}: cannot be used ({error})") from error

    def note(
        self, verdict: Verdict, case: Callable[[], str], tenant: str, key: str, secret: bytes
    ) -> None:
        """One verdict that a caller gets: of `case` (its HMAC), asked with `key` (its id) of
        `tenant`. A disk that is full costs the line, never the case."""
        if self._folder is None:
            return
        answer, mark = verdict.answer or verdict.best_guess or "", case()
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": verdict.id,
            "tenant": tenant,
            "key": key,
            "case": mark,
            "status": verdict.status,
            "answer": answer_mark(answer, mark, secret),
            "agreement": verdict.agreement,
            "confidence": verdict.confidence,
            "summary_by": verdict.summary.by,
            "failed": {a.worker: a.error.kind for a in verdict.answers if a.error},
            "cached_from": verdict.cached_from,
            "panel": verdict.panel,
        }
        try:
            with self._file(self._folder).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            log.error(json.dumps({"event": "audit_not_written", "why": error.strerror}))

    def _file(self, folder: Path) -> Path:
        """Today's; on a new day what is too old goes."""
        today = datetime.now(UTC).date()
        if today != self._today:
            self._today = today
            oldest = today - timedelta(days=self._days)
            for path in folder.iterdir():
                # What only looks like one of ours is left alone.
                with contextlib.suppress(ValueError, OSError):
                    match = NAME.fullmatch(path.name)
                    if match and date.fromisoformat(match[1]) < oldest:
                        path.unlink()
        return folder / f"audit-{today}-{HOST}.jsonl"


def answer_mark(answer: str, case: str, secret: bytes) -> str:
    """How a line tells what was decided of a `case` (its HMAC). Of different cases no two are the
    same: how often one comes would tell a yes from a no."""
    return hmac.new(secret, f"{case} {answer}".encode(), hashlib.sha256).hexdigest()


def lines(folder: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line that is kept, the oldest day first: as it stands, and what it says.

    Raises:
        AuditError: there is no folder.
    """
    if folder is None or not folder.is_dir():
        where = folder or "audit.folder is not set in panel.toml"
        raise AuditError(f"No audit is kept there: {where}")
    ours = (path for path in folder.iterdir() if NAME.fullmatch(path.name) and path.is_file())
    for path in sorted(ours):
        for text in path.read_text("utf-8", "replace").split("\n"):
            # A full disk may have cut a line short.
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict) and line.keys() >= {"tenant", "case", "answer"}:
                    yield text, line
