"""What readers said of verdicts: right or wrong, and what is right. One SQLite file in a folder.

Of every verdict that a caller gets it keeps marks alone: HMACs of the case and of what each worker
said, and who said the same. Whoever holds them can be told later who was right, and learns no word.
Question, answers, comment and images are kept only of a case that its caller sends again with his
word, for that purpose.

What is older than `days` is overwritten when the folder is first used on a day (secure_delete).
"""

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.case import Case
from gateway.contract import Answer, Language, ReadersWord, Verdict, Word, WordKept
from gateway.refusals import Busy, InvalidCase, UnknownVerdict
from gateway.store.memory import asked_of, mark_of
from gateway.verdict.text.meaning import meaning

FILE = "words.sqlite3"
TRY_AGAIN_S = 2
MOST_LISTED = 1_000
TABLES = """
CREATE TABLE IF NOT EXISTS verdicts (
  tenant TEXT, id TEXT, given TEXT, language TEXT, asked TEXT,
  word TEXT, kept TEXT, PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS said (
  tenant TEXT, id TEXT, worker TEXT, cluster INTEGER, mark TEXT, is_right INTEGER,
  PRIMARY KEY (tenant, id, worker),
  FOREIGN KEY (tenant, id) REFERENCES verdicts ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (
  tenant TEXT, id TEXT, place INTEGER, data BLOB,
  FOREIGN KEY (tenant, id) REFERENCES verdicts ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS ages ON verdicts (given);
CREATE INDEX IF NOT EXISTS shown ON images (tenant, id);
CREATE INDEX IF NOT EXISTS judged ON said (worker, is_right) WHERE is_right IS NOT NULL;
"""
log = logging.getLogger("consilium.gateway")


class ReadersError(Exception):
    """The folder of the readers' words cannot be used; one line that says why."""


@dataclass(frozen=True)
class KeptCase:
    """A case that its caller gave away, with what is right."""

    id: str
    tenant: str
    word: Word
    fields: dict[str, Any]  # question, language, answer and what else there was
    images: tuple[bytes, ...]  # PNG or JPEG, as the workers got them


@dataclass(frozen=True)
class Score:
    """What readers' words tell of a worker: in how many cases it is known whether it was right, in
    how many it was, and in how many of the same the verdict was."""

    words: int = 0
    right: int = 0
    panel_right: int = 0

    @property
    def part_right(self) -> float | None:
        return self.right / self.words if self.words else None

    @property
    def panel_part_right(self) -> float | None:
        return self.panel_right / self.words if self.words else None


