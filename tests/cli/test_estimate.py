"""`genwright estimate` for a device of the catalogue: the issue's own words, a price without torch, wrong requests, budgets."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genwright.catalogue.devices import devices
from genwright.plan.published.rows import COLUMNS

TINY = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config's file; traces of it are kept for all these tests."""
    monkeypatch.setenv("GENWRIGHT_CACHE", str(cache))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.mark.parametrize(
    "words",
    [
        "llama-3.1-8b --adapter lora --device h100 --seq-len 4096 --json",
        "llama-3.1-70b --adapter full --device h100 --count 64 --strategy zero3 --recompute full --seq-len 8192 --json",
    ],
)
def test_the_examples_of_the_issue(genwright: Any, words: str) -> None:
    facts = genwright("estimate", *words.split()).json()
    assert (
        facts["fits"] is True and facts["peak_active_gib"] < facts["peak_reserved_gib"] < facts["peak_device_gib"] < 80
    )
    for name, value in facts["values"].items():
        assert facts["low"][name] <= value <= facts["high"][name], name
    assert facts["tokens_per_s_per_device"] == pytest.approx(
        facts["setup"]["seq_len"] * facts["setup"]["micro_batch"] / facts["step_s"]
    )
    assert sum(facts["breakdown"].values()) == pytest.approx(facts["peak_device_gib"] * 2**30, rel=1e-6)
    assert facts["usd"] == pytest.approx(facts["device_hours"] * devices()["h100"].usd_per_hour)
    lost = facts["checkpoint"]["lost_seconds_per_day"]
    assert lost["at"] < min(lost["half"], lost["twice"])


def test_another_device_and_count_are_priced_without_torch(tiny: Path, genwright: Any) -> None:
    words = ["estimate", tiny, "--adapter", "full", "--strategy", "zero3", "--seq-len", 64, "--json"]
    first = genwright(*words, "--device", "h100", "--count", 4).json()
    program = "import sys; from genwright.cli import main; code = main(sys.argv[1:]); sys.exit(9 if 'torch' in sys.modules else code)"
    again = [sys.executable, "-c", program, *map(str, words), "--device", "a100-40gb", "--count", "16"]
    ran = subprocess.run(again, capture_output=True, text=True, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stderr
    second = json.loads(ran.stdout)
    assert second["device"] == "a100-40gb" and second["breakdown"]["weights"] < first["breakdown"]["weights"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("llama-3.1-8bb --device h100", "did you mean 'llama-3.1-8b'"),
        ("TINY --device h1000", "did you mean 'h100'"),
        ("TINY --device h100 --seq-len 513", "set --seq-len 512"),
        ("TINY --device v100 --seq-len 64 --precision bf16", "set --precision fp16"),
        ("TINY --device t4 --seq-len 64 --precision bf16", "set --precision fp16"),
        ("TINY --device h100 --strategy zero3 --seq-len 64", "needs at least 2 devices"),
        ("TINY --device h100 --count 6 --tensor-degree 4 --seq-len 64", "set --count 4"),
        ("TINY --device h100 --count 4 --batch-size 10 --micro-batch 2 --seq-len 64", "set --batch-size 8"),
        ("TINY --device h100 --count 2 --strategy zero9 --seq-len 64", "zero3"),
        ("TINY --device h100 --region atlantis --seq-len 64", "atlantis"),
        ("TINY --device h100 --calibration nowhere.json --seq-len 64", "no calibration of H100"),
        ("TINY --device h100 --budget 20pounds --seq-len 64", "20usd, 10h or 5kwh"),
        ("TINY --device h100 --adapter lorra --seq-len 64", "did you mean 'lora'"),
        ("TINY --device h100 --objective instructon --seq-len 64", "did you mean 'instruction'"),
        ("TINY --device h100 --count 0 --seq-len 64", "--count: wanted a whole number"),
        ("TINY --device h100 --steps 0 --seq-len 64", "--steps: wanted a whole number"),
        ("TINY --device h100 --rank -1 --seq-len 64", "--rank: wanted a whole number"),
        ("TINY --device h100 --adapter full --base int4 --seq-len 64", "cannot be kept in int4"),
        ("TINY --device h100 --count 6 --tensor-degree 3 --seq-len 64", "4 heads do not split over 3 devices"),
        ("TINY --device h100 --count 6 --pipeline-degree 6 --seq-len 64", "3 layers do not reach for 6 stages"),
        ("llama-3.1-8bb", "did you mean 'llama-3.1-8b'"),
        ("llama-3.1-8b --seq-len 200000", "set --seq-len 131072"),
        ("llama-3.1-8b --adapter lorra", "did you mean 'lora'"),
        ("llama-3.1-8b --serve chatbot --device v100 --precision bf16", "set --precision fp16"),
        ("TINY --device h100 --lengths 9,5,7", "wanted three rising whole numbers"),
        ("llama-3.1-8b --serve fixed --device h100 --batch 9999999", "rows together do not fit"),
        ("TINY --budget 20usd", "MODEL and --device"),
        ("--device h100", "MODEL, or --rows FILE"),
    ],
)
def test_a_wrong_request_is_told_what_would_work(tiny: Path, genwright: Any, words: str, said: str) -> None:
    ran = genwright("estimate", *(str(tiny) if word == "TINY" else word for word in words.split()))
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err and not ran.out


