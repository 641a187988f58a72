"""Power between idle and design, published energy tables, and whole runs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from genwright.catalogue.device_names import place
from genwright.catalogue.devices import devices
from genwright.plan.priced.energy import footprint, phase_watts, serving_joules, utilisation, watts
from genwright.plan.serving import ServingSetup, decode_seconds, prefill_seconds, server
from genwright.plan.whole_run import PFS_DAY, flops_of, whole_run

LLAMA_70B = dict(
    model_type="llama", num_hidden_layers=80, hidden_size=8192, num_attention_heads=64, num_key_value_heads=8, intermediate_size=28672,
    vocab_size=32000, tie_word_embeddings=False,
)  # fmt: skip


def test_power_lies_between_idle_and_design() -> None:
    a100 = devices()["a100-80gb"]
    assert watts(a100, 0.0) == 63 and watts(a100, 1.0) == 400
    assert watts(devices()["tpu-v4"], 0.5) is None
    assert utilisation(0, 0, 1) < utilisation(0, 1, 1) < utilisation(1, 0, 1) == 1.0
    assert utilisation(5, 5, 1) == 1.0


def test_published_tables_are_design_power_times_hours() -> None:
    """LLaMA, table 15: 1,022,362 h * 400 W * 1.1 = 449 MWh, at 0.385 kg/kWh 173 t."""
    spent = footprint(devices()["a100-80gb"], 1_022_362, where="us", pue=1.1)
    assert spent and spent.kwh == pytest.approx(449_000, rel=0.01) and spent.kg == pytest.approx(173_000, rel=0.01)
    assert "computed from the data sheet" in spent.basis
    assert footprint(devices()["tpu-v4"], 1.0) is None


@pytest.mark.parametrize(("count", "prompt", "token"), [(2, 1.0, 0.74), (8, 0.75, 0.43)])
def test_powers_are_splitwises(count: int, prompt: float, token: float) -> None:
    """Llama-2-70B on A100, a batch of one of 512 tokens: peak and mean as shares of 400 W; ours within a quarter."""
    one = server(
        ServingSetup(model=LLAMA_70B, framework="splitwise", precision="fp16", count=count, parallel="tensor"),
        "A100-80GB",
    )
    drawn = [
        phase_watts(one, phase, spent)
        for phase, spent in (("prefill", prefill_seconds(one)), ("decode", decode_seconds(one)))
    ]
    assert drawn[0] and drawn[0] / 400 == pytest.approx(prompt, rel=0.25)
    assert drawn[1] and drawn[1] / 400 == pytest.approx(token, rel=0.25)


def test_energy_of_a_token_falls_with_the_batch() -> None:
    def joules(batch: int) -> float:
        one = server(ServingSetup(model=LLAMA_70B, precision="fp8", batch=batch, count=4), "h100")
        found = serving_joules(one, prefill_seconds(one), decode_seconds(one))
        assert found is not None
        return found

    assert joules(32) < joules(8) / 2 < joules(1) / 4


def test_a_petaflop_day_and_the_flops_of_a_run() -> None:
    """GPT-3: 6 * 175e9 * 300e9 = 3.15e23 FLOP, 3,640 petaflop/s-days (Brown et al. 2020, table D.1)."""
    assert flops_of(175e9, 300e9) / PFS_DAY == pytest.approx(3640, rel=0.01)


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
def test_llamas_hours_are_found() -> None:
    """Four runs of one paper, 6.7 to 65.2 billion weights: each within a quarter, from sizes, tokens and the device's name."""
    sizes = {
        "LLaMA-7B": (6.74e9, 32, 4096, 1e12),
        "LLaMA-13B": (13.0e9, 40, 5120, 1e12),
        "LLaMA-33B": (32.5e9, 60, 6656, 1.4e12),
        "LLaMA-65B": (65.2e9, 80, 8192, 1.4e12),
    }
    with (SHARED / "planner" / "runs_open.csv").open(encoding="utf-8", newline="") as file:
        published = {row["model"]: row for row in csv.DictReader(file)}
    for name, (parameters, layers, width, tokens) in sizes.items():
        run = whole_run(
            parameters, tokens, published[name]["device"], layers=layers, width=width, seq_len=2048, where="us"
        )
        assert run.device_hours.value == pytest.approx(float(published[name]["device_hours"]), rel=0.25), name
        assert run.kwh and run.usd and run.usd.low < run.usd.high and "not metered" in run.basis


def test_a_run_on_a_device_of_unknown_power_has_hours_alone() -> None:
    run = whole_run(8e9, 1e12, place("TPU v5p"))
    assert run.device_hours.value > 0 and run.kwh is None and run.usd is None
