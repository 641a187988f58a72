"""A supervised child process. One of ours `talks`: it tells its address on its first line, and ends when we do.

Its standard input is a pipe that we hold: when we die, however we die, it reads the end of the pipe and leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genwright.serve.contracts import EngineDown

PATIENCE = 120.0
"""Seconds in which a child must tell its address: the largest model here is read in a fraction of it."""

POLITE = 3.0
"""Seconds between asking and killing."""


class Child:
    """One running process."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: dict[str, str] | None = None, *, talks: bool = True
    ) -> None:
        self.command, self.log, self.environment, self.talks = list(command), log, environment or {}, talks
        self.process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.returncode is None

    async def start(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Run it and return the JSON of its first line. Errors: EngineDown with its last words."""
        await self.spawn()
        assert self.process is not None and self.process.stdout is not None
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), patience)
            return dict(json.loads(line))
        except (TimeoutError, ValueError):
            await self.stop()
            raise EngineDown(f"the engine did not start: {self.last_words()}") from None

    async def spawn(self) -> None:
        """Run it. Errors: EngineDown where there is no such program."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            try:
                self.process = await asyncio.create_subprocess_exec(
                    *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE if self.talks else log,
                    stderr=log, env={**os.environ, **self.environment}, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise EngineDown(f"{self.command[0]} cannot be run: {error.strerror}") from None

    def last_words(self) -> str:
        """The end of its log."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return "nothing was said"
        return " / ".join(lines[-3:])[-500:] or "nothing was said"

    async def stop(self) -> None:
        """Ask, wait, then kill the whole group."""
        process, self.process = self.process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if not self.talks:
            process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), POLITE)
        if process.returncode is None:
            _kill_group(process.pid)
            await process.wait()

    def kill(self) -> None:
        """At once, with everything that it started; `alive` says when it is over."""
        if self.process is not None and self.process.returncode is None:
            _kill_group(self.process.pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
