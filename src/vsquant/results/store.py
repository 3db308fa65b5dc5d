"""The results store: every evaluated cell, once, in one SQLite file that survives being killed at any moment."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from vsquant.errors import StoreError
from vsquant.results.points import FailedPoint, PointRecord
from vsquant.results.records import CellRecord
from vsquant.results.scores import Scores

NUMERICS_VERSION: Final = 1
"""Changes only when the same inputs give other codes; results of other versions are then never looked up."""

SCHEMA_VERSION: Final = 1
_LOCK_WAIT_SECONDS: Final = 60.0
_ELSEWHERE: Final = "delete or move it, or give another path (--store)"

_REFUSALS: Final = (
    "CREATE TABLE IF NOT EXISTS refusals (key TEXT PRIMARY KEY, inputs TEXT NOT NULL, reason TEXT NOT NULL)"
)
"""Not in stores of earlier versions, which are the same otherwise."""
_POINTS: Final = (
    "CREATE TABLE IF NOT EXISTS points (key TEXT PRIMARY KEY, inputs TEXT NOT NULL, record TEXT NOT NULL, scores BLOB)",
    "CREATE TABLE IF NOT EXISTS failures (key TEXT PRIMARY KEY, inputs TEXT NOT NULL, record TEXT NOT NULL)",
)
"""Likewise: the points of design spaces, ``scores`` NULL where a point was pruned, and those that failed."""

_SCHEMA: Final = (
    "CREATE TABLE store (schema_version INTEGER NOT NULL)",
    "CREATE TABLE cells (key TEXT PRIMARY KEY, inputs TEXT NOT NULL, record TEXT NOT NULL, scores BLOB NOT NULL)",
)


def default_store_path() -> Path:
    """``$XDG_CACHE_HOME/vsquant/results.sqlite``, or the same under ``~/.cache``."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "vsquant" / "results.sqlite"


