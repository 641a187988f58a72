"""Four adapters on one base and one MultiLoRA: shorter, on a tiny decoder and rows made here."""

from __future__ import annotations

import json
import runpy
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from tests.e2e.tiny import rows, write_model
from tests.serve.conftest import running
from tests.serve.texts import WordEmbedder
from transformers import AutoModelForCausalLM

from genwright.base.errors import GenwrightError
from genwright.project.spec import read_spec
from genwright.serve.house import build

EXAMPLE = Path(__file__).parents[2] / "examples" / "experts"
MADE = shutil.ignore_patterns("data", "model", ".genwright", "report.html", "__pycache__")
FIELDS = ["az", "aws", "python", "interface"]
SHORT = ['select.models=["folder:../model"]', "adapt.steps=3", "adapt.batch_size=4", "adapt.max_new_tokens=4",
         "adapt.precision=fp32", "adapt.validation_rows=2",
         "data.validation_fraction=0.2", "data.test_fraction=0.3"]  # fmt: skip
LAYER_WIDTHS = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
"""(in, out) of the linear layers of one of tiny.py's three blocks: q, k, v, o, gate, up, down."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with 40 rows for each field, in the form that make_data.py gives them."""
    folder = tmp_path_factory.mktemp("experts") / "project"
    shutil.copytree(EXAMPLE, folder, ignore=MADE)
    write_model(folder / "model", "decoder")
    made: list[dict] = []
    for field in FIELDS:
        own = [
            {**row, "prompt": f"{field}: {row['prompt']}", "group": f"{field}: {n}"}
            for n, row in enumerate(rows("chat"))
        ]
        write(folder / "data" / f"{field}.jsonl", own)
        made += own
    write(folder / "data" / "all.jsonl", made)
    return folder


def write(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_four_experts_and_one_for_all(folder: Path, genwright_here: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = {}
    for project in [*FIELDS, "all"]:
        done = genwright_here(folder / project, "apply", "--json", *(word for one in SHORT for word in ("--set", one)))
        assert done.code == 0, done.told
        adapters[project] = Path(done.json["artifacts"]["integrate"]) / "adapter"
    weights = 3 * sum(width + out for width, out in LAYER_WIDTHS)
    for field in FIELDS:
        assert (
            sum(one.numel() for one in load_file(adapters[field] / "adapter_model.safetensors").values()) == 4 * weights
        )
    assert sum(one.numel() for one in load_file(adapters["all"] / "adapter_model.safetensors").values()) == 16 * weights
    base = AutoModelForCausalLM.from_pretrained(folder / "model")
    together = PeftModel.from_pretrained(base, adapters["az"], adapter_name="az")
    for project in [*FIELDS[1:], "all"]:
        together.load_adapter(adapters[project], adapter_name=project)
    assert set(together.peft_config) == {*FIELDS, "all"}
    assert_the_table_compares_the_same_rows(folder)
    assert_auto_answers_with_each(folder, monkeypatch)


def assert_auto_answers_with_each(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any of the four projects serves all of them, each proven against `transformers` and `peft`; no further question is asked."""
    monkeypatch.setattr("genwright.serve.embed.packaged_embedder", WordEmbedder)
    spec, project = read_spec(folder / "az" / "genwright.toml"), folder / "az"
    with running(build(spec, project, say=lambda text: None).app) as client:
        until = time.monotonic() + 60
        while client.get("/ready").status_code != 200 and time.monotonic() < until:
            time.sleep(0.05)
        names = [one["id"] for one in client.get("/v1/models").json()["data"]]
        assert names == ["auto", "model", *sorted(f"expert-{field}" for field in FIELDS)]
        for field in FIELDS:
            question = [{"role": "user", "content": f"{field}: what colour is house number 3"}]
            answer = client.post("/v1/chat/completions", json={"messages": question, "max_tokens": 2})
            told = answer.json()
            assert (told["genwright"]["expert"], told["genwright"]["reason"]) == (f"expert-{field}", "fits"), told
            named = client.post(
                "/v1/chat/completions", json={"model": f"expert-{field}", "messages": question, "max_tokens": 2}
            )
            assert named.json()["genwright"]["version"] == told["genwright"]["version"] is not None
        asked = runpy.run_path(str(folder / "ask.py"))["measured"](str(client.base_url).rstrip("/"), folder, 2)
        assert {field: (one["rows"], one["right"]) for field, one in asked.items()} == dict.fromkeys(FIELDS, (2, 1.0))
        strange = [{"role": "user", "content": "Explain opera to a child."}]
        assert (
            client.post("/v1/chat/completions", json={"messages": strange, "max_tokens": 2}).json()["model"] == "model"
        )
    records = sorted((project / ".genwright" / "serve" / "experts").glob("*/parity.json"))
    assert len(records) == 4 and all(json.loads(one.read_text())["passed"] for one in records)
    records[0].write_text(json.dumps({**json.loads(records[0].read_text()), "largest_gap": 3.0}))
    with pytest.raises(GenwrightError, match=r"expert 'expert-aws' .* does not answer as the trained one did"):
        build(spec, project, say=lambda text: None)


def assert_the_table_compares_the_same_rows(folder: Path) -> None:
    module = runpy.run_path(str(folder / "table.py"))
    joint = module["answers"](folder / "all", "multilora")
    own = [module["answers"](folder / field, "lora") for field in FIELDS]
    assert set(joint) == {prompt for answers in own for prompt in answers}
    lines = module["table"](folder).splitlines()
    assert [line.split()[0] for line in lines] == ["chrF", *FIELDS, "all"]
    assert sum(int(line.split()[1]) for line in lines[1:-1]) == int(lines[-1].split()[1]) == len(joint)


def test_rows_are_short_distinct_and_named_after_their_field() -> None:
    chosen = runpy.run_path(str(EXAMPLE / "make_data.py"))["chosen"]
    given = [{"prompt": f"p{n % 7}", "completion": "c" * n, "group": f"g{n}"} for n in range(130)]
    found = chosen("az", given, 5)
    assert len({row["prompt"] for row in found}) == len(found) == 5
    assert all(0 < len(row["completion"]) <= 110 and row["group"].startswith("az: g") for row in found)
    assert found == chosen("az", given, 9)[:5]


@pytest.mark.proof
@pytest.mark.parametrize("field", FIELDS)
def test_every_field_has_enough_rows(field: str) -> None:
    module = runpy.run_path(str(EXAMPLE / "make_data.py"))
    cloud = module["CLOUD"]
    needed = {"az": cloud["WHEELS"]["az"], "aws": cloud["WHEELS"]["aws"], "interface": module["DJANGO"]}
    if field in needed and not (cloud["cache_folder"]() / needed[field].file_name).exists():
        pytest.skip("the wheel is not in the cache: run examples/experts/make_data.py")
    assert len(module["chosen"](field, module["FIELDS"][field](), 320)) == 320
