"""The meter conforms: streams, cancels, retries, cached prefixes, tool calls; energy is conserved; files are bounded."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from tests.serve.conformance import CHECKS

from genwright.base.errors import BadRequest
from genwright.serve.answers import Prices
from genwright.serve.contracts import Usage
from genwright.serve.energy import Estimated, Rapl, Split
from genwright.serve.keys import Key, Keys, Limits
from genwright.serve.meter import Meter, Record, read_records, read_usage, write_parquet


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The gateway before the real llama.cpp with a tiny model; or any server, by GENWRIGHT_CONFORMANCE_URL and _MODEL."""
    if url := os.environ.get("GENWRIGHT_CONFORMANCE_URL"):
        yield httpx.Client(base_url=url, timeout=60), os.environ.get("GENWRIGHT_CONFORMANCE_MODEL", "auto")
        return
    from tests.e2e.tiny import write_model as write_tiny
    from tests.serve.conftest import serving

    from genwright.export.gguf import write_model
    from genwright.serve.engines.llamacpp import LlamaCpp, LlamaSettings

    folder = tmp_path_factory.mktemp("real")
    write_tiny(folder / "model", "decoder")
    write_model(folder / "model", folder / "model.gguf")
    engine = LlamaCpp("tiny", LlamaSettings(folder / "model.gguf", folder, folder / "model", context=1024, threads=1))
    with serving([engine], folder / "meter", context=1024) as server:
        yield server.http, "auto"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conforms(real, check) -> None:
    check(*real)


class Counter:
    source = "rapl"

    def __init__(self) -> None:
        self.value = 0.0

    def joules(self) -> float:
        return self.value


def test_requests_and_idle_are_the_meter_and_work_decides() -> None:
    """Worked by hand: idle 1 W, 10 s, 30 J: 20 J of work. a: 10 computed + 2 generated = 26; b: 0 computed + 3 generated = 24."""
    meter, now = Counter(), [0.0]
    split = Split(meter, 1.0, decode_cost=8.0, clock=lambda: now[0])
    a, b = split.begin("a"), split.begin("b")
    a.computed, a.generated, b.generated = 10, 2, 3
    now[0], meter.value = 10.0, 30.0
    assert split.end("a") == pytest.approx(20 * 26 / 50)
    b.generated += 1
    now[0], meter.value = 11.0, 36.0
    told_b = split.end("b")
    assert told_b == pytest.approx(20 * 24 / 50 + 5)
    now[0], meter.value = 20.0, 45.0
    split.window()
    assert split.idle == pytest.approx(10 + 1 + 9) and 20 * 26 / 50 + told_b + split.idle == pytest.approx(45.0)


