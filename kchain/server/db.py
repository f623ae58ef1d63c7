"""The server's state in SQLite: tables, connections, transactions.

Several processes may write (a running server, `publish`), so every write is one BEGIN IMMEDIATE transaction with
`synchronous=FULL`: what was acknowledged is there after kill -9.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kchain.server.wire import LIVE

FILE = "state.db"
# Whether a session is not over, as a condition.
IS_LIVE = f"status IN {tuple(sorted(LIVE))}"
BUSY_SECONDS = 60

_TABLES = """
CREATE TABLE IF NOT EXISTS kernels (
    id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, slug TEXT NOT NULL, title TEXT NOT NULL,
    created REAL NOT NULL, UNIQUE (owner, slug));
CREATE TABLE IF NOT EXISTS versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kernel INTEGER NOT NULL REFERENCES kernels ON DELETE CASCADE,
    number INTEGER NOT NULL, source TEXT NOT NULL, settings TEXT NOT NULL, created REAL NOT NULL,
    UNIQUE (kernel, number));
-- A session outlives its kernel's deletion: its hours still count.
CREATE TABLE IF NOT EXISTS sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, version INTEGER REFERENCES versions ON DELETE SET NULL,
    status TEXT NOT NULL, failure TEXT NOT NULL DEFAULT '', device TEXT NOT NULL, gpus INTEGER NOT NULL,
    time_limit REAL, keeps_outputs INTEGER NOT NULL DEFAULT 1,
    queued REAL NOT NULL, started REAL, ended REAL);
CREATE TABLE IF NOT EXISTS datasets (
    id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, slug TEXT NOT NULL, title TEXT NOT NULL,
    subtitle TEXT NOT NULL DEFAULT '', description TEXT NOT NULL DEFAULT '', license TEXT NOT NULL DEFAULT '',
    private INTEGER NOT NULL, created REAL NOT NULL, UNIQUE (owner, slug));
CREATE TABLE IF NOT EXISTS dataset_versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, dataset INTEGER NOT NULL REFERENCES datasets ON DELETE CASCADE,
    number INTEGER NOT NULL, notes TEXT NOT NULL DEFAULT '', fingerprint TEXT NOT NULL, bytes INTEGER NOT NULL,
    failed INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL, ready REAL NOT NULL, UNIQUE (dataset, number));
CREATE TABLE IF NOT EXISTS models (
    id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, slug TEXT NOT NULL, title TEXT NOT NULL,
    private INTEGER NOT NULL, created REAL NOT NULL, UNIQUE (owner, slug));
CREATE TABLE IF NOT EXISTS model_versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE,
    framework TEXT NOT NULL, variation TEXT NOT NULL, number INTEGER NOT NULL, fingerprint TEXT NOT NULL,
    bytes INTEGER NOT NULL, created REAL NOT NULL, UNIQUE (model, framework, variation, number));
-- What the user said of a variation when he made it; one that was published by hand has none.
CREATE TABLE IF NOT EXISTS model_instances (
    model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE, framework TEXT NOT NULL, variation TEXT NOT NULL,
    details TEXT NOT NULL, PRIMARY KEY (model, framework, variation));
CREATE TABLE IF NOT EXISTS blobs (
    token TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, length INTEGER NOT NULL,
    complete INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL);
"""
# Columns that came later: a root of an older kchain gets them when it is opened.
_LATER = {
    "models": ("details TEXT NOT NULL DEFAULT '{}'",),
    "model_versions": (
        "notes TEXT NOT NULL DEFAULT ''",
        "failed INTEGER NOT NULL DEFAULT 0",
        "ready REAL NOT NULL DEFAULT 0",
    ),
}

Row = sqlite3.Row


class Database:
    """One SQLite file; each thread has its own connection."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._path = root / FILE
        self._local = threading.local()
        with self.write() as connection:
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            for table, columns in _LATER.items():
                present = {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}
                for column in columns:
                    if column.split()[0] not in present:
                        connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            self._local.connection = connection
        return connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that nobody else writes beside; rolled back on any exception."""
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def all(self, sql: str, *values: Any) -> list[Row]:
        """Every row of a query. Inside `write` it sees that transaction."""
        return self._connection().execute(sql, values).fetchall()

    def one(self, sql: str, *values: Any) -> Row | None:
        """The first row of a query, or None."""
        row: Row | None = self._connection().execute(sql, values).fetchone()
        return row