def content_key(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of ``inputs`` and `NUMERICS_VERSION` as canonical JSON: equal content, equal key.

    ``inputs`` holds JSON values only (None, bool, int, finite float, str, list, tuple, and mappings with string keys);
    anything else raises `TypeError` or `ValueError`, since its key would not be well defined.
    """
    return hashlib.sha256(_canonical_json({"numerics": NUMERICS_VERSION, "inputs": inputs}).encode()).hexdigest()


def _canonical_json(value: object) -> str:
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"keys of a content key's inputs must be strings, not {key!r}")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class ResultsStore:
    """A file of evaluated cells, keyed by the content of what was evaluated.

    Each `put` is one transaction: a process killed at any moment leaves whole rows only. Several processes may share
    one file. Nothing is ever pickled. Every failure of the file is a `StoreError` that says what to do.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open the store, made where there is none; ``None`` means `default_store_path`."""
        self.path: Final = default_store_path() if path is None else Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the results store's folder must be one that can be made, not {self.path.parent} "
                f"({error.strerror}); give another path (--store)"
            ) from error
        with self._failures_explained():
            self._connection = sqlite3.connect(self.path, timeout=_LOCK_WAIT_SECONDS, isolation_level=None)
        try:
            self._prepare()
        except StoreError:
            self._connection.close()
            raise

    def __enter__(self) -> ResultsStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        with self._failures_explained():
            return int(self._connection.execute("SELECT count(*) FROM cells").fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def keys(self) -> tuple[str, ...]:
        """Keys of all cells in the store, sorted."""
        with self._failures_explained():
            return tuple(row[0] for row in self._connection.execute("SELECT key FROM cells ORDER BY key"))

    def get(self, key: str) -> CellRecord | None:
        """The record under ``key``, None where there is none; raises `StoreError` where it is damaged."""
        with self._failures_explained():
            row = self._connection.execute("SELECT record, scores FROM cells WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            return CellRecord.from_dict(json.loads(row[0]), Scores.from_bytes(row[1]))
        except (ValueError, StoreError) as error:
            raise StoreError(
                f"record {key[:12]}… of the results store {self.path} must be readable, but it is damaged ({error}); "
                f"{_ELSEWHERE}"
            ) from error

    def refusal(self, key: str) -> str | None:
        """Why what is under ``key`` cannot be evaluated; None where no such reason was kept."""
        with self._failures_explained():
            row = self._connection.execute("SELECT reason FROM refusals WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put_refusal(self, key: str, inputs: Mapping[str, Any], reason: str) -> None:
        """Keep why what is under ``key``, which must be ``content_key(inputs)``, cannot be evaluated."""
        _check_key(key, inputs)
        with self._failures_explained(), self._transaction():
            row = (key, _canonical_json(inputs), reason)
            self._connection.execute("INSERT OR REPLACE INTO refusals VALUES (?, ?, ?)", row)

    def put(self, key: str, inputs: Mapping[str, Any], record: CellRecord) -> None:
        """Keep ``record`` under ``key``, which must be ``content_key(inputs)``; all or nothing."""
        _check_key(key, inputs)
        row = (key, _canonical_json(inputs), json.dumps(record.to_dict()), record.scores.to_bytes())
        with self._failures_explained(), self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?)", row)

    def get_point(self, key: str) -> PointRecord | None:
        """The point's record under ``key``, None where there is none; raises `StoreError` where it is damaged."""
        with self._failures_explained():
            row = self._connection.execute("SELECT key, record, scores FROM points WHERE key = ?", (key,)).fetchone()
        return None if row is None else self._point(*row)

    def iter_points(self) -> Iterator[tuple[str, PointRecord]]:
        """Every point with its key, in the order of keys; raises `StoreError` where one is damaged."""
        with self._failures_explained():
            rows = self._connection.execute("SELECT key, record, scores FROM points ORDER BY key").fetchall()
        for row in rows:
            yield row[0], self._point(*row)

    def put_point(self, key: str, inputs: Mapping[str, Any], record: PointRecord) -> None:
        """Keep a point under ``key``, which must be ``content_key(inputs)``, and forget that it ever failed."""
        _check_key(key, inputs)
        scores = None if record.scores is None else record.scores.to_bytes()
        row = (key, _canonical_json(inputs), json.dumps(record.to_dict()), scores)
        with self._failures_explained(), self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)", row)
            self._connection.execute("DELETE FROM failures WHERE key = ?", (key,))

    def failures(self) -> tuple[FailedPoint, ...]:
        """The points that could not be evaluated, in the order of keys."""
        with self._failures_explained():
            rows = self._connection.execute("SELECT record FROM failures ORDER BY key").fetchall()
        return tuple(FailedPoint.from_dict(json.loads(row[0])) for row in rows)

    def put_failure(self, key: str, inputs: Mapping[str, Any], failure: FailedPoint) -> None:
        """Keep why the point under ``key``, which must be ``content_key(inputs)``, has no record."""
        _check_key(key, inputs)
        row = (key, _canonical_json(inputs), json.dumps(dataclasses.asdict(failure)))
        with self._failures_explained(), self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?)", row)

    def _point(self, key: str, record: str, scores: bytes | None) -> PointRecord:
        try:
            return PointRecord.from_dict(json.loads(record), None if scores is None else Scores.from_bytes(scores))
        except (ValueError, StoreError) as error:
            raise StoreError(
                f"point {key[:12]}… of the results store {self.path} must be readable, but it is damaged ({error}); "
                f"{_ELSEWHERE}"
            ) from error

    def _prepare(self) -> None:
        with self._failures_explained():
            self._connection.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                tables = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master")}
                if not tables:
                    for statement in _SCHEMA:
                        self._connection.execute(statement)
                    self._connection.execute("INSERT INTO store VALUES (?)", (SCHEMA_VERSION,))
            if tables and not {"store", "cells"} <= tables:
                raise StoreError(f"{self.path} must be a results store, not some other SQLite database; {_ELSEWHERE}")
            version = self._connection.execute("SELECT schema_version FROM store").fetchone()
            if version != (SCHEMA_VERSION,):
                raise StoreError(
                    f"the results store {self.path} must have schema version {SCHEMA_VERSION}, not "
                    f"{version[0] if version else 'none'}; it was written by another vsquant: "
                    "install that one, or give another path (--store)"
                )
            for statement in (_REFUSALS, *_POINTS):
                self._connection.execute(statement)
            self._use_write_ahead_log()

    def _use_write_ahead_log(self) -> None:
        if self._connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            self._connection.execute("PRAGMA journal_mode = WAL")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # a full disk has already rolled back
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def _failures_explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"the results store {self.path} cannot be used ({error}); {_advice(str(error))}"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"the results store {self.path} must be an intact SQLite database, but it is not ({error}); "
                f"{_ELSEWHERE}"
            ) from error
        except sqlite3.Error as error:
            raise StoreError(f"the results store {self.path} cannot be used ({error})") from error


def _check_key(key: str, inputs: Mapping[str, Any]) -> None:
    if key != content_key(inputs):
        raise ValueError(f"key must be content_key(inputs), {content_key(inputs)}, not {key}")


def _advice(reason: str) -> str:
    """What to do about an operational failure of SQLite, by its stable wording."""
    if "locked" in reason:
        return "another process holds it; wait for that process, or give another path (--store)"
    if "full" in reason:
        return "free some disk space and run again; all finished cells are kept"
    return "check that the folder can be written to, or give another path (--store)"
