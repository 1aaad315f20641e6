"""How many cases are inside, and of which key: in this process, or in all that share a file.

A row is there for as long as its case; one statement looks and enters, so that between processes
too nobody slips in. What a killed process leaves is taken away by who replaces it.
"""

import os
import sqlite3
from pathlib import Path

LOCKED_S = 5.0  # another process writes for some microseconds


class Inside:
    def __init__(self, file: Path | None = None):
        self.own = 0
        self._db = sqlite3.connect(
            file or ":memory:", timeout=LOCKED_S, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")  # it need not outlive the machine
        self._db.execute("CREATE TABLE IF NOT EXISTS inside (process INTEGER, key TEXT)")

    def enter(self, key: str, most: int, most_of_key: int | None) -> int | None:
        """One more of the key's, as what `leave` takes; None where that were more than there may be
        in all, or of the key."""
        entered = self._db.execute(
            "INSERT INTO inside SELECT :process, :key WHERE (SELECT count(*) FROM inside) < :most "
            "AND (:of_key IS NULL OR (SELECT count(*) FROM inside WHERE key = :key) < :of_key)",
            {"process": os.getpid(), "key": key, "most": most, "of_key": most_of_key},
        )
        if entered.rowcount != 1:
            return None
        self.own += 1
        return entered.lastrowid

    def leave(self, row: int) -> None:
        self._db.execute("DELETE FROM inside WHERE rowid = ?", (row,))
        self.own -= 1

    def total(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM inside").fetchone()[0])

    def forget(self, process: int) -> None:
        """That process has ended, whatever it had open."""
        self._db.execute("DELETE FROM inside WHERE process = ?", (process,))
