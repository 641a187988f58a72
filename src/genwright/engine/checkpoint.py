"""What a checkpoint is: whole or not at all, proven by hash, newest valid one first, of any number of processes.

    checkpoints/step-000200/
        trained.safetensors      the weights that are trained, float32
        optimizer.safetensors    the optimizer's state, as "weight|name of the state", and the loss's scale in float16
        state.json               the step, the recipe's identity, and what the consumer of the loop remembers
        manifest.json            SHA-256 of each; checked before anything is opened

Where several processes trained, each wrote its pieces: trained-1-of-4.safetensors and so on (see `engine.shards`). That is
the only difference, so there is one format: files that any safetensors reader opens, from which any number of processes
resumes. Random state and data order are functions of seed and step, so they need no file.

A checkpoint is written under a name with a dot, in a folder of its own: each process writes, then says so in a file; the
first one waits for all, writes the manifest and renames. So no process waits for another while it trains, and a kill at
any moment leaves what was there before.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from genwright.base.errors import Corrupt
from genwright.base.files import disk_full_is_an_error, sha256_of_file, sync_file, sync_folder, write_atomic
from genwright.engine.build import Built
from genwright.engine.shards import Pieces, index_of, pieces_of, read_

MANIFEST, STATE = "manifest.json", "state.json"
TRAINED, OPTIMIZER = "trained", "optimizer"
SCALING = "loss scaling"
KEEP = 2
"""How many of the newest are kept, beside the milestones."""
WAIT_SECONDS = 600.0
"""How long the first process waits for the others' files before it gives a checkpoint up."""


@dataclass(frozen=True)
class Checkpoint:
    """A valid checkpoint on disk."""

    folder: Path
    step: int
    state: dict[str, Any]


@dataclass(frozen=True)
class Process:
    """Which of how many processes this is, and the word by which those of one run know each other's files."""

    number: int = 0
    count: int = 1
    word: str = "alone"

    def file(self, part: str) -> str:
        """The name of this process's file of a part."""
        return f"{part}.safetensors" if self.count == 1 else f"{part}-{self.number + 1}-of-{self.count}.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """One process's part of a checkpoint, copied: training may go on while it is written."""

    step: int
    parts: dict[str, Pieces]
    state: str
    """state.json."""

    @property
    def name(self) -> str:
        """The checkpoint's folder."""
        return folder_name(self.step)

    @property
    def bytes(self) -> int:
        """What the copies take."""
        return sum(one.numel() * one.element_size() for part in self.parts.values() for one in part.tensors.values())


def folder_name(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:06d}"


def snapshot(
    built: Built, *, step: int, recipe: str, state: Mapping[str, Any], process: Process = Process(),
    parts: Collection[str] = (TRAINED, OPTIMIZER), over: Snapshot | None = None,
) -> Snapshot:  # fmt: skip
    """Copy what is to be saved into this machine's memory; `over` is an earlier snapshot whose memory is used again."""
    tensors: dict[str, dict[str, Tensor]] = {TRAINED: dict(built.parameters), OPTIMIZER: _optimizer_tensors(built)}
    copies = {
        part: _copied(pieces_of(tensors[part], process=process.number), over.parts[part].tensors if over else {})
        for part in parts
    }
    return Snapshot(step, copies, json.dumps({"step": step, "recipe": recipe, **state}))


def _copied(pieces: Pieces, over: Mapping[str, Tensor]) -> Pieces:
    copies = {
        key: over[key] if key in over else torch.empty(one.shape, dtype=one.dtype)
        for key, one in pieces.tensors.items()
    }
    for key, one in pieces.tensors.items():
        copies[key].copy_(one)
    return Pieces(copies, pieces.shapes)


def write(
    root: Path, taken: Snapshot, *, process: Process = Process(), keep: int = KEEP, milestones: Collection[int] = ()
) -> None:
    """Make a snapshot a checkpoint, then drop all but the newest `keep` and the milestones. Errors: DiskFull, Corrupt.

    One that is there already is left alone: equal steps of one recipe are equal.
    """
    final = root / taken.name
    if final.exists():
        return
    folder = root / f".{taken.name}.{process.word}"
    try:
        with disk_full_is_an_error(final):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / f".{process.number}", json.dumps(_write_files(folder, taken, process)))
            if process.number == 0:
                _commit(folder, final, process)
                _drop_old(root, keep, milestones)
    finally:
        if process.number == 0:
            shutil.rmtree(folder, ignore_errors=True)


def _write_files(folder: Path, taken: Snapshot, process: Process) -> dict[str, str]:
    """What one process writes, on the disk, with its hashes."""
    parts = {
        part: pieces for part, pieces in taken.parts.items() if pieces.tensors
    }  # of a small tensor it may hold nothing
    for part, pieces in parts.items():
        save_file(pieces.tensors, folder / process.file(part), metadata=pieces.header())
    names = [process.file(part) for part in parts]
    if process.number == 0:
        (folder / STATE).write_text(taken.state, encoding="utf-8")
        names.append(STATE)
    for name in names:
        sync_file(folder / name)
    return {name: sha256_of_file(folder / name) for name in names}


