"""Real projects, run as a person runs them: files on disk, the command line, another process."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from genwright.cli import main

ROOT = Path(__file__).parents[2]
SMALLEST = ROOT / "examples" / "smallest"

SHORT = (
    '[project]\nname = "short"\n[scope]\ntask = "summarization"\nmetric = "chrf"\n'
    '[data]\ntrain = "data/summaries.jsonl"\ngroup = "group"\n[select]\nmodels = ["folder:model"]\n'
    '[adapt]\nmethod = "lora"\nsteps = 24\nlearning_rate = 3e-3\npack_tokens = 512\ncheckpoint_every = 4\n'
    "max_new_tokens = 4\nvalidation_rows = 8\n[adapt.lora]\nrank = 4\n"
)
"""The smallest example with one rung and few steps: what the tests that apply often use."""


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        """Standard output, which must be JSON and nothing else."""
        return json.loads(self.out)

    @property
    def told(self) -> str:
        """Everything that a person sees."""
        return self.out + self.err


def environment(home: Path) -> dict[str, str]:
    """A home that holds nothing, no hub, and one thread: a tiny model needs no more, and two wait for each other."""
    private = {"HOME": str(home), "GENWRIGHT_CACHE": str(home / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **private, "COLUMNS": "200"}


def command(project: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "genwright", "--project", str(project), *words]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def genwright(home: Path) -> Callable[..., Done]:
    """Run one command in a project; a traceback is always a failure."""

    def run(project: Path, *words: str, **options: object) -> Done:
        done = subprocess.run(
            command(project, *words), capture_output=True, text=True, check=False, timeout=300, env=environment(home),
            stdin=subprocess.DEVNULL, **options,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def genwright_here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Done]]:
    """The same without another process, which saves the seconds that importing torch takes."""
    for name in ("HOME", "GENWRIGHT_CACHE"):
        monkeypatch.setenv(name, environment(home)[name])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the other processes do: the speed of each operation is then measured once for all

    def run(project: Path, *words: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--project", str(project), *words])
        assert "Traceback" not in err.getvalue(), err.getvalue()
        return Done(code, out.getvalue(), err.getvalue())

    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest example, copied, with its data and its model made by its own scripts."""
    folder = tmp_path_factory.mktemp("smallest") / "project"
    shutil.copytree(SMALLEST, folder, ignore=shutil.ignore_patterns("data", "model", ".genwright", "report.html"))
    for script in ("make_data.py", "make_model.py"):
        subprocess.run([sys.executable, folder / script], check=True, capture_output=True, text=True)
    return folder


@pytest.fixture(scope="session")
def short_project(smallest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data (200 rows) and model with a short recipe; never applied itself: copy it."""
    folder = tmp_path_factory.mktemp("short") / "project"
    shutil.copytree(smallest, folder, ignore=shutil.ignore_patterns(".genwright", "report.html"))
    rows = (folder / "data" / "summaries.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:200]
    (folder / "data" / "summaries.jsonl").write_text("".join(rows), encoding="utf-8")
    (folder / "genwright.toml").write_text(SHORT)
    return folder


@pytest.fixture
def project(short_project: Path, tmp_path: Path) -> Path:
    """A fresh copy of the short project."""
    return Path(shutil.copytree(short_project, tmp_path / "project"))
