"""Tables of measurements: what the words say, one answer a row, and no result is read."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from genwright.base.errors import DataError
from genwright.plan import training
from genwright.plan.estimate import Estimate, Range
from genwright.plan.published.row_serving import serving_row
from genwright.plan.published.row_training import training_row
from genwright.plan.published.rows import predict, predict_all, predict_file
from genwright.plan.traced.setup import Setup

ROW = {
    "id": "a-1", "framework": "litgpt", "model": "phi-1.5", "adaptation": "lora", "adapt_norm": "lora", "seq_len": "512", "micro_batch": "4",
    "grad_accum": "8", "precision": "bf16-true", "n_devices": "1", "device": "A100", "adapter_detail": "r=8 alpha=16 on q,v", "step_unit": "iteration (micro-batch)",
}  # fmt: skip


def test_a_row_is_read_column_by_column() -> None:
    asked = training_row(ROW)
    setup = asked.setup
    assert (setup.adapter, setup.rank, setup.targets, setup.framework) == ("lora", 8, ("q", "v"), "litgpt")
    assert (setup.seq_len, setup.micro_batch, setup.accumulate, setup.precision) == (512, 4, 8, "bf16-true")
    assert asked.per_micro_batch and asked.placed.device.vendor == "NVIDIA"


@pytest.mark.parametrize(
    ("said", "strategy", "factor"),
    [
        ("DP + ZeRO-1 over 8", "zero1", 8),
        ("FSDP FULL_SHARD", "zero3", 0),
        ("DeepSpeed ZeRO-2", "zero2", 0),
        ("HSDP", "hybrid", 8),
        ("DDP fp16", "ddp", 0),
    ],
)
def test_strategies(said: str, strategy: str, factor: int) -> None:
    setup = training_row({**ROW, "adaptation": "full", "adapt_norm": "full", "parallel": said, "n_devices": "16"}).setup
    assert (setup.strategy, setup.sharding_factor) == (strategy, factor)


def test_a_default_is_said() -> None:
    asked = training_row({**ROW, "seq_len": "", "device": "", "micro_batch": ""})
    assert {"seq_len", "device", "micro_batch"} <= {note.split()[0] for note in asked.notes}


def test_serving_words() -> None:
    asked = serving_row(
        {
            "model": "Yi-6B-Chat-4bits",
            "framework": "transformers",
            "precision": "",
            "batch_size": "4",
            "device": "4090 24GB",
        }
    )
    assert asked.setup.batch == 4 and asked.setup.precision == "int4"


def test_every_row_has_one_answer_and_an_odd_one_its_reason(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    columns = (
        "id",
        "model",
        "framework",
        "batch_size",
        "input_tokens",
        "output_tokens",
        "device",
        "token_ms",
        "precision",
    )
    wanted = [
        ("1", "llama2-70b", "vLLM", "1", "512", "128", "8xA100", "1", "fp16"),
        ("2", "nobody-7", "vLLM", "x", "", "", "?", "", ""),
    ]
    with rows.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *wanted])
    out = tmp_path / "out.csv"
    assert predict_file(rows, out) == {"rows": 2, "predicted": 1, "refused": 1}
    first, second = csv.DictReader(out.read_text().splitlines())
    assert float(first["token_ms_low"]) < float(first["token_ms"]) < float(first["token_ms_high"]) and second[
        "refused"
    ].startswith("UnknownName")
    changed = [dict(zip(columns, wanted[0], strict=True)) | {"token_ms": "99999"}]
    assert f"{next(predict(changed))['token_ms']:.6g}" == first["token_ms"]


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not a table of measurements"):
        predict_file(tmp_path / "rows.csv", tmp_path / "out.csv")


def test_several_processes_answer_as_one_does(tmp_path: Path) -> None:
    serving = {
        "model": "llama2-7b",
        "framework": "vLLM",
        "precision": "fp16",
        "device": "A100",
        "input_tokens": "64",
        "output_tokens": "8",
    }
    rows = [{"id": str(number), "batch_size": str(number % 5), **serving} for number in range(40)]
    assert list(predict_all(rows, processes=2)) == list(predict(rows))


def test_a_row_that_ran_beyond_a_configs_positions_is_planned_and_said() -> None:
    asked = training_row({**ROW, "model": "mpt-7b", "framework": "llm-foundry", "seq_len": "8192"})
    assert asked.setup.model["max_seq_len"] == 8192 and asked.setup.framework == "llm-foundry"  # type: ignore[index]
    assert any("8192 tokens where the model's own config has 2048" in note for note in asked.notes)
    served = serving_row(
        {
            "id": "s",
            "model": "llama-7b",
            "framework": "vllm",
            "device": "A100",
            "batch_size": "1",
            "input_tokens": "2048",
            "output_tokens": "2048",
        }
    )
    assert (served.setup.input_tokens, served.setup.output_tokens) == (2048, 2048)


def test_an_mpt_is_traced_as_the_gpt2_of_its_sizes() -> None:
    from genwright.plan.architectures import config_of

    found = config_of("mpt-7b")
    assert (found["model_type"], found["n_embd"], found["n_layer"], found["n_inner"]) == ("gpt2", 4096, 32, 16384)
    assert config_of("llama-3.1-8b")["model_type"] == "llama"


def test_a_step_of_one_microbatch_is_priced_as_one_and_ranges_stand_the_right_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def estimate(setup: Setup, *_: object, **__: object) -> Estimate:
        seen.append(setup.accumulate)
        sizes = dict.fromkeys(("active_peak_bytes", "reserved_peak_bytes", "device_peak_bytes"), Range(2.0, 1.0, 3.0))
        facts = {"fits": True, "tokens_per_step": 2048, "model_flops": 1e12, "attention_flops": 0.0}
        return Estimate({**sizes, "step_seconds": Range(2.0, 1.0, 4.0)}, facts=facts)

    monkeypatch.setattr(training, "estimate_training", estimate)
    micro, whole = predict([ROW, {**ROW, "step_unit": "optimizer step"}])
    assert seen == [1, 8] and not micro["refused"]
    names = ("step_s", "tokens_per_s_per_device", "mfu_pct", "peak_active_gib")
    assert all(whole[f"{name}_low"] < whole[name] < whole[f"{name}_high"] for name in names)
    assert whole["tokens_per_s_per_device"] == 1024
