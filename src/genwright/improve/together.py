"""One training in several processes of this machine.

The parent starts the workers and tells what the first of them tells; each opens the same workshop and trains its share.
What they leave is a checkpoint of the final weights, in pieces, which the parent puts together into the result.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genwright.base.events import Events, read_events
from genwright.engine.checkpoint import folder_name
from genwright.improve.training import MILESTONES, RESULT, open_milestone, train_share
from genwright.parallel import launch
from genwright.parallel.mesh import Placement
from genwright.project.apply import stop_on_signal
from genwright.project.spec import spec_from_given

LISTEN_SECONDS = 0.5
"""How often the parent reads what the first worker wrote."""


def train_together(workshop: Any, rung: str, place: Placement, folder: Path, lesson: str = "") -> dict[str, Any]:
    """Train a rung, or its lesson, in `place.ranks` processes and write its result to `folder`; returns what was measured.

    Errors: those of a training, from whichever process; WorkerDied.
    """
    told = folder / "training" / "events.jsonl"
    argument = {
        "path": str(workshop.spec.path), "given": workshop.spec.given, "scope": str(workshop.scope), "model": str(workshop.origin),
        "made": str(workshop.made), "rung": rung, "place": dataclasses.asdict(place), "events": str(told),
        "until": workshop.until, "lesson": lesson, "folder": str(folder),
    }  # fmt: skip
    with _retold(told, workshop.events):
        measured = launch.run(place.ranks, "genwright.improve.together:work", argument, device=place.device)
    (result,) = (folder / "training" / RESULT).glob("step-*")
    open_milestone(workshop.recipe(rung), workshop.model, result, folder)
    for step in workshop.spec.adapt.milestones:
        kept = folder / "training" / "checkpoints" / folder_name(step)
        if kept.exists():
            open_milestone(workshop.recipe(rung), workshop.model, kept, folder / MILESTONES / kept.name)
    peaks = {name: sum(one[name] for one in measured) for name in measured[0] if name.endswith("_peak_bytes")}
    return measured[0] | peaks


def work(argument: dict[str, Any]) -> dict[str, Any]:
    """A worker's part: the workshop as the parent has it, and the rung's training."""
    import torch.distributed as dist

    from genwright.improve.lessons import lesson_of
    from genwright.improve.workshop import Workshop

    path = Path(argument["events"])
    events = Events(path if dist.get_rank() == 0 else path.with_name(f"events-{dist.get_rank()}.jsonl"))
    with stop_on_signal() as stop:
        workshop = Workshop(
            spec_from_given(argument["given"], Path(argument["path"])), scope=Path(argument["scope"]), model=Path(argument["model"]),
            made=Path(argument["made"]), events=events, stop=stop,
        )  # fmt: skip
        workshop.until = argument["until"]
        rung, place = argument["rung"], Placement(**argument["place"])
        shop = lesson_of(workshop, rung, argument["lesson"])
        return train_share(shop.job(rung, Path(argument["folder"]), place))


@contextmanager
def _retold(path: Path, events: Events) -> Iterator[None]:
    """Write to `events` what appears in the file at `path`, until it is over."""
    path.unlink(missing_ok=True)
    done = threading.Event()
    heard = 0

    def listen() -> None:
        nonlocal heard
        while True:
            last = done.wait(LISTEN_SECONDS)
            found = read_events(path)
            for event in found[heard:]:
                events.write(
                    event["kind"], **{name: value for name, value in event.items() if name not in ("time", "kind")}
                )
            heard = len(found)
            if last:
                return

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield
    finally:
        done.set()
        listener.join()
