"""The quick start's extractor, against pairs somebody else took from the same wheels; skips where they are absent."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT.parent / "shared" / "data" / "nl2cloudcli"

SCRIPT = importlib.util.spec_from_file_location(
    "cloud_commands_data", ROOT / "examples" / "cloud-commands" / "make_data.py"
)
make_data = importlib.util.module_from_spec(SCRIPT)
sys.modules[SCRIPT.name] = make_data  # dataclasses look their module up
SCRIPT.loader.exec_module(make_data)


@pytest.fixture(scope="module")
def wheels() -> Path:
    folder = make_data.cache_folder()
    if not all((folder / wheel.file_name).exists() for wheel in make_data.WHEELS.values()):
        pytest.skip("the wheels are not in the cache: run examples/cloud-commands/make_data.py, also with --tool aws")
    return folder


@cache
def found(tool: str, wheels: Path) -> list:
    return make_data.unique(make_data.READERS[tool](make_data.fetch(make_data.WHEELS[tool], wheels)))


def pairs(tool: str, wheels: Path) -> set[tuple[str, str]]:
    return {(pair.instruction.casefold(), pair.command) for pair in found(tool, wheels)}


def reference(tool: str) -> set[tuple[str, str]]:
    """The other extraction, less the line-joining backslashes that it left inside 26 commands."""
    if not REFERENCE.exists():
        pytest.skip("no reference pairs on this machine")
    rows = [json.loads(line) for line in (REFERENCE / f"{tool}.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        (row["instruction"].casefold(), " ".join(re.sub(r"(?<=\s)\\(?=\s|$)", "", row["command"]).split()))
        for row in rows
    }


def test_az_pairs(wheels: Path) -> None:
    """7,413 there. Ours differ in what is explained here, and in nothing else."""
    ours, theirs = pairs("az", wheels), reference("az")
    assert {title for title, _ in theirs - ours} <= {
        "upload an ssl certificate via --key-vault-secret-id of a keyvault certificate",  # two commands in one example
    }
    assert {title for title, _ in ours - theirs} <= {
        "create an identity with a name and a resource group",  # ":example:" indented by one space more
        "ransomwarereports_list",  # a docstring whose first lines are not indented
    }


def test_aws_pairs(wheels: Path) -> None:
    """6,585 in both; nine titles differ by a stray asterisk or by "Example 1." in front."""
    ours, theirs = pairs("aws", wheels), reference("aws")
    clean = {(re.sub(r"^example \d+\. ", "", title).rstrip("*"), command) for title, command in theirs}
    assert len(found("aws", wheels)) == 6585
    assert ours == clean


def test_quick_start_rows(wheels: Path) -> None:
    """Enough rows for a split by command path to leave 70 and more for validation and for the test."""
    chosen = [pair for pair in found("az", wheels) if make_data.wanted(pair, {"storage", "vm", "network"}, 110)]
    assert len(chosen) >= 772
    row = make_data.row(chosen[0], "az")
    assert row["group"] == make_data.command_path(row["completion"]) and row["completion"].startswith(row["group"])
    assert "one az command" in row["prompt"]


@pytest.mark.parametrize(
    ("block", "command"),
    [
        ("az vm create \\\n    -n a  -g b\n", "az vm create -n a -g b"),
        ("az vm create -n a\naz vm delete -n a", ""),
        ("# first\naz vm list", "az vm list"),
        ("az vm list \\", "az vm list"),
        ("echo $(az vm list)", ""),
        ("", ""),
    ],
)
def test_one_command(block: str, command: str) -> None:
    assert make_data.one_command(block, "az") == command


def test_wheel_with_other_bytes_is_refused(tmp_path: Path) -> None:
    wheel = make_data.WHEELS["az"]
    (tmp_path / wheel.file_name).write_bytes(b"not it")
    with pytest.raises(SystemExit, match="is not the file this example was written for"):
        make_data.fetch(wheel, tmp_path)
