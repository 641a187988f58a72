"""What is saved, and how it resumes: whole or not at all, proven by hash, newest valid one first.

    checkpoints/step-000200/
        trained.safetensors      the weights that are trained, float32
        optimizer.safetensors    the optimizer's state, by the weight's name
        state.json               the step, the recipe's identity, and what the consumer of the loop remembers
        manifest.json            SHA-256 of each, written last; checked before anything is opened

Random state and data order are functions of seed and step, so they need no file.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from genwright.base.errors import Corrupt
from genwright.base.files import folder_being_written, sha256_of_file, write_atomic
from genwright.engine.build import Built

FILES = ("trained.safetensors", "optimizer.safetensors", "state.json")
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """A valid checkpoint on disk."""

    folder: Path
    step: int
    state: dict[str, Any]


def save(root: Path, built: Built, *, step: int, recipe: str, state: dict[str, Any]) -> float:
    """Write the checkpoint of `step`, then drop all but the newest two. Returns the seconds it took. Errors: DiskFull."""
    began = time.perf_counter()
    final = root / f"step-{step:06d}"
    if not final.exists():
        with folder_being_written(final) as folder:
            save_file({name: parameter.detach() for name, parameter in built.parameters.items()}, folder / FILES[0])
            save_file(_optimizer_tensors(built), folder / FILES[1])
            (folder / FILES[2]).write_text(json.dumps({"step": step, "recipe": recipe, **state}))
            manifest = {name: sha256_of_file(folder / name) for name in FILES}
            (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for old in sorted(root.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return time.perf_counter() - began


def latest(root: Path, *, recipe: str, say: Callable[[str], Any]) -> Checkpoint | None:
    """The newest valid checkpoint of this recipe. A damaged one is named, set aside, and the one before it is taken."""
    for folder in sorted(root.glob("step-*"), reverse=True):
        try:
            state = _checked_state(folder)
        except Corrupt as error:
            aside = root / f"damaged-{folder.name}"
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            say(f"{error.what} Set aside as {aside.name}; the one before it is used.")
            continue
        if state["recipe"] == recipe:
            return Checkpoint(folder, state["step"], state)
    return None


def _checked_state(folder: Path) -> dict[str, Any]:
    """Check every hash before anything is opened. Errors: Corrupt naming the file."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for name in FILES:
            if manifest[name] != sha256_of_file(folder / name):
                raise Corrupt(f"Checkpoint {folder.name}: {name} is not what was written.")
        return dict(json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError, KeyError) as error:
        raise Corrupt(f"Checkpoint {folder.name} is incomplete ({type(error).__name__}: {error}).") from error


def restore_(built: Built, checkpoint: Checkpoint) -> None:
    """Put the checkpoint's tensors in place, one at a time: it is never held twice."""
    with safe_open(checkpoint.folder / FILES[0], framework="pt") as file, torch.no_grad():
        for name, parameter in built.parameters.items():
            parameter.copy_(file.get_tensor(name))
    names = {parameter: name for name, parameter in built.parameters.items()}
    with safe_open(checkpoint.folder / FILES[1], framework="pt") as file:
        keys = sorted(file.keys())
        for parameter, name in names.items():
            own = [key for key in keys if key.rpartition("|")[0] == name]
            if own:
                built.optimizer.state[parameter] = {key.rpartition("|")[2]: file.get_tensor(key) for key in own}


def save_best(path: Path, built: Built) -> None:
    """The trained weights at the best validation so far, replaced in one rename."""
    from safetensors.torch import save

    write_atomic(path, save({name: parameter.detach() for name, parameter in built.parameters.items()}))


def load_best_(path: Path, built: Built) -> None:
    """Go back to the best weights."""
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, parameter in built.parameters.items():
            parameter.copy_(file.get_tensor(name))


def _optimizer_tensors(built: Built) -> dict[str, torch.Tensor]:
    return {
        f"{name}|{key}": value
        for name, parameter in built.parameters.items()
        for key, value in built.optimizer.state.get(parameter, {}).items()
    }
