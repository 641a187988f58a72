"""Real gloo processes that train one tiny sharded model: run as a script, with one run a word, one after another.

    python sharded.py ROOT PROCESSES:START:STOP[:save] ...

A run trains from step START (resumed from the checkpoint in ROOT when it is not 0) to step STOP and prints the whole weights
and the whole optimizer state as a line of JSON; with "save", it leaves a checkpoint of step STOP. One process trains without
any sharding.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from genwright.adapters.base import trainable
from genwright.engine import checkpoint
from genwright.engine.build import Built
from genwright.engine.optim import adamw
from genwright.engine.saving import Saver, agreed, latest_for_all

RECIPE = "one"


def build(processes: int) -> Built:
    """5 and 3 outputs are no multiples of 2 or 4, so pieces are unequal and some are empty; one weight is frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3, bias=False), nn.LayerNorm(3))
    model[3].bias.requires_grad_(False)
    if processes > 1:
        mesh = init_device_mesh("cpu", (processes,))
        fully_shard(model[0], mesh=mesh)
        fully_shard(model, mesh=mesh)
    parameters = trainable(model)
    return Built(model, adamw(parameters, learning_rate=0.005, weight_decay=0.1), lambda *_: None, parameters)


def step(built: Built, number: int) -> None:
    """The same rows on every process, so the mean over processes is the gradient of one."""
    rows = torch.randn(6, 7, generator=torch.Generator().manual_seed(number))
    built.optimizer.zero_grad(set_to_none=True)
    built.model(rows).square().mean().backward()
    built.optimizer.step()


def whole(tensor: torch.Tensor) -> Any:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).tolist()


def everything(built: Built) -> dict[str, Any]:
    found = {name: whole(parameter) for name, parameter in built.parameters.items()}
    for name, parameter in built.parameters.items():
        found |= {f"{name}|{key}": whole(value) for key, value in built.optimizer.state[parameter].items()}
    return found


def run(rank: int, root: Path, processes: int, start: int, stop: int, saves: bool, meeting: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if processes > 1:
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    built = build(processes)
    if start:
        found = latest_for_all(root, recipe=RECIPE, say=print)
        assert found is not None and found.step == start, "there is nothing to resume from"
        checkpoint.restore_(built, found)
    with Saver(root, recipe=RECIPE) as saver:
        for number in range(start, stop):
            step(built, number)
        if saves:
            saver.save(built, step=stop, state={"told": "again"})
        assert agreed(rank == processes - 1, False) == (True, False), "what one process asks for, all know"
    told = everything(built)
    if rank == 0:
        print(json.dumps(told), flush=True)
    if processes > 1:
        distributed.destroy_process_group()


def run_all(root: Path, processes: int, start: int, stop: int, saves: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        started = [
            multiprocessing.get_context("fork").Process(
                target=run, args=(rank, root, processes, start, stop, saves, f"{folder}/meeting")
            )
            for rank in range(processes)
        ]
        for one in started:
            one.start()
        for one in started:
            one.join()
    return max(abs(one.exitcode or 0) for one in started)


def main() -> int:
    for word in sys.argv[2:]:
        processes, start, stop, *save = word.split(":")
        if code := run_all(Path(sys.argv[1]), int(processes), int(start), int(stop), bool(save)):
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
