"""Code that a model wrote, run in a process of its own that may take so much time and memory, write little and reach nothing.

The kernel's limits bound it: CPU seconds, address space, file size, open files; a hook of the interpreter counts the files it
writes; a session of its own is killed whole. Where the system allows it, new user, network and process namespaces (`unshare`)
take the network away and let no child outlive the run; where not, that hook refuses sockets and forks and the outcome says "hook".
Files of the user can be read, not written. All this stops mistakes, not an attacker: run code you fear in a virtual machine.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from genwright.base.errors import BadRequest


@dataclass(frozen=True)
class Limits:
    """What one run may take."""

    seconds: float = 5.0
    memory: int = 512 * 2**20
    """Address space, bytes."""
    file_bytes: int = 2**20
    """Of any one file it writes, and of what is kept of its output."""
    files: int = 64
    """How often it may open a file to write, make a folder, or move one: with `file_bytes`, a bound on the disk it takes."""
    processes: bool = False
    """Whether it may start other processes."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    passed: bool
    reason: str
    """"passed", "failed", "timeout", "memory", "killed" or "refused"."""
    output: str
    isolation: str
    """"namespaces" or "hook"."""


GUARD = """
import sys, resource
LIMITS = {limits!r}
for name, most in LIMITS.items():
    resource.setrlimit(getattr(resource, name), (most, most))
def _guard(event, found, FORKS=not {processes!r}, WORK={work!r}, WRITES=('w', 'a', 'x', '+'), LEFT=[{files!r}]):
    import builtins
    if event.startswith('socket.') and event != 'socket.gethostname':
        raise PermissionError('no network in here')
    if FORKS and event in ('os.fork', 'os.forkpty', 'os.posix_spawn', 'os.exec', 'os.system', 'subprocess.Popen', 'os.spawn'):
        raise PermissionError('no other processes in here')
    if event in ('os.kill', 'os.killpg', 'ctypes.dlopen', 'resource.setrlimit', 'resource.prlimit'):
        raise PermissionError(event + ' is refused in here')
    paths = ()
    if event == 'open' and not isinstance(found[0], int):
        mode, flags = found[1] or '', found[2] or 0
        if any(c in mode for c in WRITES) or flags & 0o3 or flags & 0o1100:
            paths = (found[0],)
    elif event in ('os.remove', 'os.rename', 'os.rmdir', 'os.mkdir', 'os.truncate', 'os.symlink', 'os.link',
                   'os.chmod', 'os.chown', 'shutil.rmtree'):
        paths = [one for one in found[:2] if isinstance(one, (str, bytes))]
    for path in paths:
        import os
        whole = os.path.realpath(os.fsdecode(path))
        if not (whole + '/').startswith(WORK + '/') and whole != '/dev/null':
            raise PermissionError('no writing outside the work folder')
        LEFT[0] -= 1
        if LEFT[0] < 0:
            raise PermissionError('no more files in here')
import os, posixpath
sys.addaudithook(_guard)
del _guard, resource, LIMITS
"""


RUN = """
import json
def _run(ended, code):
    exec(compile(code, '<answer>', 'exec'), {'__name__': '__main__'})
    sys.stdout.flush()
    os.write(1, ended.encode())
_given = json.loads(sys.stdin.buffer.read())
sys.stdin = open(os.devnull)
_run(_given.pop(0), _given.pop())
"""
"""The mark that an answer came to its end arrives on standard input and stands in no file, so an answer cannot print it by
reading its own program. An answer that walks the interpreter's frames still could."""


@cache
def namespaces() -> tuple[str, ...]:
    """The words before a command that give it its own network and processes; none where the system refuses."""
    tool = shutil.which("unshare")
    words = (tool or "", "--user", "--map-current-user", "--net", "--pid", "--fork", "--kill-child")
    try:
        able = tool is not None and subprocess.run([*words, "true"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.SubprocessError):
        able = False
    return words if able else ()


def run_code(code: str, limits: Limits | None = None) -> Outcome:
    """Run Python in a fresh folder that is gone afterwards. It passed where it came to its end without an error."""
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="genwright-run-", ignore_cleanup_errors=True) as work:
        return _run(code, limits, Path(work).resolve())


def _run(code: str, limits: Limits, work: Path) -> Outcome:
    script, ended = work / ".program.py", os.urandom(16).hex()
    bounds = {
        "RLIMIT_CPU": math.ceil(limits.seconds) + 1, "RLIMIT_AS": limits.memory, "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": 64, "RLIMIT_CORE": 0,
    }  # fmt: skip
    guard = GUARD.format(limits=bounds, processes=limits.processes, work=str(work), files=limits.files)
    script.write_text(f"{guard}\n{RUN}", encoding="utf-8")
    try:
        given = json.dumps([ended, code]).encode()
    except UnicodeError:
        return Outcome(False, "failed", "not a text that can be encoded", "hook")
    words = [*namespaces(), sys.executable, "-I", "-S", str(script)]
    plain = {"PATH": "/usr/bin:/bin", "HOME": str(work), "TMPDIR": str(work), "PYTHONHASHSEED": "0"}
    with (work / ".output").open("w+b") as output, tempfile.TemporaryFile() as text_in:
        text_in.write(given)
        text_in.seek(0)
        process = subprocess.Popen(
            words,
            cwd=work,
            env=plain,
            stdin=text_in,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code_back: int | None = process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            code_back = None
        finally:
            _end(process)
        output.seek(0)
        text = output.read(limits.file_bytes).decode("utf-8", "replace")
    passed = code_back == 0 and text.endswith(ended)
    text = text.removesuffix(ended)
    return Outcome(passed, _reason(passed, code_back, text), text[-2000:], "namespaces" if namespaces() else "hook")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole session, children too."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(passed: bool, code: int | None, text: str) -> str:
    if passed:
        return "passed"
    if code is None or code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        return "timeout"
    if "MemoryError" in text:
        return "memory"
    if "PermissionError" in text or "File too large" in text:
        return "refused"
    return "killed" if code < 0 or code > 128 else "failed"


def run_all(programs: Sequence[str], limits: Limits | None = None, *, at_once: int = 2) -> list[Outcome]:
    """Many programs, a few at once, in order."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda program: run_code(program, limits), programs))


def pass_at_k(n: int, passed: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the chance that one of k answers drawn from n passes (Chen 2021, arXiv 2107.03374, eq. 1).

    Worked by hand: 2 answers, 1 passed, k = 1: 0.5. Errors: BadRequest unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= passed <= n and 1 <= k <= n):
        raise BadRequest(
            "pass@k needs k answers of a row.",
            wanted="0 <= passed <= n, 1 <= k <= n",
            found=f"n={n}, passed={passed}, k={k}",
        )
    return 1.0 - math.comb(n - passed, k) / math.comb(n, k)
