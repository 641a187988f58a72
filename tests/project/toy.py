"""Toy stages, and `python toy.py FOLDER [--until STAGE] [--force STAGE]`, which applies them in its own process."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from genwright.base.errors import GenwrightError, Interrupted
from genwright.base.events import Events
from genwright.base.files import write_atomic
from genwright.project.apply import Context, apply
from genwright.project.graph import Stage
from genwright.project.spec import read_spec

PIECE_SECONDS = float(os.environ.get("TOY_PIECE_SECONDS", "0.0"))

STAGES = (
    Stage("grow", "toy:grow", keys=("project.seed", "adapt.steps"), files=("data.train",), needs="toy:room"),
    Stage("double", "toy:double", reads=("grow",)),
    Stage("judge", "toy:judge", reads=("double",), keys=("scope.target", "adapt.epochs")),
)


def piece(context: Context, number: int) -> bytes:
    """Some bytes that depend on everything that versions the stage, and on nothing else."""
    train = (context.base / "train.txt").read_bytes()
    return hashlib.shake_256(f"{context.spec.project.seed} {number} ".encode() + train).digest(20_000)


def grow(context: Context) -> dict[str, Any]:
    """Makes pieces slowly, keeps each in `work`, stops when asked."""
    for number in range(context.spec.adapt.steps):
        path = context.work / f"{number:03}"
        if path.exists():
            continue
        if context.stop():
            raise Interrupted("grow was asked to stop")
        time.sleep(PIECE_SECONDS)
        write_atomic(path, piece(context, number))
        context.events.write("progress", stage="grow", done=number + 1, total=context.spec.adapt.steps)
    for path in sorted(context.work.glob("[0-9]*")):
        with (context.out / "grown.bin").open("ab") as file:
            file.write(path.read_bytes())
    return {"pieces": context.spec.adapt.steps}


def double(context: Context) -> dict[str, Any]:
    """Writes what it read twice, half a file at a time."""
    grown = (context.inputs["grow"] / "grown.bin").read_bytes()
    (context.out / "deep").mkdir()
    with (context.out / "deep" / "doubled.bin").open("wb") as file:
        for _ in range(2):
            file.write(grown)
            time.sleep(PIECE_SECONDS)
    return {"bytes": 2 * len(grown)}


def judge(context: Context) -> dict[str, Any]:
    """The target is met when it is below 50."""
    return {"met": (context.spec.scope.target or 0) < 50}


def room(context: Context) -> int:
    """As many bytes as the environment says."""
    return int(os.environ.get("TOY_ROOM", "0"))


def broken(context: Context) -> dict[str, Any]:
    """Fails after some work."""
    (context.work / "half").write_text("half")
    (context.out / "half").write_text("half")
    raise ValueError("the oven is cold")


def main() -> int:
    """Apply, with the product's exit codes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--until")
    parser.add_argument("--force", action="append", default=[])
    words = parser.parse_args()
    try:
        spec = read_spec(words.folder / "genwright.toml")
        events = Events(spec.base / ".genwright" / "events.jsonl")
        return apply(spec, events=events, until=words.until, force=words.force, stages=STAGES).exit_code
    except GenwrightError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
