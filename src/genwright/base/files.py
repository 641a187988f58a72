"""Files that are whole or absent: temporary name, fsync, rename; and the hashes that prove it later."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genwright.base.errors import DataError, DiskFull
from genwright.base.units import Bytes


def sha256_of_bytes(data: bytes) -> str:
    """Hex digest of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex digest of a JSON value, independent of key order and spacing."""
    return sha256_of_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def json_lines(path: Path) -> list[Any]:
    """What each line says that is not blank. Errors: DataError naming file and line."""
    lines = text_of(path).split("\n")  # splitlines() cuts at U+2028 too, which JSON leaves as it is
    return [_json_line(line, f"{path.name}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def text_of(path: Path) -> str:
    """A person's text file, without the mark that some editors put first. Errors: DataError where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not text in UTF-8.", wanted="UTF-8", found=f"the byte {error.object[error.start]:#04x} in line {line}",
            do="save it as UTF-8",
        ) from None  # fmt: skip


def _json_line(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", "nested too deep")
        raise DataError(
            f"{place}: this is not JSON: {why}.", wanted="one JSON object a line", found=line[:60]
        ) from None


def files_below(folder: Path) -> list[Path]:
    """Every regular file below a folder, sorted by its path."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write_atomic(path: Path, data: str | bytes) -> None:
    """Replace a file in one rename. Errors: DiskFull, with the old file untouched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = data.encode() if isinstance(data, str) else data
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with disk_full_is_an_error(path), os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_being_written(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final`, renamed to it when the block ends well and removed when it does not.

    `final` must not exist: nothing is ever written into an existing artifact.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
    try:
        with disk_full_is_an_error(final):
            yield temporary
            for path in files_below(temporary):
                sync_file(path)
            sync_folder(temporary)
            temporary.rename(final)
            sync_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def disk_full_is_an_error(target: Path) -> Iterator[None]:
    """Turn "no space left" from the system, or from a library that words it its own way, into DiskFull."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and "No space left" not in str(error) and "File too large" not in str(error):
            raise
        raise DiskFull(
            f"The disk is full: {target} could not be written.",
            found=f"{Bytes(free_bytes(target))} free",
            do="free some space (`genwright clean` lists what can go) and run the command again; what was done is kept",
        ) from error


def free_bytes(path: Path) -> int:
    """Free space where `path` is or would be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def sync_file(path: Path) -> None:
    """Make sure that a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make sure that a folder's names are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
