"""The format: proven files that any safetensors reader opens, of any number of processes; and saving beside training."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from genwright.base.errors import Corrupt
from genwright.data.layouts import Feed
from genwright.engine import checkpoint
from genwright.engine.build import Built
from genwright.engine.checkpoint import Process
from genwright.engine.loop import train
from genwright.engine.saving import Saver
from genwright.engine.shards import Pieces, index_of, pieces_of, read_

FILES = ["trained.safetensors", "optimizer.safetensors", "state.json"]


def three_saved(recipe: Any, built: Callable, feed: Feed, root: Path) -> None:
    ready = built(recipe)
    for done in train(ready, recipe, feed):
        if done.step in (2, 4, 6):
            checkpoint.save(root, ready, step=done.step, recipe=recipe.identity(), state={"history": [done.step]})


def test_the_newest_two_are_kept(recipe: Callable, built: Callable, feed: Feed, tmp_path: Path) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000006"]


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_is_used(
    name: str, damage: str, recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    file = tmp_path / "step-000006" / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    file.unlink()
    if damage != "remove":
        file.write_bytes(bytes(data[: len(data) // 2] if damage == "truncate" else data))
    said: list[str] = []
    found = checkpoint.latest(tmp_path, recipe=recipe().identity(), say=said.append)
    assert found is not None and found.step == 4
    assert "step-000006" in said[0] and "Set aside" in said[0]
    assert (tmp_path / "damaged-step-000006").exists()


def test_corrupt_names_the_file(recipe: Callable, built: Callable, feed: Feed, tmp_path: Path) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    (tmp_path / "step-000006" / "optimizer.safetensors").write_bytes(b"no")
    with pytest.raises(Corrupt, match=r"step-000006: optimizer.safetensors is not what was written"):
        checkpoint.opened(tmp_path / "step-000006")


def test_another_recipes_checkpoint_is_not_resumed(
    recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    assert checkpoint.latest(tmp_path, recipe=recipe(learning_rate=2e-2).identity(), say=print) is None


def test_what_the_consumer_remembers_comes_back(recipe: Callable, built: Callable, feed: Feed, tmp_path: Path) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    found = checkpoint.latest(tmp_path, recipe=recipe().identity(), say=print)
    assert found is not None and found.state["history"] == [6]
    assert json.loads((found.folder / "state.json").read_text())["step"] == 6


def trained(recipe: Any, built: Callable, feed: Feed, steps: int) -> Built:
    ready: Built = built(recipe)
    steps_of = train(ready, recipe, feed)
    for _ in range(steps):
        next(steps_of)
    return ready


def test_a_file_that_the_manifest_does_not_know_is_no_part(
    recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    three_saved(recipe(), built, feed, tmp_path)
    (tmp_path / "step-000006" / "trained-2-of-2.safetensors").write_bytes(b"planted")
    with pytest.raises(Corrupt, match=r"trained-2-of-2.safetensors is not in its manifest"):
        checkpoint.opened(tmp_path / "step-000006")


def test_anyone_can_open_it(recipe: Callable, built: Callable, feed: Feed, tmp_path: Path) -> None:
    """With the safetensors library alone: weights under their own names, moments under the weight's name."""
    ready = trained(recipe(), built, feed, 2)
    checkpoint.save(tmp_path, ready, step=2, recipe="r", state={})
    weights = load_file(tmp_path / "step-000002" / "trained.safetensors")
    assert set(weights) == set(ready.parameters)
    assert all(torch.equal(weights[name], parameter) for name, parameter in ready.parameters.items())
    state = load_file(tmp_path / "step-000002" / "optimizer.safetensors")
    assert {key.partition("|")[2] for key in state} == {"step", "exp_avg", "exp_avg_sq"}
    assert {float(value) for key, value in state.items() if key.endswith("|step")} == {2.0}


def test_nothing_of_torchs_own_format_is_written(recipe: Callable, built: Callable, feed: Feed, tmp_path: Path) -> None:
    """Its metadata is a pickle. No file may begin as one, or as a zip of pickles."""
    checkpoint.save(tmp_path, trained(recipe(), built, feed, 1), step=1, recipe="r", state={})
    files = sorted(path.name for path in (tmp_path / "step-000001").iterdir())
    assert files == sorted([*FILES, "manifest.json"])
    assert not [
        path
        for path in (tmp_path / "step-000001").iterdir()
        if path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"PK")
    ]


