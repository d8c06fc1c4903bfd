"""What the warehouse holds, in SQLite: each change applied once, however often it is asked for.

WAL with `synchronous=NORMAL`: a killed process loses nothing, a power cut may lose the last commits (never the
file's integrity). Set FULL where that matters more than a sync a request.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS applied (request TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, units INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS demand (hour INTEGER PRIMARY KEY, units INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (task TEXT PRIMARY KEY, details TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forecast (only INTEGER PRIMARY KEY CHECK (only = 1), value TEXT NOT NULL);
"""


class Stock:
    """One writer on one file; opening it again finds what was committed."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        self._db.close()

    def apply(self, request: str, changes: Iterable[tuple[str, int, int, int]]) -> bool:
        """Book the changes (sku, hour, put in, taken out) of this request; false when that was done before."""
        with self._transaction():
            if self._db.execute("INSERT OR IGNORE INTO applied VALUES (?)", (request,)).rowcount == 0:
                return False
            for sku, hour, put_in, taken in changes:
                self._add("stock", sku, put_in - taken)
                self._add("demand", hour, taken)
        return True

    def units(self) -> dict[str, int]:
        """Units by SKU."""
        return dict(self._db.execute("SELECT sku, units FROM stock ORDER BY sku").fetchall())

    def demand(self) -> list[tuple[int, int]]:
        """Units taken out, by hour."""
        return self._db.execute("SELECT hour, units FROM demand ORDER BY hour").fetchall()

    def keep_picture(self, task: str, details: Mapping[str, Any]) -> bool:
        """Note what is known of a picture; false when it was noted before."""
        row = (task, json.dumps(details))
        return self._db.execute("INSERT OR IGNORE INTO pictures VALUES (?, ?)", row).rowcount == 1

    def pictures(self) -> int:
        """How many pictures are known."""
        return self._db.execute("SELECT count(*) FROM pictures").fetchone()[0]

    def keep_forecast(self, value: Mapping[str, Any]) -> None:
        """Put the newest forecast in the place of the last."""
        self._db.execute("INSERT OR REPLACE INTO forecast VALUES (1, ?)", (json.dumps(value),))

    def forecast(self) -> dict[str, Any] | None:
        """The newest forecast, if there is one yet."""
        row = self._db.execute("SELECT value FROM forecast").fetchone()
        return json.loads(row[0]) if row else None

    def _add(self, table: str, key: str | int, units: int) -> None:
        self._db.execute(
            f"INSERT INTO {table} VALUES (?1, ?2) ON CONFLICT DO UPDATE SET units = units + ?2", (key, units)
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
