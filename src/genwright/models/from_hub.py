"""Models from the hub: small files first, so that what cannot work is refused before gigabytes are fetched."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genwright.base.errors import ModelError
from genwright.base.units import Bytes
from genwright.models.check import check_folder
from genwright.models.sources import RECORD, WHAT_WORKS, Say, Source, room_for

HUB_SECONDS = 5.0
"""How long the hub may take to answer a first request before it counts as unreachable."""


SMALL_FILES = re.compile(r"[^/]+\.(json|jinja|model|txt)|README\.md|LICENSE[^/]*")


SHARD = re.compile(r"model(-\d+-of-\d+)?\.safetensors")


def fetch(source: Source, cache: Path, out: Path, offline: bool, say: Say) -> None:
    """A repository's configuration, tokenizer and safetensors in the folder `out`. Errors: ModelError, DiskFull.

    Small files first, so that a refusal costs no gigabytes; then the weights. All stay in the hub's own cache.
    """
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


def at_hand(source: Source, cache: Path) -> bool:
    """Whether the hub's own cache has this revision."""
    return _hub_snapshot(source) is not None


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
    room_for(out, 2 * total, f"{source.location}")
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
