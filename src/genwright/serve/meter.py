"""What each request took, kept: one row a request in SQLite, written by one thread, rotated and bounded.

A row is written when the request ends, however it ends: `outcome` says done, cancelled, blocked, refused, failed or
retried (an attempt that another engine finished; it has its own row, so the sum over rows is what engines computed).
"""

from __future__ import annotations

import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from genwright.base.errors import BadRequest

Outcome = Literal["done", "cancelled", "blocked", "refused", "failed", "retried"]

MOST_ROWS = 1_000_000
"""Of one file; a full one becomes `usage-1.sqlite`, and the one before it is dropped."""

FLUSH_SECONDS = 0.2

RETRY_SECONDS = 1.0
"""Between two tries of a disk that does not take a row."""


@dataclass(frozen=True)
class Record:
    """One request, as it ended."""

    id: str
    began: float
    """Seconds since 1970."""
    kind: str = "chat"
    key: str = ""
    conversation: str = ""
    model: str = ""
    """As asked for."""
    expert: str = ""
    """Empty: the base."""
    version: str = ""
    reason: str = ""
    score: float = 0.0
    engine: str = ""
    profile: str = ""
    outcome: Outcome = "done"
    status: int = 200
    stream: bool = False
    prompt_tokens: int = 0
    """Cached ones included."""
    cached_tokens: int = 0
    generated_tokens: int = 0
    tool_calls: int = 0
    counted: bool = True
    """False where the engine did not tell its tokens and we counted pieces."""
    seconds: float = 0.0
    ttft_seconds: float | None = None
    """Until the first token; of a whole answer, as the engine tells it; None where it does not."""
    tpot_seconds: float | None = None
    """Per token after the first."""
    guard_input: str = ""
    guard_output: str = ""
    expected_tokens: float | None = None
    expected_joules: float | None = None
    joules: float = 0.0
    joules_source: str = "none"
    """rapl, nvml, estimated or none."""
    usd: float = 0.0


COLUMNS = tuple(field.name for field in fields(Record))
_VALUES = attrgetter(*COLUMNS)
_TYPES = {
    "str": "TEXT",
    "float": "REAL",
    "int": "INTEGER",
    "bool": "INTEGER",
    "Outcome": "TEXT",
    "float | None": "REAL",
}
TABLE = f"CREATE TABLE IF NOT EXISTS requests ({', '.join(f'{field.name} {_TYPES[str(field.type)]}' for field in fields(Record))})"
INDEX = "CREATE INDEX IF NOT EXISTS requests_began ON requests (began)"
ENERGY = "CREATE TABLE IF NOT EXISTS energy (until REAL, seconds REAL, joules REAL, idle REAL, source TEXT)"
INSERT = f"INSERT INTO requests VALUES ({', '.join('?' * len(COLUMNS))})"

BY = {"key": "key", "expert": "expert", "profile": "profile", "day": "date(began, 'unixepoch')", "engine": "engine",
      "outcome": "outcome", "model": "model"}  # fmt: skip
"""What usage is told by."""


