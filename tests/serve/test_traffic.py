"""Traffic and profiles: percentiles as published, fits against scipy, predictions that learn, replays that keep count."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from genwright.base.errors import DataError
from genwright.cli import main
from genwright.plan.traffic import of_trace
from genwright.serve.contracts import Request
from genwright.serve.profiler import HistoryProfiler, expected_joules, nearest, scored
from genwright.serve.traffic import (
    Seen,
    arrivals_cv,
    describe,
    kolmogorov,
    lognormal_fit,
    of_records,
    quantiles,
    read_trace,
    replay,
)

TRACE = Path(__file__).parents[3] / "shared" / "data" / "azure_llm_traces" / "AzureLLMInferenceTrace_conv.csv"


def asked(*contents: str, system: str = "", **params) -> Request:
    roles = ["user", "assistant"]
    told = [{"role": "system", "content": system}] if system else []
    told += [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]
    return Request("chat", "auto", tuple(told), params=params)


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (asked("Write an essay about the sea."), "content-creation"),
        (asked("Summarize this report in three sentences: " + "words " * 900), "summarization"),
        (asked("Q: 1+1\nA: 2\nInput: 2\nOutput: 4\n\nInput: 3\nOutput:", system="You are a calculator. Answer only numbers."), "prompt-engineering"),
        (asked("What time is it there?", "Noon.", "And in Rome?"), "chatbot"),
        (asked("Hello! Where is my order?"), "chatbot"),
    ],
)  # fmt: skip
def test_requests_are_recognised(request_, name):
    assert HistoryProfiler().classify(request_, ()).name == name


def test_what_has_no_mark_is_known_by_its_lengths():
    assert (
        nearest(1469, 13) == "prompt-heavy"
        and nearest(1020, 129) == "chatbot"
        and nearest(128, 1024) == "generation-heavy"
    )


def test_expected_tokens_learn_from_the_keys_own_requests_and_keep_to_the_limit():
    profiler, request = HistoryProfiler(), asked("Write an essay about the sea.")
    record = {"profile": "content-creation", "prompt_tokens": 8, "generated_tokens": 100, "outcome": "done"}
    before = profiler.classify(request, ()).expected_tokens
    some, many = (profiler.classify(request, [record] * count).expected_tokens for count in (3, 40))
    assert before == pytest.approx(1024) and before > some > many and many == pytest.approx(100, rel=0.3)
    assert profiler.classify(asked("Write an essay.", max_tokens=7), ()).expected_tokens == 7
    assert profiler.classify(request, [{**record, "outcome": "cancelled"}] * 40).expected_tokens == before


def test_joules_are_found_again():
    rng = np.random.default_rng(0)
    records = [{"prompt_tokens": int(p), "cached_tokens": 0, "generated_tokens": int(g), "joules": 0.02 * p + 0.5 * g}
               for p, g in zip(rng.integers(10, 2000, 30), rng.integers(1, 300, 30))]  # fmt: skip
    assert expected_joules(1000, 100, records) == pytest.approx(70, rel=1e-3)
    assert expected_joules(1000, 100, records[:1]) is None


def test_heavy_is_a_matter_of_time_not_of_tokens():
    request = asked("word " * 800)
    slow = {"prompt_tokens": 100, "generated_tokens": 50, "ttft_seconds": 0.01, "tpot_seconds": 0.1}
    fast = {**slow, "ttft_seconds": 1.0, "tpot_seconds": 0.001}
    phases = [HistoryProfiler().classify(request, [one] * 5).phase for one in (slow, fast)]
    assert phases == ["generation-heavy", "prompt-heavy"]


def test_predictions_are_scored():
    told = scored(
        [
            {"expected_tokens": 10, "generated_tokens": 20},
            {"expected_tokens": 40, "generated_tokens": 20},
            {"generated_tokens": 9},
        ]
    )
    assert (
        told["tokens_requests"] == 2
        and told["tokens_bias_factor"] == pytest.approx(1)
        and told["tokens_median_factor"] == pytest.approx(2)
    )
    assert told["tokens_within_2"] == 1 and "joules_requests" not in told


def test_the_azure_trace_has_its_published_percentiles():
    if not TRACE.exists():
        pytest.skip("the trace is not here")
    told = describe(read_trace(TRACE))
    assert (
        told["requests"] == 19366
        and told["rate_per_s"] == pytest.approx(5.53, abs=0.01)
        and told["arrivals_cv"] == pytest.approx(1.09, abs=0.01)
    )
    assert (told["prompt_tokens"]["p50"], told["output_tokens"]["p50"]) == (1020, 129)
    assert (told["prompt_tokens"]["p99"], told["output_tokens"]["p99"]) == (4142, 601)


def test_fits_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    values = np.round(np.exp(np.random.default_rng(3).normal(5, 0.8, 500))).astype(int)
    fit = lognormal_fit(values.tolist())
    shape, _, scale = stats.lognorm.fit(values, floc=0)
    assert (
        fit["median"] == pytest.approx(scale, rel=1e-6)
        and fit["sigma"] == pytest.approx(shape, rel=1e-6)
        and fit["good"]
    )
    logs = np.random.default_rng(4).normal(1, 2, 300)
    assert kolmogorov(logs, 1, 2) == pytest.approx(stats.kstest(logs, "norm", args=(1, 2)).statistic, abs=1e-9)
    assert not lognormal_fit([5] * 300 + [500] * 300)["good"]


def test_quantiles_are_of_nearest_rank():
    assert quantiles(list(range(1, 101))) == {"p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99}
    assert arrivals_cv([Seen(float(at), 1, 1) for at in range(9)]) == pytest.approx(0)


def test_a_replay_has_the_asked_rate_and_stays_in_its_bounds():
    seen = [Seen(10.0 + at * at / 10, 1000 + at, 100 + at) for at in range(50)]
    load = list(replay(seen, rate_per_s=20, seconds=30, shrink=10, most_prompt=102, most_output=12))
    assert len(load) / 30 == pytest.approx(20, rel=0.1)
    assert all(one.at <= other.at for one, other in pairwise(load)) and load[-1].at < 30
    assert max(one.prompt for one in load) <= 102 and max(one.generated for one in load) <= 12
    assert math.isclose((load[2].at - load[1].at) / (load[1].at - load[0].at), 3), "bursts stay bursts"
    with pytest.raises(DataError, match="cannot be replayed"):
        list(replay(seen[:1], rate_per_s=1, seconds=1))


def test_bad_traces_are_named_by_line(tmp_path):
    path = tmp_path / "t.csv"
    for text, match in (
        ("a,b\n1,2\n", "is no trace of requests"), ("timestamp,prompt,generated\n1,2,x\n", "line 2 is no request"),
        ("timestamp,prompt,generated\n", "has no requests"), ("timestamp,prompt,generated\nnan,2,3\n", "line 2"), ("timestamp,prompt,generated\n1,-2,3\n", "line 2"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(DataError, match=match):
            read_trace(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")


def test_records_of_the_meter_are_traffic_too():
    record = {
        "began": 1.0,
        "prompt_tokens": 5,
        "generated_tokens": 6,
        "profile": "chatbot",
        "outcome": "done",
        "kind": "chat",
    }
    assert of_records([record, {**record, "outcome": "failed"}, {**record, "kind": "embedding"}]) == [
        Seen(1.0, 5, 6, "chatbot")
    ]


def test_the_command_writes_what_the_planner_takes(tmp_path, capsys):
    path, out = tmp_path / "t.csv", tmp_path / "seen.csv"
    path.write_text("time,prompt,generated\n" + "".join(f"{at / 2},{100 + at},{10 + at}\n" for at in range(41)))
    assert main(["traffic", str(path), "--out", str(out)]) == 0
    assert "41 requests" in capsys.readouterr().out
    told = of_trace(out)
    assert told.mean == (120.0, 30.0) and told.per_second == pytest.approx(41 / 20)
    assert told.outputs[0] == 30, "the median, as the planner reads it"
    assert [one.generated for one in read_trace(out)] == list(range(10, 51))
    assert main(["estimate", "Qwen/Qwen2.5-0.5B", "--serve", str(out), "--device", "a100-80gb-sxm"]) == 0
    assert "for " + str(out) in capsys.readouterr().out.replace("\n", "")
