"""Whether a process of ours still works, and its end where it does not: one that hangs is as gone as one that died.

    answers are waited for     a sign of life is a piece of any of them, or CPU time of the processes that compute
    none is                    it answers /health

SILENT_LOOKS looks in a row without a sign, and the process is killed: requests that wait for it meet a dead engine, which the
pool starts again. Looks are counted and not seconds, so that nothing is held against an engine while we ourselves are stopped.
A process that computes for ever, and says nothing, is not told from one that has a long prompt to read.
"""

from __future__ import annotations

import asyncio
import sys

from genwright.serve.engines import processes
from genwright.serve.engines.child import Child
from genwright.serve.engines.http import HttpEngine

LOOK_SECONDS = 1.0

SILENT_LOOKS = 15

DOUBTFUL_LOOKS = 3
"""After so many it is not ready."""

LEAST_WORK = 0.01
"""CPU seconds between two looks: one tick of the clock. What hangs uses none."""


class Pulse:
    """Of one process and the connections to it."""

    def __init__(self, child: Child, client: HttpEngine) -> None:
        self.child, self.client = child, client
        self.silent = 0
        """Looks in a row without a sign."""
        self._pieces, self._work = 0, 0.0

    @property
    def well(self) -> bool:
        """Whether there was a sign lately."""
        return self.silent < DOUBTFUL_LOOKS

    async def watch(self) -> None:
        """Look until the process ends, and end it when it hangs."""
        while self.child.alive:
            await asyncio.sleep(LOOK_SECONDS)
            self.silent = 0 if await self.beats() else self.silent + 1
            if self.silent >= SILENT_LOOKS and self.child.alive:
                waiting = f"{self.client.waiting} answers waited for it"
                print(f"{self.client.name} hangs ({waiting}): it is killed and started again", file=sys.stderr)
                self.child.kill()

    async def beats(self) -> bool:
        """Whether there was a sign of life since the last look."""
        pieces, work = self.client.pieces, self._computed()
        before, self._pieces, self._work = (self._pieces, self._work), pieces, work
        if pieces != before[0]:
            return True
        if self.client.waiting and processes.TOLD:
            return work >= before[1] + LEAST_WORK
        return await self.client.answers()

    def _computed(self) -> float:
        process = self.child.process
        return sum(map(processes.cpu_seconds, processes.leaves(process.pid))) if process is not None else 0.0
