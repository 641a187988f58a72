"""Every error: its exit code, its four parts in words, and the tree that its module draws."""

from __future__ import annotations

import inspect
import re

import pytest

from genwright.base import errors
from genwright.base.errors import BadRequest, GenwrightError, MissingExtra

CLASSES = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, GenwrightError)]
EXIT_CODES = {
    "GenwrightError": 1, "BadRequest": 2, "UnknownName": 2, "SpecError": 2, "DataError": 2, "ModelError": 2,
    "RecipeError": 2, "MissingExtra": 2, "Busy": 2, "DoesNotFit": 3, "Corrupt": 1, "OutOfMemory": 1, "DiskFull": 1, "Diverged": 1, "WorkerDied": 1,
    "Interrupted": 130,
}  # fmt: skip


@pytest.mark.parametrize("kind", [one for one in CLASSES if one is not MissingExtra], ids=lambda one: one.__name__)
def test_an_error_says_what_wanted_found_and_do(kind: type[GenwrightError]) -> None:
    with pytest.raises(kind) as caught:
        raise kind("It broke.", wanted="a cup", found="two halves", do="glue them")
    assert str(caught.value) == "It broke.\n  wanted: a cup\n  found:  two halves\n  do:     glue them"
    assert caught.value.exit_code == EXIT_CODES[kind.__name__]


def test_parts_that_are_not_given_are_not_printed() -> None:
    assert str(GenwrightError("It broke.", do="glue it")) == "It broke.\n  do:     glue it"


def test_a_missing_extra_is_an_install_command() -> None:
    with pytest.raises(MissingExtra, match=r"Parquet needs the package 'pyarrow'") as caught:
        raise MissingExtra("pyarrow", "parquet", "Parquet")
    assert caught.value.do == "pip install 'genwright[parquet]'"
    assert isinstance(caught.value, BadRequest)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = re.findall(r"^[\s│├└─]*([A-Z]\w+)\s+exit (\d+)|^[\s│├└─]+([A-Z]\w+)\s", errors.__doc__ or "", re.MULTILINE)
    names = {first or inner for first, _, inner in drawn}
    assert names == {one.__name__ for one in CLASSES} == set(EXIT_CODES)
    assert all(EXIT_CODES[name] == int(code) for name, code, _ in drawn if code)
