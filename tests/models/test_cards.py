"""Cards of the hub are sorted by their headings; ours say what was recorded, and read back."""

from __future__ import annotations

import pytest

from genwright.base.errors import ModelError
from genwright.models.cards import Card, read_card

HUB = """---
license: apache-2.0
language:
- en
base_model: owner/base
---

# My model

Two sentences about it.

## Uses

### Direct Use

Chat.

```python
# Evaluation of nothing: a comment, not a heading
print("hi")
```

### Out-of-Scope Use

Medicine.

## Bias, Risks, and Limitations

It is biased.

## Training Details

### Training Data

Books.

### Preprocessing [optional]

Lower case.

## Evaluation

| task | score |
|---|---|
| x | 1 |

### Testing Data

A held-out set.
"""


def test_a_hub_readme_is_sorted_into_its_parts() -> None:
    card = read_card(HUB)
    assert card.metadata == {"license": "apache-2.0", "language": ["en"], "base_model": "owner/base"}
    assert card.details == "**My model**\n\nTwo sentences about it."
    assert card.uses.startswith("**Direct Use**\n\nChat.") and "# Evaluation of nothing" in card.uses
    assert (
        card.bias_risks_limitations
        == "**Out-of-Scope Use**\n\nMedicine.\n\n**Bias, Risks, and Limitations**\n\nIt is biased."
    )
    assert (
        card.training
        == "**Training Data**\n\nBooks.\n\n**Preprocessing [optional]**\n\nLower case.\n\n**Testing Data**\n\nA held-out set."
    )
    assert card.evaluation == "**Evaluation**\n\n| task | score |\n|---|---|\n| x | 1 |"


def test_a_heading_that_says_nothing_stays_with_the_one_above() -> None:
    card = read_card("## Limitations\n### Hallucination\nIt invents.\n## Citation\nPaper.")
    assert card.bias_risks_limitations == "**Hallucination**\n\nIt invents."
    assert card.details == "**Citation**\n\nPaper."


def test_a_card_without_headings_or_yaml() -> None:
    assert read_card("Only text.") == Card(details="Only text.")
    assert read_card("") == Card()
    assert read_card("---\n---\nText.") == Card(details="Text.")
    assert read_card("---\n- a list\n---\n").metadata == {}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("a: [", "is broken"),
        ("a: !!python/object/apply:os.system ['true']", "is broken"),
        ("a: &x [1]\nb: [*x, *x]", "is built of references"),
        ("a: " + "x" * 300_000, "is too long"),
        ("a: " + "[" * 100_000, "is broken"),
    ],
)
def test_a_yaml_block_that_is_broken_or_hostile(block: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_card(f"---\n{block}\n---\n")
