"""docs/project-file.md: the reference is the schema's, and every example on the page is a file that is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from genwright.base.errors import SpecError
from genwright.project.explain import reference
from genwright.project.spec import spec_from_text

PAGE = Path(__file__).parents[2] / "docs" / "project-file.md"
MARK = "<!-- reference -->\n"
REWRITE = (
    "write it anew: .venv/bin/python -c 'from pathlib import Path; from genwright.project.explain import reference; "
    'p = Path("docs/project-file.md"); m = "<!-- reference -->\\n"; '
    "p.write_text(p.read_text().partition(m)[0] + m + reference())'"
)


def test_the_reference_on_the_page_is_that_of_the_schema() -> None:
    assert PAGE.read_text(encoding="utf-8").partition(MARK)[2] == reference(), REWRITE


def test_the_examples_on_the_page_are_read() -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        assert spec_from_text(example, Path("genwright.toml")).project.name == "minutes"


def test_the_error_on_the_page_is_the_error() -> None:
    page = PAGE.read_text(encoding="utf-8")
    example = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0]
    with pytest.raises(SpecError) as caught:
        spec_from_text(example + "[adapt]\nlearning_rat = 1e-3\n", Path("genwright.toml"))
    shown = re.findall(r"SpecError: genwright.toml:(\d+): (.*)", page)[0]
    assert caught.value.what.partition(": ")[2] == shown[1]
    assert f"do:     {caught.value.do}" in page
    assert caught.value.what.startswith(f"genwright.toml:{shown[0]}:")
