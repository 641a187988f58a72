"""Values and annotations: what fits, and how type, bounds and value are said."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwright.project.values import Bounds, MismatchError, fit, plain, toml, words

TOML_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("value", "annotation", "wanted"),
    [
        (1, "float", 1.0),
        (1, "int", 1),
        (True, "bool", True),
        ("a", "str", "a"),
        (["a", "b"], "tuple[str, ...]", ("a", "b")),
        ([], "tuple[str, ...]", ()),
        (2.5, "float | None", 2.5),
        ("auto", "Literal['auto'] | int", "auto"),
        (7, "Literal['auto'] | int", 7),
        ("none", "Literal['none']", "none"),
    ],
)
def test_what_fits(value: object, annotation: str, wanted: object) -> None:
    made = fit(value, annotation)
    assert made == wanted
    assert type(made) is type(wanted)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (True, "int"),
        (True, "float"),
        (1.0, "int"),
        (1, "bool"),
        (1, "str"),
        (float("nan"), "float"),
        (float("inf"), "float"),
        ("a", "tuple[str, ...]"),
        (["a", 1], "tuple[str, ...]"),
        ("often", "Literal['auto'] | int"),
        (True, "Literal['auto'] | int"),
        ({}, "str"),
    ],
)
def test_what_does_not_fit(value: object, annotation: str) -> None:
    with pytest.raises(MismatchError):
        fit(value, annotation)


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ("float | None", "number"),
        ("tuple[str, ...]", "list of texts"),
        ("Literal['a', 'b']", 'one of "a", "b"'),
        ("Literal['auto'] | int", '"auto", or whole number'),
        ("dict[str, str]", "table of texts"),
        ("bool", "true or false"),
    ],
)
def test_types_in_words(annotation: str, said: str) -> None:
    assert words(annotation) == said


def test_a_type_no_file_can_have_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match=r"no project file can have: set\[int\]"):
        words("set[int]")


def test_bounds() -> None:
    assert [Bounds(0).hold(number) for number in (-1, 0, 1)] == [False, True, True]
    assert [Bounds(0, above=True).hold(number) for number in (0, 0.1)] == [False, True]
    assert [Bounds(0, 0.5).hold(number) for number in (-0.1, 0, 0.5, 0.6)] == [False, True, True, False]
    assert [str(Bounds(1)), str(Bounds(0, above=True)), str(Bounds(0, 0.5))] == [
        "1 or more",
        "above 0",
        "from 0 to 0.5",
    ]


@given(TOML_VALUES)
def test_a_printed_value_is_toml_for_the_same_value(value: object) -> None:
    assert tomllib.loads(f"x = {toml(value)}")["x"] == value


def test_plain_values() -> None:
    assert plain({"a": (1, (2,))}) == {"a": [1, [2]]}
    assert toml({"a": "b"}) == '{ a = "b" }'
    assert toml({}) == "{}"
