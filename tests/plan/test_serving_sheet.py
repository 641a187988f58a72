"""The page of serving: conservation between its numbers, limits, what does not fit, and the command that prints it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genwright.base.errors import RecipeError
from genwright.catalogue.profiles import profiles
from genwright.cli import main
from genwright.plan.serving_sheet import serving_sheet
from genwright.plan.traffic import FILLED

TRACES = Path(__file__).parents[3] / "shared" / "data" / "azure_llm_traces"


def page(
    traffic: str = "chatbot", device: str = "h100", model: str = "llama-3.1-8b", **more: object
) -> dict[str, object]:
    wanted = {name: more.pop(name) for name in ("precision", "count", "framework") if name in more}
    return serving_sheet(model, device, wanted, traffic=traffic, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", profiles())
def test_every_profile_has_a_curve(name: str) -> None:
    facts = page(name)
    rows = facts["curve"]
    assert isinstance(rows, list) and [row["batch"] for row in rows] == [2**power for power in range(len(rows))]
    mean = facts["traffic"]["mean"][1]  # type: ignore[index]
    for row in rows:
        assert row["tokens_per_s"] == pytest.approx(row["requests_per_s"] * round(mean), rel=1e-6)
        assert row["usd_per_1k_tokens"] * row["tokens_per_s"] * 3.6 == pytest.approx(
            rows[0]["usd_per_1k_tokens"] * rows[0]["tokens_per_s"] * 3.6
        )


def test_the_devices_carry_the_rate_and_no_more_than_needed() -> None:
    facts = page(per_second=100.0)
    chosen, needed = facts["chosen"], facts["needed"]
    assert isinstance(chosen, dict) and isinstance(needed, dict)
    carried = lambda devices: devices * FILLED * chosen["requests_per_s"]
    assert carried(needed["devices"]) >= 100.0 > carried(needed["devices"] - 1)
    assert page()["needed"] is None


def test_a_limit_takes_a_smaller_batch_and_an_impossible_one_none() -> None:
    free, tight = page(), page(token_ms=9.5)
    assert tight["chosen"]["token_ms"] <= 9.5 and tight["chosen"]["batch"] < free["chosen"]["batch"]  # type: ignore[index]
    none = page(token_ms=0.001)
    assert none["chosen"] is None and any("no batch keeps the limits" in note for note in none["notes"])  # type: ignore[attr-defined]


def test_a_prompt_that_leaves_no_room_for_its_answer_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"reads at most 131072 tokens[\s\S]*set --input-tokens 130944"):
        serving_sheet("llama-3.1-8b", "h100", {}, traffic="fixed", fixed=(131072, 128))
    assert serving_sheet("llama-3.1-8b", "h100", {}, traffic="fixed", fixed=(130944, 128))["batch"] >= 1


def test_what_does_not_fit_names_a_count_that_does() -> None:
    with pytest.raises(RecipeError, match=r"llama-3.1-70b does not fit 1 x H100[\s\S]*--count 2"):
        page(model="llama-3.1-70b")
    assert page(model="llama-3.1-70b", count=4)["curve"]
    assert page(model="llama-3.1-70b", precision="int4")["curve"]


@pytest.mark.skipif(not TRACES.exists(), reason="the shared data are not here")
@pytest.mark.parametrize("kind", ["code", "conv"])
def test_a_trace_brings_its_own_rate(kind: str) -> None:
    facts = page(str(TRACES / f"AzureLLMInferenceTrace_{kind}.csv"), device="a100")
    assert facts["needed"]["per_second"] > 1 and facts["needed"]["devices"] >= 1  # type: ignore[index]


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["estimate", "llama-3.1-8b", "--serve", "summarization", "--device", "a100"]
    assert main([*asked, "--per-second", "2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["chosen"]["j_per_1k_tokens"] > 0 and facts["values"]["mem_gib"] > 15 and facts["basis"] == "datasheet"
    assert main(asked) == 0
    assert "Most requests a second within the limits" in capsys.readouterr().out
    assert main(["estimate", "llama-3.1-8b", "--serve", "chatbot"]) == 2
    assert "Serving is estimated for a model on a device" in capsys.readouterr().err
    assert main(["estimate", "llama-3.1-8b", "--serve", "chatbox", "--device", "h100"]) == 2
    assert "chatbot" in capsys.readouterr().err
