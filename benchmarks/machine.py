"""Where and when a number was measured. Standard library only, so that every environment can import it.

python benchmarks/machine.py prints it as JSON.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
"""What decides how fast a CPU multiplies; the ones it has are listed."""

THREADING = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "LD_PRELOAD", "MALLOC_CONF")
"""Variables that every side inherits and that move its speed."""

PACKAGES = ("genwright", "torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "numpy")


def machine() -> dict[str, Any]:
    """The processor, its matrix instructions, cores, memory (bytes), 1-minute load, and threading variables."""
    cpu = _cpuinfo()
    flags = set(cpu.get("flags", "").split())
    return {
        "processor": cpu.get("model name", platform.processor()),
        "family": f"{cpu.get('cpu family', '?')}/{cpu.get('model', '?')}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": [flag for flag in FLAGS if flag in flags],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
        "environment": {name: os.environ[name] for name in THREADING if name in os.environ},
    }


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Of Python and of those packages that the running environment has."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def date() -> str:
    """Now, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str:
    """The commit of this tree, with "+changes" where files differ from it; "" outside a repository."""
    try:
        return _git("rev-parse", "--short", "HEAD") + ("+changes" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def stamped(**found: Any) -> dict[str, Any]:
    """What was found, with the machine, the versions, the date and the commit that it was found with; `found`'s own stay."""
    return {"date": date(), "commit": commit(), "machine": machine(), "versions": versions(), **found}


def write_result(path: Path, **found: Any) -> dict[str, Any]:
    """Keep what was found as JSON, stamped; returns what was written. Its folder is made."""
    result = stamped(**found)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cpuinfo() -> dict[str, str]:
    """The first processor's fields; empty where the system has no /proc."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


if __name__ == "__main__":
    print(json.dumps({"machine": machine(), "versions": versions(), "date": date(), "commit": commit()}, indent=2))
