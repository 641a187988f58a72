"""A library of experts on disk: one base, many adapters, each version in a folder of its own, one index that is replaced whole.

    library/
      index.json                      {"base": ..., "base_digest": ..., "experts": {name: version}}
      versions/NAME/VERSION/          adapter files, expert/ (card, centroids, held-out queries)

A version is the digest of the adapter's files, so a changed adapter has a new path and no engine's cache can be stale. Versions
that are no longer named are kept until `sweep`: requests that run on them end as they began. A base is known by the digest of its weights
where the adapter's card tells it, else by its name.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genwright.base.errors import BadRequest, ModelError, UnknownName
from genwright.base.files import files_below, folder_being_written, sha256_of_file, sha256_of_json, write_atomic
from genwright.base.registry import nearest
from genwright.serve.contracts import AUTO, BASE, Expert

if TYPE_CHECKING:
    from genwright.serve.embed import Embedder
    from genwright.serve.expert_profile import ExpertProfile

INDEX = "index.json"
FOLDER, CARD = "expert", "expert.json"
"""Where an adapter's card is, below its own folder."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
WEIGHTS = ("adapter_model.safetensors", "adapter.gguf")


class ExpertLibrary:
    """See contracts.Library. `changed` is called after every change, with the library, outside of its lock."""

    def __init__(self, root: Path, changed: Callable[[ExpertLibrary], None] | None = None) -> None:
        self.root, self.changed = Path(root), changed
        self._lock = threading.Lock()
        self._read_at: tuple[int, int] = (0, 0)
        self._experts: dict[str, Expert] = {}

    def experts(self) -> Sequence[Expert]:
        """All, by name; another process's change is seen at the next look."""
        self._refresh()
        return tuple(self._experts[name] for name in sorted(self._experts))

    def get(self, name: str) -> Expert | None:
        """One, or None."""
        self._refresh()
        return self._experts.get(name)

    def profiles(self) -> list[ExpertProfile]:
        """Of those that have one."""
        from genwright.serve.expert_profile import read_profile

        found = (read_profile(expert.path) for expert in self.experts())
        return [one for one in found if one is not None]

    def add(self, path: Path, name: str = "") -> Expert:
        """Copy an adapter's folder in; the same name replaces. Errors: BadRequest, ModelError for what is no adapter of this base."""
        path = Path(path)
        config = _config(path)
        name = name or _card(path).get("name") or path.resolve().name
        if NAME.fullmatch(name) is None or name in (AUTO, BASE):
            raise BadRequest(
                f"An expert cannot be named '{name}'.", wanted='letters, digits, "_", "." and "-"; not auto or base'
            )
        version = version_of(path)
        with self._changing() as index:
            card = _card(path)
            told = (
                str(card.get("base") or config.get("base_model_name_or_path") or ""),
                str(card.get("base_digest") or ""),
            )
            _refuse_another_base((index["base"], index["base_digest"]), told, name)
            index["base"], index["base_digest"] = index["base"] or told[0], index["base_digest"] or told[1]
            final = self._folder(name, version)
            if not final.exists():
                final.parent.mkdir(parents=True, exist_ok=True)
                with folder_being_written(final) as being:
                    shutil.copytree(path, being, dirs_exist_ok=True)
                    _rename_card(being, name)
            index["experts"][name] = version
        self._tell()
        found = self.get(name)
        assert found is not None, "it was just written"
        return found

    def remove(self, name: str) -> None:
        """Forget one; its files stay until `sweep`. Errors: UnknownName."""
        with self._changing() as index:
            if name not in index["experts"]:
                close = nearest(name, list(index["experts"]))
                raise UnknownName(
                    f"There is no expert '{name}'.",
                    wanted=", ".join(sorted(index["experts"])) or "none is here yet",
                    do=f"did you mean '{close}'?" if close else "",
                )
            del index["experts"][name]
        self._tell()

    def sweep(self) -> int:
        """Remove versions that the index does not name; returns how many. Only while nothing serves them."""
        with self._changing() as index:
            stale = [
                folder for folder in (self.root / "versions").glob("*/*")
                if index["experts"].get(folder.parent.name) != folder.name
            ]  # fmt: skip
            for folder in stale:
                shutil.rmtree(folder)
        return len(stale)

    @property
    def base_digest(self) -> str:
        """Of the weights of the base that the experts were trained on; "" where no card tells."""
        return str(self._index()["base_digest"])

    def _folder(self, name: str, version: str) -> Path:
        return self.root / "versions" / name / version

    def _refresh(self) -> None:
        try:
            status = (self.root / INDEX).stat()
        except FileNotFoundError:
            self._experts = {}
            return
        seen = (status.st_mtime_ns, status.st_ino)
        if seen != self._read_at:
            index = self._index()
            found = {name: self._expert(name, version) for name, version in index["experts"].items()}
            self._experts, self._read_at = found, seen

    def _expert(self, name: str, version: str) -> Expert:
        path = self._folder(name, version)
        return Expert(name, path, version, {key: value for key, value in _card(path).items() if key != "held_out"})

    def _index(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.root / INDEX).read_text(encoding="utf-8"))
            digest = str(found.get("base_digest", ""))
            return {"base": str(found["base"]), "base_digest": digest, "experts": dict(found["experts"])}
        except FileNotFoundError:
            return {"base": "", "base_digest": "", "experts": {}}
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"The index of the library {self.root} is damaged.", found=str(error), do="add the experts again"
            ) from None

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The index, alone among threads and processes; written whole if the block ends well."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock, (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            index = self._index()
            before = json.dumps(index, sort_keys=True)
            yield index
            if json.dumps(index, sort_keys=True) != before:
                write_atomic(self.root / INDEX, json.dumps(index, indent=1, sort_keys=True))

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed(self)