class Readers:
    """Keeps what readers say in `folder`; None keeps nothing.

    Raises:
        ReadersError: the folder cannot be used.
    """

    def __init__(self, folder: Path | None, days: int):
        self._folder, self._days = folder, days
        self._today: date | None = None
        self._scores: dict[str, Score] = {}
        self._scored: tuple[int, int] | None = None  # the state of the file that they are of
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / FILE).touch(mode=0o600)
            self._db = _opened(folder / FILE)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(TABLES)
            self._drop_old()
        except (OSError, ValueError, sqlite3.Error) as error:
            raise ReadersError(f"feedback.folder: {folder}: cannot be used ({error})") from error

    def close(self) -> None:
        if self._folder is not None:
            self._db.close()

    def given(self, case: Case, verdict: Verdict, secret: bytes) -> None:
        """A caller gets this verdict, and may say what it is worth. A disk that is full costs the
        line, never the case."""
        if self._folder is None:
            return
        rows = [
            (
                case.tenant,
                verdict.id,
                worker,
                cluster,
                _mark(text, verdict.language, verdict.id, secret),
            )
            for worker, (cluster, text) in stands(verdict).items()
        ]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = (case.tenant, verdict.id, now, verdict.language, asked_of(case, secret))
        try:
            self._drop_old()
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("INSERT INTO verdicts VALUES (?,?,?,?,?,NULL,NULL)", line)
                self._db.executemany("INSERT INTO said VALUES (?,?,?,?,?,NULL)", rows)
        except sqlite3.Error as error:
            log.error(json.dumps({"event": "verdict_not_noted", "why": str(error)}))

    def shadowed(
        self, case: Case, verdict: Verdict, answer: Answer, cluster: int, secret: bytes
    ) -> None:
        """A shadow has said, of a verdict that was given, what those of `cluster` did. Where a
        reader was faster, what he told of them is told of it."""
        if self._folder is None:
            return
        mark = _mark(answer.text or "", verdict.language, verdict.id, secret)
        try:
            self._db.execute(
                "INSERT INTO said SELECT tenant, id, ?, ?, ?, CASE word WHEN 'right' THEN ? = 0 "
                "ELSE (SELECT is_right FROM said WHERE tenant = v.tenant AND id = v.id "
                "AND cluster = ?) END FROM verdicts v WHERE tenant = ? AND id = ?",
                (answer.worker, cluster, mark, cluster, cluster, case.tenant, verdict.id),
            )
        except sqlite3.Error as error:
            log.error(json.dumps({"event": "verdict_not_noted", "why": str(error)}))

    def scores(self) -> dict[str, Score]:
        """Of each worker that a kept word tells something of, by its name."""
        if self._folder is None:
            return {}
        query = (
            "SELECT worker, COUNT(*), SUM(is_right), SUM(word = 'right') FROM said "
            "JOIN verdicts USING (tenant, id) WHERE is_right IS NOT NULL GROUP BY worker"
        )
        try:
            # Whether this connection, or another process's, has written: however many want to
            # know, they are counted once.
            (by_others,) = self._db.execute("PRAGMA data_version").fetchone()
            state = (self._db.total_changes, by_others)
            if state != self._scored:
                found = self._db.execute(query)
                self._scores = {each: Score(*counted) for each, *counted in found}
                self._scored = state
            return self._scores
        except sqlite3.Error as error:
            log.error(json.dumps({"event": "words_not_read", "why": str(error)}))
            return {}

    def take(
        self, word: ReadersWord, tenant: str, case: Case | None, secret: bytes
    ) -> tuple[WordKept, dict[str, bool]]:
        """What a reader of `tenant` says of a verdict; with the `case`, that is kept too. Gives
        what was kept, and of the workers of whom it tells so, who was right.

        Raises UnknownVerdict where none of the tenant's waits for a word, whatever the reason,
        InvalidCase where the case is another one, and Busy where nothing can be written.
        """
        if self._folder is None:
            raise UnknownVerdict("This gateway keeps no readers' words.")
        key = (tenant, word.verdict)
        try:
            self._drop_old()
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")  # who says it twice at once has said it once
                waiting = self._db.execute(
                    "SELECT language, asked FROM verdicts WHERE tenant=? AND id=? AND word IS NULL",
                    key,
                ).fetchone()
                if waiting is None:
                    raise UnknownVerdict(
                        "No verdict of yours with this id waits for a word: it has one, is too "
                        "old, or never was."
                    )
                language, asked = waiting
                if case is not None and asked_of(case, secret) != asked:
                    raise InvalidCase("case: it is not the one that this verdict is about.")
                kept = None if case is None else json.dumps(_fields(word, case))
                update = "UPDATE verdicts SET word=?, kept=? WHERE tenant=? AND id=?"
                self._db.execute(update, (word.word, kept, *key))
                for place, image in enumerate(case.images if case else ()):
                    row = (*key, place, image.data)
                    self._db.execute("INSERT INTO images VALUES (?,?,?,?)", row)
                was_right = self._judge(word, key, language, secret)
        except sqlite3.Error as error:
            log.error(json.dumps({"event": "word_not_kept", "why": str(error)}))
            raise Busy("Your word could not be kept. Send it again soon.", TRY_AGAIN_S) from error
        kept_word = WordKept(verdict=word.verdict, word=word.word, case=case is not None)
        return kept_word, was_right

    def _judge(
        self, word: ReadersWord, key: tuple[str, str], language: Language, secret: bytes
    ) -> dict[str, bool]:
        """Who was right. Where the verdict was wrong, and what is right is not told, nobody knows
        of those who dissented."""
        if word.word == "right":
            update = "UPDATE said SET is_right = (cluster = 0) WHERE tenant=? AND id=?"
        else:
            update = "UPDATE said SET is_right = 0 WHERE tenant=? AND id=? AND cluster = 0"
        self._db.execute(update, key)
        if word.word == "wrong" and word.answer:
            update = (
                "UPDATE said SET is_right = cluster IN "
                "(SELECT cluster FROM said WHERE tenant=? AND id=? AND mark=?) "
                "WHERE tenant=? AND id=? AND cluster > 0"
            )
            self._db.execute(
                update, (*key, _mark(word.answer, language, word.verdict, secret), *key)
            )
        query = "SELECT worker, is_right FROM said WHERE tenant=? AND id=? AND is_right IS NOT NULL"
        return {worker: bool(right) for worker, right in self._db.execute(query, key)}

    def of(self, tenant: str) -> list[dict[str, Any]]:
        """The tenant's own words, the latest verdict first; raises UnknownVerdict where none are
        kept, and Busy where they cannot be read."""
        if self._folder is None:
            raise UnknownVerdict("This gateway keeps no readers' words.")
        query = (
            "SELECT id, word, given, kept FROM verdicts WHERE tenant=? AND word IS NOT NULL "
            "ORDER BY given DESC LIMIT ?"
        )
        try:
            self._drop_old()
            found = self._db.execute(query, (tenant, MOST_LISTED)).fetchall()
        except sqlite3.Error as error:
            log.error(json.dumps({"event": "words_not_read", "why": str(error)}))
            raise Busy("The words cannot be read. Ask again soon.", TRY_AGAIN_S) from error
        return [
            {"verdict": id, "word": word, "given": given}
            | ({"case": json.loads(kept)} if kept else {})
            for id, word, given, kept in found
        ]

    def _drop_old(self) -> None:
        today = datetime.now(UTC).date()
        if today == self._today:
            return
        oldest = (today - timedelta(days=self._days)).isoformat()
        self._db.execute("DELETE FROM verdicts WHERE given < ?", (oldest,))
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._today = today


