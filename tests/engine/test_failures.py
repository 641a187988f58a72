"""What must be survived: a kill at every write of a save, a full disk, a loss that is no number."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from genwright.adapters.full import Full
from genwright.base.errors import DiskFull
from genwright.data.layouts import Feed
from genwright.engine import checkpoint
from genwright.engine.build import Built
from genwright.engine.loop import MOST_SKIPPED_IN_A_ROW, train
from genwright.engine.saving import Saver


def weights(built: Built) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in built.parameters.items()}


class KillAt:
    """Counts every call that changes the disk, and ends the process without any clean-up at the n-th: before it, or half done."""

    def __init__(self, number: int, half: bool) -> None:
        self.left, self.half = number, half

    def around(self, function: Callable, half_done: Callable | None = None) -> Callable:
        def called(*arguments: Any, **keywords: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                if self.half and half_done is not None:
                    half_done(*arguments, **keywords)
                os._exit(9)
            return function(*arguments, **keywords)

        return called

    def install(self) -> None:
        """Only in a child process: nothing is put back."""

        def half_a_file(tensors: Any, path: Path, **keywords: Any) -> None:
            whole(tensors, path, **keywords)
            os.truncate(path, path.stat().st_size // 2)

        def half_a_folder(path: Path, **_: Any) -> None:
            for first in sorted(path.glob("*"))[:1]:
                first.unlink()

        whole = checkpoint.save_file
        checkpoint.save_file = self.around(whole, half_a_file)
        os.fsync = self.around(os.fsync)
        for name in ("mkdir", "rename", "replace", "write_text"):
            setattr(Path, name, self.around(getattr(Path, name)))
        shutil.rmtree = self.around(shutil.rmtree, half_a_folder)


def save_in_a_child(root: Path, built: Built, kill: KillAt) -> int:
    """Exit code of a process that saves step 6 and is killed meanwhile: 9, or 0 when it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            saver = Saver(root, recipe="r")
            kill.install()
            saver.save(built, step=6, state={})
            saver.wait()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("half", [False, True], ids=["before", "half-done"])
def test_a_kill_at_any_write_leaves_a_valid_checkpoint(
    half: bool, recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    """Steps 2 and 4 are there; 6 is saved and 2 dropped. Whenever the kill comes, 4 or 6 is the newest, whole and exact."""
    one = recipe(adapter=Full())
    ready = built(one)
    for done in train(ready, one, feed):
        if done.step in (2, 4):
            checkpoint.save(tmp_path / "start", ready, step=done.step, recipe="r", state={})
        if done.step == 4:
            at_four = weights(ready)
        if done.step == 6:
            break
    at_six, found, number = weights(ready), [], 0
    while True:
        number += 1
        root = Path(shutil.copytree(tmp_path / "start", tmp_path / f"kill-{number}"))
        code = save_in_a_child(root, ready, KillAt(number, half))
        assert code in (0, 9), "the child failed in another way"
        newest = checkpoint.latest(root, recipe="r", say=lambda text: pytest.fail(text))
        assert newest is not None
        fresh = built(one)
        checkpoint.restore_(fresh, newest)
        expected = {4: at_four, 6: at_six}[newest.step]
        assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(fresh).items())
        Saver(root, recipe="r")
        assert not list(root.glob(".*")), "what was half-written is swept"
        found.append(newest.step)
        if code == 0:
            break
    assert len(found) > 12 and found == sorted(found) and found[0] == 4 and found[-1] == 6


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond it, as a full disk would."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [4096, 20_000], ids=["at-the-weights", "at-the-optimizer"])
def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_half_written(
    size: int, recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    """The save itself only copies; its error comes to light at the next step, at the next save, or at the end."""
    one = recipe()
    ready = built(one)
    next(train(ready, one, feed))
    checkpoint.save(tmp_path, ready, step=2, recipe="r", state={})
    saver = Saver(tmp_path, recipe="r")
    with no_file_beyond(size):
        saver.save(ready, step=3, state={})
        with pytest.raises(DiskFull, match="The disk is full"):
            saver.wait()
        saver.save(ready, step=4, state={})
        with pytest.raises(DiskFull, match="what was done is kept"):
            saver.save(ready, step=5, state={})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]
    saver.save(ready, step=6, state={})
    assert [saved.step for saved in saver.wait()] == [6], "with room again, saving goes on"


def test_the_error_of_a_save_is_not_lost_at_the_end(
    recipe: Callable, built: Callable, feed: Feed, tmp_path: Path
) -> None:
    ready = built(recipe())
    next(train(ready, recipe(), feed))
    with no_file_beyond(4096), pytest.raises(DiskFull, match="The disk is full"), Saver(tmp_path, recipe="r") as saver:
        saver.save(ready, step=1, state={})
    with no_file_beyond(4096), pytest.raises(ValueError, match="the first"), Saver(tmp_path, recipe="r") as saver:
        saver.save(ready, step=1, state={})
        raise ValueError("the first error is the one to tell")


def poisoned(built: Built, steps: set[int]) -> Callable[[], None]:
    """Make the gradient of one weight NaN in the given steps (from 1); returns what counts them on."""
    step = [1]

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        return torch.full_like(gradient, float("nan")) if step[0] in steps else gradient

    next(iter(built.parameters.values())).register_hook(poison)
    return lambda: step.__setitem__(0, step[0] + 1)


def test_a_step_that_is_no_number_is_skipped_and_counted(recipe: Callable, built: Callable, feed: Feed) -> None:
    one = recipe(steps=6)
    ready = built(one)
    count_on = poisoned(ready, {2, 3})
    skipped, before = [], weights(ready)
    for done in train(ready, one, feed):
        count_on()
        changed = any(not torch.equal(tensor, before[name]) for name, tensor in weights(ready).items())
        assert changed != done.skipped, "a skipped step changes no weight, every other does"
        before = weights(ready)
        skipped += [done.step] if done.skipped else []
    assert skipped == [2, 3]
    assert {float(state["step"]) for state in ready.optimizer.state.values()} == {4.0}, "nor the optimizer's count"


def test_skipped_steps_apart_from_each_other_never_end_a_run(recipe: Callable, built: Callable, feed: Feed) -> None:
    one = recipe(steps=2 * MOST_SKIPPED_IN_A_ROW + 4)
    ready = built(one)
    count_on = poisoned(ready, {step for step in range(1, one.steps + 1) if step % MOST_SKIPPED_IN_A_ROW})
    done = [(count_on(), step)[1] for step in train(ready, one, feed)]
    assert len(done) == one.steps and sum(step.skipped for step in done) == one.steps - 2