def publish(
    library: ExpertLibrary, adapter: Path, texts: Sequence[str], embedder: Embedder, *, name: str = "",
    card: dict[str, Any] | None = None, held_out: Sequence[str] = (),
) -> Expert:  # fmt: skip
    """Make an adapter's profile of its training queries beside it, and take it in. Errors: as profile_of and ExpertLibrary.add."""
    from genwright.serve.expert_profile import profile_of, write_profile

    name = name or Path(adapter).resolve().name
    told = {"base": str(_config(Path(adapter)).get("base_model_name_or_path") or ""), **(card or {})}
    write_profile(profile_of(texts, embedder, name=name, card=told, held_out=held_out), Path(adapter))
    return library.add(Path(adapter), name)


def version_of(adapter: Path) -> str:
    """12 characters of the digest of every file below."""
    return sha256_of_json(
        {str(path.relative_to(adapter)): sha256_of_file(path) for path in sorted(files_below(adapter))}
    )[:12]


def _config(path: Path) -> dict[str, Any]:
    """adapter_config.json. Errors: ModelError."""
    try:
        told: dict[str, Any] = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        if not isinstance(told, dict) or not any((path / name).is_file() for name in WEIGHTS):
            raise ValueError("no weights")
        return told
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} is no adapter.", wanted=f"adapter_config.json and {WEIGHTS[0]}", found=str(error)
        ) from None


def _card(path: Path) -> dict[str, Any]:
    try:
        told = json.loads((path / FOLDER / CARD).read_text(encoding="utf-8"))
        return told if isinstance(told, dict) else {}
    except (OSError, ValueError):
        return {}


def _rename_card(folder: Path, name: str) -> None:
    card = _card(folder)
    if card and card.get("name") != name:
        write_atomic(folder / FOLDER / CARD, json.dumps({**card, "name": name}, indent=1, ensure_ascii=False))


def _refuse_another_base(library: tuple[str, str], adapter: tuple[str, str], name: str) -> None:
    """(name, digest) of both. Errors: ModelError when the adapter was trained on another base; one that tells nothing is believed."""
    names = [Path(told).name for told, _ in (library, adapter)]
    digests = [digest for _, digest in (library, adapter)]
    same = digests[0] == digests[1] if all(digests) else names[0] == names[1] or not all(names)
    if not same:
        raise ModelError(
            f"The expert '{name}' is of another base.",
            wanted=" ".join(filter(None, library)),
            found=" ".join(filter(None, adapter)),
            do="give each base a library of its own",
        )


def digest_of_base(model: Path) -> str:
    """12 characters of the digest of a model folder's weights, read off the manifest of its artifact where it is in one."""
    manifest = model.parent / "manifest.json"
    known: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))["files"] if manifest.exists() else {}
    found = {
        path.name: (known.get(f"{model.name}/{path.name}") or {}).get("sha256") or sha256_of_file(path)
        for path in sorted(model.glob("*.safetensors"))
    }
    return sha256_of_json(found)[:12] if found else ""
