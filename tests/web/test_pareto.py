"""The plot of time against money: well-formed, placed by value, and said in words."""

from __future__ import annotations

from xml.etree import ElementTree

from genwright.web.pareto import pareto


def _one(hours: float, usd: float | None, within: bool = True) -> dict[str, object]:
    return {
        "hours": hours,
        "usd": usd,
        "count": 2,
        "device": "h<100>",
        "strategy": "ddp",
        "recipe": "ddp & more",
        "within_budget": within,
    }


def test_faster_stands_left_and_dearer_above_and_the_best_are_named() -> None:
    fast, cheap, worse = _one(1, 20), _one(10, 2), _one(11, 30, within=False)
    page = ElementTree.fromstring(pareto([fast, cheap, worse, _one(1, None)], [fast, cheap]))
    dots = [node for node in page.iter() if node.tag.endswith("circle")]
    best = [(float(node.attrib["cx"]), float(node.attrib["cy"])) for node in dots if node.attrib["class"] == "best"]
    assert best[0][0] < best[1][0] and best[0][1] < best[1][1]
    assert [node.attrib["class"] for node in dots].count("over") == 1 and len(dots) == 5
    assert "Time against money of 3 recipes" in page.attrib["aria-label"] and "2 x h<100>" in page.attrib["aria-label"]


def test_without_a_price_it_says_so() -> None:
    assert "No recipe has a price" in pareto([_one(1, None)], [])