def test_milestones_are_kept_whatever_their_age(recipe: Callable, built: Callable, feed: Feed, tmp_path: Path) -> None:
    ready = trained(recipe(), built, feed, 1)
    with Saver(tmp_path, recipe="r", milestones=(2, 3)) as saver:
        for step in range(1, 8):
            saver.save(ready, step=step, state={})
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-00000{step}" for step in (2, 3, 6, 7)]


def test_a_snapshot_does_not_change_when_training_goes_on(
    recipe: Callable, built: Callable, feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread is held until three more steps are trained; what it then writes is the step it was asked for."""
    one = recipe()
    ready, go = built(one), threading.Event()
    write = checkpoint._write_files
    monkeypatch.setattr(checkpoint, "_write_files", lambda *arguments: (go.wait(30), write(*arguments))[1])
    with Saver(tmp_path, recipe="r") as saver:
        for done in train(ready, one, feed):
            if done.step == 2:
                at_two = {name: parameter.detach().clone() for name, parameter in ready.parameters.items()}
                saver.save(ready, step=2, state={})
            if done.step == 5:
                assert saver.finished() == [] and not (tmp_path / "step-000002").exists(), (
                    "not a name before it is whole"
                )
                go.set()
                break
    weights = load_file(tmp_path / "step-000002" / "trained.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in at_two.items())
    assert any(not torch.equal(weights[name], parameter) for name, parameter in ready.parameters.items())


def test_at_most_one_is_in_flight(
    recipe: Callable, built: Callable, feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = [0], [0]
    write = checkpoint._write_files

    def counted(*arguments: Any) -> Any:
        running[0] += 1
        most[0] = max(most[0], running[0])
        threading.Event().wait(0.02)
        running[0] -= 1
        return write(*arguments)

    monkeypatch.setattr(checkpoint, "_write_files", counted)
    ready = trained(recipe(), built, feed, 1)
    with Saver(tmp_path, recipe="r") as saver:
        for step in range(1, 5):
            saver.save(ready, step=step, state={})
        assert [one.step for one in saver.wait()] == [1, 2, 3, 4]
    assert most == [1]


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-000003.alone").mkdir()
    (tmp_path / ".step-000003.alone" / "trained.safetensors").write_bytes(b"half")
    (tmp_path / ".step-000001.removed").mkdir()
    Saver(tmp_path, recipe="r")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_never_wrote_makes_no_checkpoint(
    recipe: Callable, built: Callable, feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "WAIT_SECONDS", 0.05)
    first = Process(0, 2, "word")
    taken = checkpoint.snapshot(trained(recipe(), built, feed, 1), step=1, recipe="r", state={}, process=first)
    with pytest.raises(Corrupt, match="step-000001 was given up: process 1 did not write its part"):
        checkpoint.write(tmp_path, taken, process=first)
    assert list(tmp_path.iterdir()) == []


def test_pieces_are_put_together_and_cut_anew(tmp_path: Path) -> None:
    """A 5x3 written as rows 0-1, 2-3 and 4 is read whole."""
    whole = torch.arange(15.0).view(5, 3)
    files = []
    for start, stop in ((0, 2), (2, 4), (4, 5)):
        pieces = Pieces(
            {f"w@{start},0": whole[start:stop].contiguous(), "beta": torch.tensor(float(start))}, {"w": [5, 3]}
        )
        path = tmp_path / f"trained-{start}.safetensors"
        save_file(
            pieces.tensors if start == 0 else {f"w@{start},0": pieces.tensors[f"w@{start},0"]},
            path,
            metadata=pieces.header(),
        )
        files.append(path)
    targets = {"w": torch.zeros(5, 3), "beta": torch.ones(())}
    read_(targets, index_of(files))
    assert torch.equal(targets["w"], whole) and float(targets["beta"]) == 0.0


@pytest.mark.parametrize("target", [{"missing": torch.zeros(2)}, {"w": torch.zeros(3, 3)}])
def test_a_tensor_that_was_not_written_is_refused(target: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2, 3)}, tmp_path / "trained.safetensors")
    with pytest.raises((RuntimeError, ValueError), match=r"Missing key|Size mismatch"):
        read_(target, index_of([tmp_path / "trained.safetensors"]))


@pytest.mark.parametrize(("placements", "written"), [
    ((Replicate(), Shard(0)), {0: ["w@0,0"], 1: ["w@2,0"], 2: [], 3: []}),
    ((Replicate(), Shard(1)), {0: ["w@0,0"], 1: ["w@0,3"], 2: [], 3: []}),
    ((Shard(0), Shard(1)), {0: ["w@0,0"], 1: ["w@0,3"], 2: ["w@2,0"], 3: ["w@2,3"]}),
    ((Replicate(), Replicate()), {0: ["w"], 1: [], 2: [], 3: []}),
])  # fmt: skip
def test_what_several_processes_hold_is_written_once(placements: tuple, written: dict[int, list[str]]) -> None:
    """A 4x6 on a mesh of 2x2, seen from each of its four processes: hybrid sharding keeps copies, of which one is written."""
    for rank, keys in written.items():
        distributed.init_process_group("fake", rank=rank, world_size=4, store=FakeStore())
        try:
            mesh = init_device_mesh("cpu", (2, 2))
            cut = [4 // 2 if Shard(0) in placements else 4, 6 // 2 if Shard(1) in placements else 6]
            tensor = DTensor.from_local(
                torch.zeros(cut), mesh, placements, run_check=False, shape=torch.Size([4, 6]), stride=(6, 1)
            )
            found = pieces_of({"w": tensor, "step": torch.tensor(1.0)}, process=rank)
        finally:
            distributed.destroy_process_group()
        assert [key for key in found.tensors if key != "step"] == keys
        assert ("step" in found.tensors) == (rank == 0)


SCRIPT = Path(__file__).parent / "sharded.py"


def sharded(root: Path, *runs: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, SCRIPT, str(root), *runs], capture_output=True, text=True, check=False, timeout=240
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_close(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """To float32's tolerance: a sharded gradient is summed in another order."""
    assert ours.keys() == theirs.keys() and any("|exp_avg_sq" in key for key in ours)
    for name, value in ours.items():
        torch.testing.assert_close(torch.tensor(value), torch.tensor(theirs[name]), atol=2e-6, rtol=1e-5)


def test_two_processes_save_and_one_or_two_resume(tmp_path: Path) -> None:
    """What is restored is what was saved, bit for bit; steps on as many processes too; on others to float32's tolerance."""
    whole, alone, saved, one, two, one_on, two_on = sharded(
        tmp_path, "2:0:6", "1:0:6", "2:0:3:save", "1:3:3", "2:3:3", "1:3:6", "2:3:6"
    )
    assert one == saved and two == saved
    assert two_on == whole
    assert_close(one_on, alone)
    assert any(saved[name] != alone[name] for name in alone)
    folder = tmp_path / "step-000003"
    assert json.loads((folder / "state.json").read_text())["told"] == "again"
    with safe_open(folder / "trained-2-of-2.safetensors", framework="pt") as file:
        pieces = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert pieces["0.weight@3,0"] == [2, 7], "rows 3 and 4 of 5, to be opened by anyone"


def test_one_process_saves_and_two_resume(tmp_path: Path) -> None:
    alone, saved, two, two_on = sharded(tmp_path, "1:0:6", "1:0:3:save", "2:3:3", "2:3:6")
    assert two == saved
    assert_close(two_on, alone)


@pytest.mark.proof
def test_four_processes_save_and_any_number_resumes(tmp_path: Path) -> None:
    """Of 3 rows over 4 processes the last holds nothing. Then two steps on 2 are saved and resumed on 4."""
    whole, alone, saved, *rest = sharded(
        tmp_path, "4:0:6", "1:0:6", "4:0:3:save", "1:3:3", "2:3:3", "3:3:3", "4:3:3", "4:3:6", "1:3:6", "2:3:6"
    )
    assert rest[:4] == [saved] * 4
    assert rest[4] == whole
    assert_close(rest[5], alone)
    assert_close(rest[6], alone)
    saved, four = sharded(tmp_path, "2:3:5:save", "4:5:5")
    assert four == saved
