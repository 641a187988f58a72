"""`genwright calibrate`: measured, kept where it says, found again; a wrong device is a wrong request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genwright.cli import main
from genwright.plan.priced import measure


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SHAPES_CPU", [(32, 64, 64)])
    monkeypatch.setattr(measure, "STREAMS_CPU", (2**10, 2**16))
    monkeypatch.setattr(measure, "LENGTHS_CPU", (32,))


def test_it_measures_and_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--device", "cpu", "--to", str(tmp_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert Path(facts["path"]).parent == tmp_path and facts["products"] == 2
    assert facts["best_flops_per_second"]["fp32"] > 1e6 and facts["machine"]["torch"]
    assert main(["calibrate", "--device", "cpu", "--to", str(tmp_path)]) == 0
    assert "microseconds of the host" in capsys.readouterr().out and len(list(tmp_path.iterdir())) == 1


def test_a_gpu_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["calibrate", "--device", "cuda", "--to", str(tmp_path)]) == 2
    assert "torch sees no device 'cuda' here" in capsys.readouterr().err
