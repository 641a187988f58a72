"""Declared fields: what the source says is what Python made of it, without importing torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from genwright.base.registry import resolve
from genwright.base.schema import REQUIRED, declared
from genwright.catalogue.parts import ADAPTERS
from genwright.project import tables

OURS = [name for name, one in vars(tables).items() if dataclasses.is_dataclass(one)]


@pytest.mark.parametrize("name", OURS)
def test_the_source_agrees_with_the_class(name: str) -> None:
    cls = resolve(f"genwright.project.tables:{name}")
    doc, fields = declared(f"genwright.project.tables:{name}")
    real = dataclasses.fields(cls)
    assert doc.split() == (cls.__doc__ or "").split()
    assert [field.name for field in fields] == [field.name for field in real]
    assert [field.type for field in fields] == [str(field.type).replace('"', "'") for field in real]
    assert [None if field.default is REQUIRED else field.default for field in fields] == [
        None if field.default is dataclasses.MISSING else field.default for field in real
    ]


def test_every_field_of_ours_and_of_every_adapter_is_explained() -> None:
    paths = [f"genwright.project.tables:{name}" for name in OURS] + list(ADAPTERS.paths.values())
    silent = [f"{path}.{field.name}" for path in paths for field in declared(path)[1] if not field.doc]
    assert silent == []


def test_class_variables_are_no_fields() -> None:
    names = [field.name for field in declared(ADAPTERS.paths["lora"])[1]]
    assert "rank" in names
    assert "default_learning_rate" not in names


def test_reading_an_adapter_does_not_import_torch() -> None:
    code = (
        "import sys; from genwright.base.schema import declared; from genwright.catalogue.parts import ADAPTERS\n"
        "assert all(declared(path)[0] for path in ADAPTERS.paths.values())\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_default_that_is_no_literal_is_our_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "__init__.py").write_text("")
    (tmp_path / "shelf" / "books.py").write_text("class Book:\n    pages: int = len('x')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="malformed node"):
        declared("shelf.books:Book")
    with pytest.raises(AssertionError, match="no class Poem"):
        declared("shelf.books:Poem")