@pytest.mark.parametrize(("told", "decode"), [
    ({"timings": {"predicted_ms": 250.0}}, 0.25), ({"metrics": {"generation_time_ms": 40}}, 0.04),
    ({}, None), ({"metrics": None, "timings": {"predicted_ms": None}}, None),
])  # fmt: skip
def test_the_first_token_of_a_whole_answer_is_as_the_engine_tells(serve_with, echo, told, decode) -> None:
    """It came `decode` seconds before the end, and the tokens after it took so long; what is not told is not known."""
    from genwright.serve.contracts import Chunk
    from genwright.serve.engines.http import _whole

    async def generate(kind, body, expert):
        answer = {"message": {"role": "assistant", "content": "a b c d e"}, "index": 0, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        time.sleep(decode or 0)
        chunk = _whole({"choices": [answer], "usage": usage, **told})
        assert isinstance(chunk, Chunk) and chunk.decode_seconds == decode
        yield chunk

    echo.generate = generate
    with serve_with(echo) as server:
        assert not {"timings", "metrics"} & set(server.chat("one").json())
        (row,) = server.settled(1)
    assert row["tpot_seconds"] == (pytest.approx(decode / 4) if decode else None)
    assert (0 <= row["ttft_seconds"] < row["seconds"] - decode + 1e-6) if decode else row["ttft_seconds"] is None


def test_a_cached_prompt_costs_nothing() -> None:
    meter = Counter()
    split = Split(meter, 0.0, clock=lambda: 0.0)
    cached, computed = split.begin("cached"), split.begin("computed")
    cached.computed, computed.computed = 0, 100
    meter.value = 7.0
    assert split.end("cached") == 0.0 and split.end("computed") == 7.0


def test_rapl_counts_over_its_own_limit(tmp_path: Path) -> None:
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("1000000")
    (package / "energy_uj").write_text("900000")
    rapl = Rapl(tmp_path)
    (package / "energy_uj").write_text("100000")
    assert rapl.joules() == pytest.approx(0.2)


def test_the_estimate_is_idle_watts_and_busy_cores() -> None:
    busy, now = [0.0], [0.0]
    told = Estimated(20.0, 6.0, 2, lambda: busy[0], clock=lambda: now[0])
    busy[0], now[0] = 1.0, 10.0
    assert told.joules() == pytest.approx(60 + 14 * 1.0 / 2) and told.source == "estimated"
    busy[0] = 0.5  # the engine was started again: its clock began anew
    assert told.joules() == pytest.approx(60 + 14 * 1.5 / 2)


def test_money_by_token_or_by_the_hour() -> None:
    assert Prices(1.0, 0.1, 3.0).of(Usage(1000, 400, 200), 9.9) == pytest.approx((600 + 40 + 600) / 1e6)
    assert Prices(hour=3.6).of(Usage(1000, 0, 200), 2.0) == pytest.approx(0.002)


def test_usage_sums_rotates_and_becomes_parquet(tmp_path: Path) -> None:
    meter = Meter(tmp_path, most_rows=3)
    for number in range(5):
        meter.add(
            Record(
                str(number),
                began=number * 86_400.0,
                key="ann" if number % 2 else "bob",
                prompt_tokens=10,
                generated_tokens=number,
                ttft_seconds=float(number) or None,
            )
        )
        meter.flush()
    meter.close()
    assert {path.name for path in tmp_path.glob("*.sqlite")} == {"usage.sqlite", "usage-1.sqlite"}
    rows = {row["name"]: row for row in read_usage(tmp_path)}
    assert rows["ann"]["requests"] == 2 and rows["ann"]["generated_tokens"] == 4 and rows["bob"]["prompt_tokens"] == 30
    assert rows["ann"]["ttft_seconds"] == pytest.approx(2.0)
    assert [row["name"] for row in read_usage(tmp_path, "day", since=86_400.0)] == [
        "1970-01-02",
        "1970-01-03",
        "1970-01-04",
        "1970-01-05",
    ]
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert write_parquet(tmp_path, tmp_path / "u.parquet") == 5
    assert pyarrow.read_table(tmp_path / "u.parquet").column("generated_tokens").to_pylist() == [0, 1, 2, 3, 4]
    with pytest.raises(BadRequest, match="not told by 'mood'"):
        read_usage(tmp_path, "mood")
    with pytest.raises(BadRequest, match="Nothing was metered"):
        read_records(tmp_path / "none")


def test_keys_are_hashed_and_limits_slide(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    secret = keys.make("ann", tokens_per_day=100)
    text = (tmp_path / "keys.json").read_text()
    assert secret not in text and secret[11:] not in text and (tmp_path / "keys.json").stat().st_mode & 0o077 == 0
    assert keys.who(secret).name == "ann" and keys.who(secret + "x") is None and keys.who("") is None
    keys.remove("ann")
    assert keys.who(secret) is None
    other = keys.make("ann", tokens_per_day=100)
    assert (
        keys.who(secret) is None and keys.who(other).name == "ann"
    )  # a name that comes back does not bring the old key back
    text = (tmp_path / "keys.json").read_text()
    with pytest.raises(BadRequest, match="'ann' already"):
        keys.make("ann")
    now = [0.0]
    limits, key = Limits(clock=lambda: now[0]), Key(**{**json.loads(text)[0], "experts": None})
    assert limits.refuse(key) is None
    limits.spent("ann", 100, 0.0)
    what, wait = limits.refuse(key)
    assert "100 tokens in a day" in what and wait == pytest.approx(86_400)
    now[0] = 86_401.0
    assert limits.refuse(key) is None


def test_each_limit_counts_its_own_and_old_amounts_leave_one_by_one() -> None:
    now = [0.0]
    limits = Limits(clock=lambda: now[0])
    key = Key("ann", "gw-", "00", "00", requests_per_minute=2, tokens_per_day=100, usd_per_month=1.0)
    assert limits.refuse(key) is None
    now[0] = 40.0
    assert limits.refuse(key) is None and "2 requests in a minute" in limits.refuse(key)[0]
    now[0] = 61.0  # the first left, the second did not
    assert limits.refuse(key) is None and limits.refuse(key)[1] == pytest.approx(39.0)
    now[0] = 200.0
    limits.spent("ann", 1, 1.5)
    assert "1 dollars in 30 days" in limits.refuse(key)[0] and limits.refuse(key)[1] == pytest.approx(30 * 86_400)
    now[0] += 30 * 86_400 + 1
    limits.spent("ann", 60, 0.0)
    now[0] += 50_000
    limits.spent("ann", 60, 0.0)
    assert "100 tokens in a day" in limits.refuse(key)[0]
    now[0] += 40_000
    assert limits.refuse(key) is None


def test_a_busy_key_takes_no_more_memory_than_a_quiet_one() -> None:
    """A hundred thousand requests in a day and a half, of a key without limits too: nothing grows, and nothing is lost from the sum."""
    now = [0.0]
    limits = Limits(clock=lambda: now[0])
    for number in range(100_000):
        now[0] = 1.3 * number
        limits.spent("ann", 3, 0.5)
    _, tokens, dollars = limits._of("ann")
    assert len(tokens.amounts) <= 1002 and len(dollars.amounts) <= 1002
    assert dollars.used(now[0]) == pytest.approx(50_000.0)
    assert tokens.used(now[0]) == pytest.approx(3 * 86_400 / 1.3, rel=2e-3)


def test_a_disk_that_takes_nothing_for_a_while_loses_no_record(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr("genwright.serve.meter.RETRY_SECONDS", 0.01)
    meter = Meter(tmp_path)
    meter.add(Record("one", began=1.0))
    meter.flush()
    with closing(sqlite3.connect(tmp_path / "usage.sqlite")) as other:
        other.execute("ALTER TABLE requests RENAME TO away")
        for number in range(3):
            meter.add(Record(f"late {number}", began=2.0 + number))
        until = time.monotonic() + 20
        while not meter.failed and time.monotonic() < until:
            time.sleep(0.01)
        assert "requests" in meter.failed
        other.execute("ALTER TABLE away RENAME TO requests")
    meter.flush()
    meter.close()
    assert [row["id"] for row in read_records(tmp_path)] == ["one", "late 0", "late 1", "late 2"] and not meter.failed
    assert capfd.readouterr().err.count("the meter waits") == 1