def _commit(folder: Path, final: Path, process: Process) -> None:
    """The manifest over every process's files, then the rename that makes them a checkpoint."""
    hashes: dict[str, str] = {}
    until = time.monotonic() + WAIT_SECONDS
    for number in range(process.count):
        said = folder / f".{number}"
        while not said.exists():
            if time.monotonic() > until:
                raise Corrupt(
                    f"Checkpoint {final.name} was given up: process {number} did not write its part.",
                    found=f"nothing after {WAIT_SECONDS:.0f} s", do="look for that process's own error; the checkpoint before it is kept",
                )  # fmt: skip
            time.sleep(0.02)
        hashes |= json.loads(said.read_text())
        said.unlink()
    write_atomic(folder / MANIFEST, json.dumps(hashes, indent=1))
    folder.rename(final)
    sync_folder(final.parent)


def _drop_old(root: Path, keep: int, milestones: Collection[int]) -> None:
    kept = {folder_name(step) for step in milestones}
    for old in sorted(folder for folder in root.glob("step-*") if folder.name not in kept)[:-keep]:
        shutil.rmtree(old.rename(root / f".{old.name}.removed"), ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what a kill left half-written. Only before anything is written here."""
    for left in root.glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)


def save(root: Path, built: Built, *, step: int, recipe: str, state: Mapping[str, Any]) -> float:
    """Snapshot and write at once, in one process. Returns the seconds it took. Errors: DiskFull."""
    began = time.perf_counter()
    write(root, snapshot(built, step=step, recipe=recipe, state=state))
    return time.perf_counter() - began


def latest(root: Path, *, recipe: str, say: Callable[[str], Any]) -> Checkpoint | None:
    """The newest valid checkpoint of this recipe. A damaged one is named, set aside, and the one before it is taken."""
    for folder in sorted(root.glob("step-*"), reverse=True):
        try:
            found = opened(folder)
        except Corrupt as error:
            aside = root / f"damaged-{folder.name}"
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            say(f"{error.what} Set aside as {aside.name}; the one before it is used.")
            continue
        if found.state["recipe"] == recipe:
            return found
    return None


def opened(folder: Path) -> Checkpoint:
    """A checkpoint with every hash checked before anything in it is read. Errors: Corrupt naming the file."""
    try:
        manifest = dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        missing = {path.name for path in folder.iterdir()} - {MANIFEST} - set(manifest)
        if missing:
            raise Corrupt(f"Checkpoint {folder.name}: {min(missing)} is not in its manifest.")
        for name, digest in manifest.items():
            if digest != sha256_of_file(folder / name):
                raise Corrupt(f"Checkpoint {folder.name}: {name} is not what was written.")
        state = dict(json.loads((folder / STATE).read_text(encoding="utf-8")))
        return Checkpoint(folder, state["step"], state)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"Checkpoint {folder.name} is incomplete ({type(error).__name__}: {error}).") from error


def restore_(built: Built, checkpoint: Checkpoint, *, parts: Collection[str] = (TRAINED, OPTIMIZER)) -> None:
    """Put the checkpoint's tensors in place, a piece at a time: it is never held twice. How many processes wrote it is all one."""
    if TRAINED in parts:
        read_(dict(built.parameters), index_of(_files(checkpoint, TRAINED)))
    if OPTIMIZER in parts:
        _restore_optimizer_(built, checkpoint)


def _restore_optimizer_(built: Built, checkpoint: Checkpoint) -> None:
    index = index_of(_files(checkpoint, OPTIMIZER))
    targets: dict[str, Tensor] = {}
    for key, stored in index.tensors().items():
        name, _, what = key.rpartition("|")
        if name == SCALING:
            if built.scaling:
                targets[key] = built.scaling.tensors()[what]
            continue
        state = built.optimizer.state[built.parameters[name]]
        if what not in state:
            state[what] = _like(built.parameters[name], stored.size, stored.properties.dtype)
        targets[key] = state[what]
    read_(targets, index)


def _like(parameter: Tensor, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """A new tensor for a state: laid out as its weight is, where it has the weight's shape."""
    if isinstance(parameter, DTensor) and size == parameter.shape:
        return torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
    return torch.empty(size, dtype=dtype, device=parameter.device)


def _files(checkpoint: Checkpoint, part: str) -> list[Path]:
    return [path for path in sorted(checkpoint.folder.iterdir()) if path.name.startswith((f"{part}.", f"{part}-"))]


def _optimizer_tensors(built: Built) -> dict[str, Tensor]:
    state = {name: built.optimizer.state.get(parameter, {}) for name, parameter in built.parameters.items()}
    if built.scaling:
        state[SCALING] = built.scaling.tensors()
    return {f"{name}|{key}": value for name, values in state.items() for key, value in values.items()}
