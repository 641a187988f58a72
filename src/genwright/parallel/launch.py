"""Several processes of one machine that work as one: started, watched, and ended together.

    run(2, "package.module:function", {"steps": 3})     each process calls function({"steps": 3}) in a process group

A worker is `python -m genwright.parallel.launch`; it has torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT), so the module may be started by torchrun as well. Everything meets on the loopback, at a port that the parent
holds from the start. The argument comes through standard input, and its end tells a worker that the parent is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from genwright.base import errors
from genwright.base.errors import GenwrightError, Interrupted, WorkerDied

GRACE_SECONDS = 20.0
"""What the others get to end by themselves once one has died: then they are killed."""
LAST_WORDS = 6
"""Lines of a dead worker's standard error that are shown."""
ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Worker:
    """One process and its folder: `result.json` (what it returned, or its error), `out.txt`, `err.txt`."""

    rank: int
    process: subprocess.Popen[bytes]
    folder: Path

    def outcome(self) -> dict[str, Any]:
        """What it left: {"value"} or {"error", "at"}; empty when it was killed before it could."""
        path = self.folder / "result.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def last_words(self) -> str:
        """The end of its standard error."""
        lines = (self.folder / "err.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n          ".join(lines[-LAST_WORDS:]) or "nothing"


def run(count: int, function: str, argument: Any = None, *, device: str = "cpu", threads: int = 0) -> list[Any]:
    """Call `function` ("module:name") with `argument` (JSON) in `count` processes; returns what each returned, by rank.

    SIGTERM and SIGINT to this process reach the workers as SIGTERM, and it goes on waiting for them. `threads` for each
    worker; 0 shares the cores.

    Errors: the worker's own, where it is one of ours; Interrupted where one ended because it was told to; else WorkerDied
    with its rank and last words. The others are ended.
    """
    from torch._C._distributed_c10d import TCPStore

    store = TCPStore(
        ADDRESS, 0, is_master=True, wait_for_workers=False
    )  # the system chooses the port, and it is ours from here
    with tempfile.TemporaryDirectory(prefix="genwright-") as folder:
        started = [
            _start(rank, count, function, argument, store.port, Path(folder), device, threads) for rank in range(count)
        ]
        try:
            with _signals_reach(started):
                _wait(started)
            return [worker.outcome()["value"] for worker in started]
        finally:
            _end(started, grace=0.0)
            for worker in started:
                assert worker.process.stdin is not None
                worker.process.stdin.close()


def _start(
    rank: int, count: int, function: str, argument: Any, port: int, root: Path, device: str, threads: int
) -> Worker:  # fmt: skip
    folder = root / str(rank)
    folder.mkdir()
    environment = os.environ | {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": ADDRESS, "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": str(threads or max(1, len(os.sched_getaffinity(0)) // count)), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    with (folder / "out.txt").open("wb") as out, (folder / "err.txt").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "genwright.parallel.launch", function, device, str(folder)],
            env=environment, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # one that is dead already is found by _wait
        process.stdin.write(json.dumps(argument).encode() + b"\n")
        process.stdin.flush()
    return Worker(rank, process, folder)


@contextlib.contextmanager
def _signals_reach(workers: list[Worker]) -> Iterator[None]:
    """Only the main thread may handle signals; elsewhere whoever handles them must."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    told: list[bool] = []

    def forward(_: int, __: FrameType | None) -> None:
        told.append(True)
        _tell(workers, signal.SIGTERM)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except WorkerDied as error:
        if not told:
            raise
        raise Interrupted(f"Stopped on request. {error.what}", do="run again to resume from what was saved") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(workers: list[Worker], number: signal.Signals) -> None:
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.send_signal(number)


def _wait(workers: list[Worker]) -> None:
    """Until all have ended well. Errors: the first one's that did not."""
    while True:
        codes = [worker.process.poll() for worker in workers]
        if any(codes):
            break
        if all(code == 0 for code in codes):
            return
        time.sleep(0.02)
    time.sleep(0.2)  # those who lost it in the middle of a meeting fail in the same instant: look who was first
    dead = [worker for worker in workers if worker.process.poll()]
    _end(workers, grace=GRACE_SECONDS)
    raise _error_of(min(dead, key=lambda worker: worker.outcome().get("at", 0.0)), len(workers))


def _end(workers: list[Worker], *, grace: float) -> None:
    """Ask those that still run to end, then make them."""
    _tell(workers, signal.SIGTERM)
    until = time.monotonic() + grace
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, until - time.monotonic()))
    _tell(workers, signal.SIGKILL)
    for worker in workers:
        worker.process.wait()


def _error_of(worker: Worker, count: int) -> GenwrightError:
    told = worker.outcome().get("error", {})
    kind = getattr(errors, told.get("kind", ""), None)
    if kind is not None:
        error = kind.__new__(kind)
        GenwrightError.__init__(error, told["what"], wanted=told["wanted"], found=told["found"], do=told["do"])
        return error
    code = worker.process.returncode
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return WorkerDied(
        f"Process {worker.rank} of {count} (they count from 0) ended with {how}; the others were ended.", found=worker.last_words(),
        do="run again to resume; SIGKILL without words is most often the system short of memory",
    )  # fmt: skip


def main(function: str, device: str, folder: str) -> int:
    """A worker's life: join, work, leave what came of it."""
    argument = json.loads(sys.stdin.readline() or "null")
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        with joined(device), _errors_left_in(folder):
            module, _, name = function.partition(":")
            value = getattr(importlib.import_module(module), name)(argument)
    except GenwrightError as error:
        return error.exit_code
    _leave(folder, {"value": value})
    return 0


@contextlib.contextmanager
def _errors_left_in(folder: str) -> Iterator[None]:
    """Written before the group is left: the others fail the moment that this one is gone, and were not the first."""
    try:
        yield
    except GenwrightError as error:
        words = {"what": error.what, "wanted": error.wanted, "found": error.found, "do": error.do}
        _leave(folder, {"error": {"kind": type(error).__name__, **words}, "at": time.time()})
        raise
    except BaseException:
        _leave(folder, {"error": {}, "at": time.time()})
        raise


def _leave(folder: str, outcome: dict[str, Any]) -> None:
    (Path(folder) / "result.json").write_text(json.dumps(outcome), encoding="utf-8")


def _end_with_the_parent() -> None:
    """Standard input ends when the parent does, however it died."""
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 1):
            pass
    os._exit(1)


@contextlib.contextmanager
def joined(device: str = "cpu", environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """The process group that torchrun's environment describes: gloo for CPU tensors, NCCL for CUDA's."""
    import torch

    if device == "cuda":
        torch.cuda.set_device(int(environment["LOCAL_RANK"]))
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