class Meter:
    """Where records go. `add` never waits for the disk."""

    def __init__(self, folder: Path, most_rows: int = MOST_ROWS) -> None:
        self.path, self.most_rows = Path(folder) / "usage.sqlite", most_rows
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.failed = ""
        """Why records wait in memory now."""
        self.totals: dict[tuple[str, str, str], dict[str, float]] = {}
        self._queue: queue.SimpleQueue[tuple[str, tuple[Any, ...]] | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="meter", daemon=True)
        self._thread.start()

    def add(self, record: Record) -> None:
        """Keep a record, and add it to what /metrics tells."""
        self._queue.put((INSERT, _VALUES(record)))
        total = self.totals.setdefault(
            (record.expert or "base", record.outcome, record.engine), dict.fromkeys(TOLD, 0.0)
        )
        for name, value in zip(TOLD, (1, *(getattr(record, field) or 0 for field in TOLD[1:]))):
            total[name] += value

    def add_energy(self, until: float, seconds: float, joules: float, idle: float, source: str) -> None:
        """Keep one reading of the power meter: `joules` in `seconds`, of which `idle` belong to no request."""
        self._queue.put(("INSERT INTO energy VALUES (?, ?, ?, ?, ?)", (until, seconds, joules, idle, source)))

    def flush(self) -> None:
        """Return when everything added so far is on the disk."""
        done = threading.Event()
        self._queue.put(done)
        done.wait(10)

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._queue.put(None)
        self._thread.join(10)

    def _write(self) -> None:
        database = _open(self.path)
        rows = database.execute("SELECT count(*) FROM requests").fetchone()[0]
        going = True
        while going:
            batch = self._batch()
            waiting = [item for item in batch if isinstance(item, threading.Event)]
            rows_now = [item for item in batch if isinstance(item, tuple)]
            while not self._kept(database, rows_now):
                time.sleep(RETRY_SECONDS)
            rows += len(rows_now)
            if rows >= self.most_rows:
                database.close()
                _rotate(self.path)
                database, rows = _open(self.path), 0
            for event in waiting:
                event.set()
            going = None not in batch
        database.close()

    def _kept(self, database: sqlite3.Connection, rows: Sequence[tuple[str, tuple[Any, ...]]]) -> bool:
        """Whether they are on the disk. A disk that is full or locked is said, once, and waited for: no record is dropped for it."""
        try:
            with database:
                for statement, values in rows:
                    database.execute(statement, values)
        except sqlite3.OperationalError as error:
            if not self.failed:
                print(f"the meter waits for {self.path}: {error}", file=sys.stderr)
            self.failed = str(error)
            return False
        self.failed = ""
        return True

    def _batch(self) -> list[Any]:
        """What has gathered: at least one item, and what came within FLUSH_SECONDS of it."""
        batch: list[Any] = [self._queue.get()]
        until = time.monotonic() + FLUSH_SECONDS
        while isinstance(batch[-1], tuple) and len(batch) < 500:
            try:
                batch.append(self._queue.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        return batch


TOLD = ("requests", "prompt_tokens", "cached_tokens", "generated_tokens", "tool_calls", "joules", "usd", "seconds")
"""What /metrics sums."""


def read_usage(folder: Path, by: str = "key", since: float = 0.0) -> list[dict[str, Any]]:
    """Sums per key, expert, profile, day, ...: the rows of `genwright usage`. Errors: BadRequest where nothing was metered."""
    if by not in BY:
        raise BadRequest(f"Usage is not told by '{by}'.", wanted=f"one of {', '.join(BY)}")
    sums = ", ".join(f"sum({name}) AS {name}" for name in TOLD[1:])
    question = (
        f"SELECT {BY[by]} AS name, count(*) AS requests, {sums}, avg(ttft_seconds) AS ttft_seconds, "
        f"avg(tpot_seconds) AS tpot_seconds FROM requests WHERE began >= ? AND outcome != 'refused' GROUP BY 1"
    )
    found: dict[str, dict[str, Any]] = {}
    for database in _databases(folder):
        for row in database.execute(question, (since,)):
            _merge(found.setdefault(row["name"], {}), dict(row))
    return [found[name] for name in sorted(found)]


def _merge(kept: dict[str, Any], new: dict[str, Any]) -> None:
    """Sums add; averages are weighed by requests; what was never measured stays None."""
    before = kept.get("requests", 0)
    for name in ("ttft_seconds", "tpot_seconds"):
        values = [
            (one.get(name), weight)
            for one, weight in ((kept, before), (new, new["requests"]))
            if one.get(name) is not None
        ]
        new[name] = sum(value * weight for value, weight in values) / sum(w for _, w in values) if values else None
    for name in TOLD:
        new[name] = (new[name] or 0) + kept.get(name, 0)
    kept |= new


def read_records(folder: Path, since: float = 0.0, limit: int = 10_000) -> list[dict[str, Any]]:
    """Records, oldest first. Errors: BadRequest where nothing was metered."""
    question = "SELECT * FROM requests WHERE began >= ? ORDER BY began DESC LIMIT ?"
    rows = [dict(row) for database in _databases(folder) for row in database.execute(question, (since, limit))]
    return sorted(rows, key=lambda row: row["began"])[-limit:]


def read_energy(folder: Path) -> dict[str, float]:
    """Sums over the power meter's readings: {"joules", "idle", "seconds"}."""
    told = {"joules": 0.0, "idle": 0.0, "seconds": 0.0}
    for database in _databases(folder):
        row = database.execute("SELECT sum(joules), sum(idle), sum(seconds) FROM energy").fetchone()
        for name, value in zip(told, row):
            told[name] += value or 0.0
    return told


def write_parquet(folder: Path, out: Path) -> int:
    """Every record as a Parquet file; returns how many. Errors: MissingExtra, BadRequest."""
    from genwright.base.errors import MissingExtra
    from genwright.base.registry import resolve

    try:
        table, write = resolve("pyarrow:Table"), resolve("pyarrow.parquet:write_table")
    except ImportError:
        raise MissingExtra("pyarrow", "parquet", "Parquet") from None
    rows = read_records(folder, limit=2 * MOST_ROWS)
    write(table.from_pylist(rows), out)
    return len(rows)


def _databases(folder: Path) -> Iterator[sqlite3.Connection]:
    paths = [path for path in (Path(folder) / "usage-1.sqlite", Path(folder) / "usage.sqlite") if path.exists()]
    if not paths:
        raise BadRequest(f"Nothing was metered in {folder}.", do="`genwright serve` meters what it answers")
    for path in paths:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        database.row_factory = sqlite3.Row
        try:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'energy'").fetchone():  # made last
                yield database
        finally:
            database.close()


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    for statement in (TABLE, INDEX, ENERGY):
        database.execute(statement)
    database.commit()
    return database


def _rotate(path: Path) -> None:
    path.replace(path.with_name("usage-1.sqlite"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
