"""What this machine has, what is missing, and how to get it. Reaches for the network only with --online."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright import __version__
from genwright.base.errors import BadRequest
from genwright.base.registry import resolve
from genwright.base.units import Bytes
from genwright.cli.terminal import Terminal, heading, table, text

NEEDED = (
    "torch", "transformers", "peft", "safetensors", "numpy", "gguf", "sacrebleu", "rouge-score", "rich", "huggingface-hub",
    "pyyaml", "tokenizers",
)  # fmt: skip
EXTRAS = {
    "parquet": ("pyarrow",),
    "quant": ("torchao",),
    "serve": ("aiohttp", "httptools", "onnxruntime", "starlette", "uvicorn", "xllamacpp"),
    "export": ("onnx", "onnxscript"),
    "judge": ("captum", "jsonschema", "langdetect", "lm-eval", "scipy"),
}
"""Optional parts: extra -> the packages it brings."""

PURPOSES = {
    "parquet": "Parquet and saved data sets",
    "quant": "bases of 8 or 4 bits, and qat",
    "serve": "serve, experts, routing and guard",
    "export": "a router's or guard's encoder of your own",
    "judge": "explain, lm-eval's tasks, rules of language, calls by schema",
}
"""What an extra is for."""

CPU_FEATURES = {
    "avx2": "wide arithmetic",
    "avx512f": "wider arithmetic",
    "avx512_bf16": "fast bf16",
    "amx_bf16": "very fast bf16 matrices",
    "amx_int8": "very fast int8 matrices",
}
"""Flags of /proc/cpuinfo that decide how fast a CPU trains."""

ENOUGH_DISK = 3 * 2**30
"""A small model as downloaded, as converted and as merged."""

HUB = "https://huggingface.co"


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--online", action="store_true", help="also see whether the model hub can be reached")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Print what was found. Returns 1 when something that is needed is missing."""
    if arguments.online and arguments.offline:
        raise BadRequest("--online and --offline contradict each other.", do="give one of them")
    facts = examine(online=arguments.online)
    terminal.answer(facts, lambda console: _draw(console, facts))
    return 1 if any(problem["needed"] for problem in facts["problems"]) else 0


def examine(*, online: bool = False) -> dict[str, Any]:
    """Everything that is known of this machine, and the problems with their remedies."""
    facts = {
        "genwright": __version__,
        **examine_machine(),
        "disk_free_bytes": shutil.disk_usage(existing(cache_folder())).free,
        "cache": str(cache_folder()),
        "packages": {name: installed(name) for name in NEEDED},
        "extras": {extra: all(installed(name) for name in names) for extra, names in EXTRAS.items()},
        "gpus": gpus(),
        "hub": reachable(HUB) if online else None,
    }
    return facts | {"problems": problems(facts)}


def examine_machine() -> dict[str, Any]:
    """Python, system, cores, CPU features and memory: what costs nothing to ask."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": usable_cores(),
        "cpu_features": cpu_features(Path("/proc/cpuinfo")),
        "memory_bytes": memory_bytes(),
    }


def problems(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """[{what, do, needed}] of everything that is missing; `needed` when nothing works without it."""
    found = [
        _problem(f"the package '{name}' is missing", f"pip install {name}", needed=True)
        for name, version in facts["packages"].items()
        if version is None
    ]
    found += [
        _problem(f"the extra '{extra}' is not installed ({PURPOSES[extra]})", f"pip install 'genwright[{extra}]'")
        for extra, there in facts["extras"].items()
        if not there
    ]
    if facts["disk_free_bytes"] < ENOUGH_DISK:
        free = f"{Bytes(facts['disk_free_bytes'])} free where models are kept; a small one wants {Bytes(ENOUGH_DISK)}"
        found.append(_problem(free, "free some space, or set GENWRIGHT_CACHE to a folder with more"))
    if facts["hub"] is False:
        found.append(
            _problem(f"{HUB} cannot be reached", "use folder:, gguf: or wheel: models, or set HF_ENDPOINT to a mirror")
        )
    return found


def _problem(what: str, do: str, *, needed: bool = False) -> dict[str, Any]:
    return {"what": what, "do": do, "needed": needed}


def installed(name: str) -> str | None:
    """The version of a package, or None. Imports nothing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores this process may use, which a container may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_features(cpuinfo: Path) -> list[str]:
    """Which of CPU_FEATURES the processor has; empty where the system does not say."""
    if not cpuinfo.exists():
        return []
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
    return [name for name in CPU_FEATURES if name in flags.partition(":")[2].split()]


def memory_bytes() -> int | None:
    """Memory of the machine, or of the container where that is less. None where the system does not say."""
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    sizes = [int(words) for path in limits if path.exists() and (words := path.read_text().strip()).isdigit()]
    if "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(sizes) if sizes else None


def cache_folder() -> Path:
    """Where models are kept: as models/sources.py has it, but said even where its libraries are missing."""
    return Path(os.environ.get("GENWRIGHT_CACHE") or Path.home() / ".cache" / "genwright")


def existing(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    while not path.exists():
        path = path.parent
    return path


def gpus() -> list[dict[str, Any]]:
    """The CUDA devices that torch sees. This is the one place where `doctor` imports torch."""
    if importlib.util.find_spec("torch") is None:
        return []
    cuda = resolve("torch:cuda")
    if not cuda.is_available():
        return []
    found = [cuda.get_device_properties(index) for index in range(cuda.device_count())]
    return [{"name": one.name, "memory_bytes": one.total_memory} for one in found]


def reachable(address: str) -> bool:
    """Whether the hub answers at all, within five seconds."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError:  # it answered, if only to say no
        return True
    except OSError:
        return False


def _draw(console: Any, facts: dict[str, Any]) -> None:
    console.print(table(("", ""), _rows(facts)))
    if not facts["problems"]:
        console.print(text("\nNothing is missing.", "green"))
        return
    console.print(heading("Missing"))
    for problem in facts["problems"]:
        console.print(text(f"{'needed' if problem['needed'] else 'optional'}: {problem['what']}", "yellow"))
        console.print(f"  do: {problem['do']}")


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    features = [f"{name} ({CPU_FEATURES[name]})" for name in facts["cpu_features"]]
    memory = "not known" if facts["memory_bytes"] is None else str(Bytes(facts["memory_bytes"]))
    hub = {None: "not asked (--online asks)", True: "can be reached", False: "cannot be reached"}[facts["hub"]]
    return [
        ("genwright", facts["genwright"]),
        ("python", f"{facts['python']} ({sys.executable})"),
        ("system", facts["platform"]),
        ("cores", str(facts["cores"])),
        ("CPU features", ", ".join(features) or "none of those that help"),
        ("memory", memory),
        ("models are kept in", f"{facts['cache']} ({Bytes(facts['disk_free_bytes'])} free)"),
        ("GPUs", ", ".join(f"{one['name']} ({Bytes(one['memory_bytes'])})" for one in facts["gpus"]) or "none"),
        *((name, version or "missing") for name, version in facts["packages"].items()),
        *((f"extra {name}", "installed" if there else "not installed") for name, there in facts["extras"].items()),
        ("model hub", hub),
    ]