def stands(verdict: Verdict) -> dict[str, tuple[int, str]]:
    """Of every worker that was heard: the place of those who say the same, the winners' 0, and its
    words. Of a worker that claims several things the first counts that has a place."""
    dissent = reversed(list(enumerate(verdict.dissent, 1)))
    place = {worker: at for at, other in dissent for worker in other.workers}
    place |= dict.fromkeys(verdict.workers, 0)
    return {
        voice.worker: (place.get(voice.worker, 0), voice.text or "")
        for voice in verdict.answers
        if voice.weight is not None
    }


def kept_cases(folder: Path | None, tenant: str | None = None) -> Iterator[KeptCase]:
    """Every case that was given away, of one tenant or of all.

    Raises:
        ReadersError: there is no such folder.
    """
    if folder is None or not (folder / FILE).is_file():
        where = folder or "panel.toml has no [feedback]"
        raise ReadersError(f"No readers' words are kept there: {where}")
    query = (
        "SELECT tenant, id, word, kept FROM verdicts "
        "WHERE kept IS NOT NULL AND (? IS NULL OR tenant = ?) ORDER BY given, id"
    )
    images = "SELECT data FROM images WHERE tenant=? AND id=? ORDER BY place"
    try:
        with closing(_opened(folder / FILE)) as db:
            for whose, id, word, kept in db.execute(query, (tenant, tenant)):
                shown = tuple(data for (data,) in db.execute(images, (whose, id)))
                yield KeptCase(id, whose, word, json.loads(kept), shown)
    except sqlite3.Error as error:
        raise ReadersError(f"{folder / FILE} cannot be read ({error})") from error


def _opened(file: Path) -> sqlite3.Connection:
    # The application is made in one thread and served in another, where tests do so.
    db = sqlite3.connect(file, timeout=0.25, isolation_level=None, check_same_thread=False)
    for pragma in ("foreign_keys = ON", "secure_delete = ON", "synchronous = NORMAL"):
        db.execute(f"PRAGMA {pragma}")
    return db


def _fields(word: ReadersWord, case: Case) -> dict[str, Any]:
    """What is kept of a case beside its images; `answer` is what the reader says is right."""
    fields = {
        "question": case.question,
        "language": case.language,
        "context": case.context,
        "views": [view or "" for view in case.views] or None,
        "choices": case.choices,
        "modality": case.modality,
        "answer": (word.answer or "").strip(),
        "comment": word.comment,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _mark(answer: str, language: Language, verdict: str, secret: bytes) -> str:
    """The same for answers to one case that mean the same, without the question, which is not kept;
    of different cases no two are: how often one comes would tell a yes from a no."""
    return mark_of("answer", [verdict, *meaning(answer, language)], secret)
