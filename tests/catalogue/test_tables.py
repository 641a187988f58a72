"""The tables: read lightly, explained field by field, frozen."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest

from genwright.base.schema import declared
from genwright.catalogue.models import model
from genwright.catalogue.tables import read_table
from genwright.catalogue.tasks import task

RECORDS = ["tasks:Task", "profiles:Profile", "models:ModelCard", "devices:Device"]

PROBE = """
import sys
import genwright.catalogue.tasks, genwright.catalogue.profiles, genwright.catalogue.models, genwright.catalogue.devices
print(*sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'transformers', 'numpy', 'tomllib'}))
"""


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_is_explained(record: str) -> None:
    doc, fields = declared(f"genwright.catalogue.{record}")
    assert doc and fields and not [field.name for field in fields if not field.doc]


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_stands_on_the_page(record: str, documented: set[str]) -> None:
    assert not {field.name for field in declared(f"genwright.catalogue.{record}")[1]} - documented


def test_importing_the_catalogue_reads_no_table_and_no_heavy_library() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_records_are_frozen_to_the_leaves() -> None:
    with pytest.raises(FrozenInstanceError):
        task("chat").metric = "bleu"  # type: ignore[misc]
    assert isinstance(model("gpt2").sources, tuple)


def test_a_key_that_is_no_field_is_our_own_mistake() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        read_table("tasks", lambda *, name: name)
