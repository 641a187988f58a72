"""Traffic: lengths by hand, conservation of requests and tokens, limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from genwright.base.errors import DataError
from genwright.catalogue.profiles import profile
from genwright.plan.serving import ServingSetup
from genwright.plan.traffic import Traffic, best, curve, devices_for, of_profile, of_trace

SHARED = Path(__file__).parents[3] / "shared" / "data" / "azure_llm_traces"
MODEL = dict(
    model_type="llama", num_hidden_layers=16, hidden_size=2048, num_attention_heads=32, num_key_value_heads=8, intermediate_size=8192,
    vocab_size=128256, tie_word_embeddings=True,
)  # fmt: skip


def test_a_trace_by_hand(tmp_path: Path) -> None:
    """Three requests in two seconds: 1.5 a second; nearest ranks."""
    (tmp_path / "t.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,10,1\n2023-11-16 18:00:01,20,2\n2023-11-16 18:00:02,60,9\n"
    )
    found = of_trace(tmp_path / "t.csv")
    assert found == Traffic((20, 60, 60), (2, 9, 9), (30.0, 4.0), 1.5)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"bad.csv is no trace[\s\S]*TIMESTAMP, ContextTokens"):
        of_trace(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    "row",
    [
        "2023-11-16 18:00:00,x,1",
        "noon,10,1",
        "2023-11-16 18:00:00,-5,1",
        "2023-11-16 18:00:00,10",
        "2023-11-16 18:00:00,0,1",
    ],
)
def test_a_row_that_is_no_request_is_named(row: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,10,1\n{row}\n")
    with pytest.raises(DataError, match=r"t\.csv, line 3 is no request"):
        of_trace(path)


def test_a_trace_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothere\.csv cannot be read"):
        of_trace(tmp_path / "nothere.csv")


def test_the_order_of_rows_does_not_change_the_rate(tmp_path: Path) -> None:
    """Traces that several machines wrote are not sorted: three requests between 18:00:00 and 18:00:02 are 1.5 a second."""
    path = tmp_path / "t.csv"
    stamps = ("02", "00", "01")
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"2023-11-16 18:00:{s},9,1\n" for s in stamps)
    )
    assert of_trace(path).per_second == 1.5


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
def test_the_azure_trace_is_read() -> None:
    """serving.md, section 5: conversation, median 1020 in, 129 out, p99 4142 and 601, 5.53 a second."""
    path = next(path for path in SHARED.glob("*conv*.csv"))
    found = of_trace(path)
    assert (found.inputs[0], found.outputs[0], found.inputs[2], found.outputs[2]) == (1020, 129, 4142, 601)
    assert found.per_second == pytest.approx(5.53, rel=0.01)


def test_larger_batches_carry_more_and_cost_less() -> None:
    points = curve(ServingSetup(model=MODEL, framework="vllm"), "a100", of_profile(profile("chatbot"), 5.53))
    assert [point.batch for point in points] == [2**power for power in range(len(points))] and len(points) > 4
    written = [point.tokens_per_second for point in points]
    assert written == sorted(written)
    assert (
        points[0].usd_per_1k_tokens
        and points[-1].usd_per_1k_tokens
        and points[-1].usd_per_1k_tokens < points[0].usd_per_1k_tokens
    )
    assert (
        points[-1].joules_per_token
        and points[0].joules_per_token
        and points[-1].joules_per_token < points[0].joules_per_token
    )


def test_limits_choose_the_batch() -> None:
    traffic = of_profile(profile("chatbot"), 50.0)
    points = curve(ServingSetup(model=MODEL, framework="vllm"), "a100", traffic)
    free, tight = best(points), best(points, token=points[1].token_seconds)
    assert free and tight and tight.batch <= 2 < free.batch
    assert best(points, first_token=1e-9) is None
    assert devices_for(tight, traffic, 1) > devices_for(free, traffic, 1) >= 1
