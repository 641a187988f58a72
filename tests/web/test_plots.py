import re

import pytest

from genwright.web.plots import curves, difference_track, interval_track, ratio_track, running_mean, ticks


@pytest.mark.parametrize(
    ("low", "high", "wanted", "expected"),
    [
        (0.3, 2.2, 5, [0, 0.5, 1, 1.5, 2, 2.5]),
        (0, 240, 6, [0, 50, 100, 150, 200, 250]),
        (0, 1, 6, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, wanted: int, expected: list[float]) -> None:
    assert ticks(low, high, wanted) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(3.0, 3.0), (0.0, 0.0), (-2.5, -2.5)])
def test_ticks_of_a_single_value_are_still_a_range(low: float, high: float) -> None:
    made = ticks(low, high, 5)
    assert made[0] <= low <= made[-1] and made[0] < made[-1]


def test_running_mean_of_a_straight_line_is_the_line() -> None:
    line = [(float(x), 2.0 * x) for x in range(100)]
    inner = running_mean(line)[10:-10]
    assert [y for _, y in inner] == pytest.approx([y for _, y in line[10:-10]])


def positions(svg: str, name: str) -> list[float]:
    return [float(value) for value in re.findall(rf'{name}="([-\d.]+)%"', svg)]


def test_interval_track_places_value_interval_and_target() -> None:
    svg = interval_track(50, 40, 60, span=(0, 100), mark=35)
    assert positions(svg, "cx") == [50.0]
    assert {40.0, 60.0, 35.0} <= set(positions(svg, "x1"))
    assert "95 % interval 40.0 to 60.0" in svg


def test_what_lies_outside_is_drawn_at_the_edge() -> None:
    assert positions(interval_track(120, -5, 130, span=(0, 100)), "cx") == [100.0]


def test_a_perfect_plan_is_drawn_in_the_middle_and_twice_at_the_end() -> None:
    assert positions(ratio_track(1.0, 0.8, 1.25, within=True), "cx") == [50.0]
    assert positions(ratio_track(2.0, 0.8, 1.25, within=False), "cx") == [100.0]
    assert 'class="outside"' in ratio_track(2.0, 0.8, 1.25, within=False)


def test_no_difference_is_drawn_at_zero() -> None:
    assert positions(difference_track(0, -1, 1, reach=10, better=False), "cx") == [50.0]


def test_curves_put_the_highest_loss_on_top_and_skip_what_is_not_a_number() -> None:
    drawn = curves(
        [("a", [(0.0, 0.0), (5.0, float("nan")), (10.0, 1.0)])], x_title="step", y_title="loss", label="words"
    )
    points = re.search(r'points="([^"]+)"', drawn)
    assert points is not None and points[1] == "0.00,100.00 100.00,0.00"
    assert 'aria-label="words"' in drawn