def test_rows_of_a_step_set_how_often_gradients_are_summed(tiny: Path, genwright: Any) -> None:
    words = [
        "--device",
        "h100",
        "--count",
        4,
        "--strategy",
        "ddp",
        "--batch-size",
        24,
        "--micro-batch",
        2,
        "--seq-len",
        64,
        "--json",
    ]
    facts = genwright("estimate", tiny, *words).json()
    assert facts["setup"]["accumulate"] == 3 and facts["facts"]["tokens_per_step"] == 24 * 64


def test_auto_takes_the_fastest_that_fits_and_says_so(tiny: Path, genwright: Any) -> None:
    words = [
        "estimate",
        tiny,
        "--adapter",
        "full",
        "--device",
        "h100",
        "--count",
        4,
        "--seq-len",
        64,
        "--json",
        "--strategy",
    ]
    auto = genwright(*words, "auto").json()
    named = {name: genwright(*words, name).json()["step_s"] for name in ("ddp", "zero1", "zero2", "zero3")}
    assert auto["step_s"] == pytest.approx(min(named.values())) and any(
        "strategy auto" in note for note in auto["notes"]
    )


def test_the_region_sets_the_carbon_not_the_energy(tiny: Path, genwright: Any) -> None:
    words = ["estimate", tiny, "--device", "h100", "--seq-len", 64, "--json", "--region"]
    first, second = genwright(*words, "us").json(), genwright(*words, "france").json()
    assert first["kwh"] == second["kwh"] and first["kg_co2"] > 2 * second["kg_co2"]


def test_a_budget_lists_what_fits_cheapest_first_with_a_plot(tiny: Path, genwright: Any, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    words = ["--budget", "1usd", "--device", "h100,a100-80gb", "--count", 2, "--seq-len", 64, "--plot", plot]
    facts = genwright("estimate", tiny, *words, "--json").json()
    spent = [one["usd"] for one in facts["fitting"]]
    assert spent == sorted(spent) and {one["device"] for one in facts["fitting"]} == {"h100", "a100-80gb"}
    assert all(one["micro_batch"] * one["accumulate"] * one["count"] == facts["rows"] for one in facts["fitting"])
    assert "<svg" in plot.read_text() and "1 x h100" in genwright("estimate", tiny, *words).out
    over = genwright("estimate", tiny, "--budget", "0.000001usd", "--device", "h100", "--seq-len", 64)
    assert over.code == 3 and "over the budget" in over.out


def test_a_table_is_priced_row_by_row(tmp_path: Path, genwright: Any) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "made" / "out.csv"
    rows.write_text("id,model,micro_batch,device,seq_len\n1,nobody,1,h100,512\n2,llama-2-7b,many,warp drive,-3\n3\n")
    ran = genwright("estimate", "--rows", rows, "--out", out)
    assert ran.code == 0 and "0 of 3 rows priced, 3 refused" in ran.out
    found = list(csv.DictReader(out.read_text().splitlines()))
    assert (
        tuple(found[0]) == COLUMNS
        and [one["id"] for one in found] == ["1", "2", "3"]
        and all(one["refused"] for one in found)
    )


@pytest.mark.parametrize("text", ["model,device\nllama-2-7b,h100\n", "", "\0\0"])
def test_what_is_no_table_is_refused_and_nothing_is_written(tmp_path: Path, genwright: Any, text: str) -> None:
    (tmp_path / "rows.csv").write_text(text)
    ran = genwright("estimate", "--rows", tmp_path / "rows.csv", "--out", tmp_path / "out.csv")
    assert ran.code == 2 and "not a table of measurements" in ran.err and not (tmp_path / "out.csv").exists()


def test_lengths_give_a_peak_for_each_and_the_phases_are_shown(tiny: Path, genwright: Any) -> None:
    words = ["estimate", tiny, "--device", "h100", "--adapter", "full", "--lengths", "32,64,128"]
    facts = genwright(*words, "--json").json()
    assert facts["setup"]["seq_len"] == 128
    sizes = facts["bytes"]
    assert sizes["active_p50_bytes"] <= sizes["active_p95_bytes"] <= sizes["active_peak_bytes"]
    assert list(facts["breakdown"])[:3] == ["weights", "gradients", "optimizer"]
    shown = genwright(*words).out
    for said in ("phases, host and disk:", "save every", "at half of it", "price:", "time is datasheet"):
        assert said in shown


def test_a_fixed_batch_of_fixed_lengths_is_what_is_priced(genwright: Any) -> None:
    """The cache counted by hand: 2 x 32 layers x 8 key heads x 128 wide x 2 bytes = 131,072 bytes a token."""
    words = "llama-3.1-8b --serve fixed --device h100 --batch 4 --input-tokens 1000 --output-tokens 24 --json"
    facts = genwright("estimate", *words.split()).json()
    assert facts["batch"] == 4 and facts["traffic"]["mean"] == [1000, 24]
    assert facts["breakdown"]["cache"] == 131_072 * 4 * 1024
