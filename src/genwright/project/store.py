"""What stages made, under their keys: whole and proven, or not there.

    .genwright/
      artifacts/<stage>/<key>/    files of the stage, then manifest.json with the SHA-256 of each
      work/<stage>/<key>/         survives a kill: checkpoints; removed once the artifact is published
      latest/<stage>.json         key and fields of the newest artifact
      set-aside/                  damaged artifacts, for a person to look at
      events.jsonl  lock

A folder is named by the first 16 characters of its key. Names that begin with a dot are being written; after a kill
they are rubbish, which `sweep` removes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright import __version__
from genwright.base.errors import Corrupt
from genwright.base.files import files_below, folder_being_written, sha256_of_file, sha256_of_json, write_atomic

MANIFEST = "manifest.json"
KEY_LETTERS = 16


@dataclass(frozen=True)
class Artifact:
    """A folder that a stage made. `inputs` are the digests of the artifacts it was made from."""

    stage: str
    key: str
    path: Path
    fields: Mapping[str, Any]
    inputs: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]
    """Path inside the folder -> {"sha256", "bytes"}."""

    @property
    def digest(self) -> str:
        """SHA-256 over names and content of its files: equal for equal content, whatever the key."""
        return sha256_of_json(self.files)

    def __truediv__(self, name: str) -> Path:
        """A file of the artifact."""
        return self.path / name

    def summary(self) -> dict[str, Any]:
        """What the stage returned, from <stage>.json."""
        value = json.loads((self.path / f"{self.stage}.json").read_text(encoding="utf-8"))
        return dict(value)


@dataclass(frozen=True)
class Removable:
    """Something below .genwright that the project, as it stands, does not need."""

    path: Path
    bytes: int
    why: str


class Store:
    """The artifacts of one project."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._proven: dict[Path, Any] = {}

    def artifact(self, stage: str, key: str) -> Path:
        """Where the artifact of a key is or would be."""
        return self.root / "artifacts" / stage / key[:KEY_LETTERS]

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact under a key with every file proven by its SHA-256, or None where there is none. Changes nothing.

        Everything is hashed (about 1 s per GB): size and time would miss a flipped byte. Within one process a file is
        hashed again only after the system saw it change. Errors: Corrupt names the file.
        """
        path = self.artifact(stage, key)
        if not path.exists():
            return None
        artifact = self._read(stage, path)
        if artifact.key != key:
            raise Corrupt(f"{path / MANIFEST} belongs to another key.", wanted=key, found=artifact.key)
        for name, proof in artifact.files.items():
            self._prove(path / name, name, proof)
        return artifact

    def latest(self, stage: str) -> Artifact | None:
        """The newest artifact of a stage for showing; its files are not hashed. None where there is none to show."""
        try:
            key = str(json.loads(self._pointer(stage).read_text(encoding="utf-8"))["key"])
            return self._read(stage, self.artifact(stage, key))
        except (OSError, ValueError, KeyError, Corrupt):
            return None

    def last_fields(self, stage: str) -> dict[str, Any] | None:
        """The fields of a stage's newest artifact, even when the artifact is gone. None when it never ran."""
        try:
            return dict(json.loads(self._pointer(stage).read_text(encoding="utf-8"))["fields"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextmanager
    def publish(self, stage: str, key: str, fields: Mapping[str, Any], inputs: Mapping[str, str]) -> Iterator[Path]:
        """A folder to fill; when the block ends well it becomes the artifact, and otherwise nothing has happened.

        One that is there under the same key is replaced; until the new one is whole it stays. Errors: DiskFull.
        """
        final = self.artifact(stage, key)
        with folder_being_written(final) as folder:
            yield folder
            content = {
                "stage": stage,
                "key": key,
                "fields": dict(fields),
                "inputs": dict(inputs),
                "genwright": __version__,
            }
            content["files"] = {path.relative_to(folder).as_posix(): _proof(path) for path in files_below(folder)}
            write_atomic(folder / MANIFEST, _with_seal(content))
            if final.exists():
                shutil.rmtree(_hidden(final))
        self.point(stage, key, fields)
        self.drop_work(stage, key)

    def point(self, stage: str, key: str, fields: Mapping[str, Any]) -> None:
        """Make a key the newest of its stage."""
        content = json.dumps({"key": key, "fields": dict(fields)}, indent=1, sort_keys=True)
        if not self._pointer(stage).exists() or self._pointer(stage).read_text(encoding="utf-8") != content:
            write_atomic(self._pointer(stage), content)

    def set_aside(self, stage: str, key: str) -> Path:
        """Move a damaged artifact out of the way and keep it for a person to look at. Returns where it is now."""
        number, source = 1, self.artifact(stage, key)
        while (target := self.root / "set-aside" / f"{stage}-{source.name}-{number}").exists():
            number += 1
        target.parent.mkdir(parents=True, exist_ok=True)
        return source.rename(target)

    def work(self, stage: str, key: str) -> Path:
        """A folder for what an interrupted run should find again, made when it is not there."""
        path = self._work(stage, key)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def has_work(self, stage: str, key: str) -> bool:
        """Whether an interrupted run of this key left something to go on from."""
        path = self._work(stage, key)
        return path.is_dir() and any(path.iterdir())

    def drop_work(self, stage: str, key: str) -> None:
        """Forget what an interrupted run left."""
        shutil.rmtree(self._work(stage, key), ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a kill left half-written. Only for the holder of the project's lock."""
        for path in self._half_written():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def removable(self, keep: Mapping[str, str]) -> list[Removable]:
        """What does not belong to the current keys (`keep`: stage -> key), largest first."""
        kept = {place(stage, key) for place in (self.artifact, self._work) for stage, key in keep.items()}
        folders = {"artifacts/*/*": "made for other settings", "work/*/*": "begun for other settings"}
        folders["set-aside/*"] = "damaged"
        found = {path: why for pattern, why in folders.items() for path in self.root.glob(pattern) if path not in kept}
        found |= dict.fromkeys(self._half_written(), "half-written when a run was killed")
        things = [Removable(path, _size(path), why) for path, why in found.items()]
        return sorted(things, key=lambda thing: (-thing.bytes, str(thing.path)))

    def clean(self, keep: Mapping[str, str], *, remove: bool = False) -> list[Removable]:
        """`removable`, and with `remove` it is gone afterwards. Only the holder of the project's lock may remove."""
        things = self.removable(keep)
        for thing in things if remove else ():
            path = _hidden(thing.path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return things

    def _half_written(self) -> list[Path]:
        patterns = ("artifacts/*/.*", "latest/.*", "work/*/.*", "set-aside/.*")
        return sorted(path for pattern in patterns for path in self.root.glob(pattern))

    def _pointer(self, stage: str) -> Path:
        return self.root / "latest" / f"{stage}.json"

    def _work(self, stage: str, key: str) -> Path:
        return self.root / "work" / stage / key[:KEY_LETTERS]

    def _read(self, stage: str, path: Path) -> Artifact:
        """The manifest, checked against its own seal but not against the files."""
        manifest = path / MANIFEST
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
            seal = content.pop("seal")
            if seal != sha256_of_json(content):
                raise Corrupt(f"{manifest} is not what was written: its seal is broken.")
            return Artifact(stage, content["key"], path, content["fields"], content["inputs"], content["files"])
        except FileNotFoundError:
            raise Corrupt(f"{manifest} is missing.") from None
        except (ValueError, KeyError, AttributeError):
            raise Corrupt(f"{manifest} cannot be read: it was cut short or changed.") from None

    def _prove(self, path: Path, name: str, proof: Mapping[str, Any]) -> None:
        try:
            status = path.stat()
        except OSError:
            raise Corrupt(f"{name} is missing.", wanted=f"the file {path}") from None
        seen = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, proof["sha256"])
        if self._proven.get(path) == seen:
            return
        if status.st_size != proof["bytes"]:
            raise Corrupt(
                f"{name} has another size.", wanted=f"{proof['bytes']} bytes", found=f"{status.st_size} bytes"
            )
        digest = sha256_of_file(path)
        if digest != proof["sha256"]:
            raise Corrupt(
                f"{name} is not what was written.", wanted=f"SHA-256 {proof['sha256']}", found=f"SHA-256 {digest}"
            )
        self._proven[path] = seen


def _proof(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}


def _with_seal(content: dict[str, Any]) -> str:
    """JSON that notices when it was changed. A manifest has no time in it: equal work gives equal bytes."""
    plain = json.loads(json.dumps(content))
    return json.dumps({**plain, "seal": sha256_of_json(plain)}, indent=1, sort_keys=True) + "\n"


def _hidden(path: Path) -> Path:
    """Rename to a dotted name, so that a kill in the middle of removing leaves rubbish and not half an artifact."""
    return path if path.name.startswith(".") else path.rename(path.with_name(f".{path.name}.removed"))


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in files_below(path)) if path.is_dir() else path.stat().st_size
