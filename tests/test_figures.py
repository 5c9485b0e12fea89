"""Drawing that is shared: cells with their numbers, styles of settings, files of a figure."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from sepsis_rl.callbacks.dose_images import draw_dose_grid
from sepsis_rl.figures import (
    heat_map,
    label_axes,
    picture,
    reference_lines,
    setting_style,
    setting_styles,
)
from sepsis_rl.mdp import DoseGrid


def test_cells_have_their_numbers():
    axes = Figure().subplots()
    values = np.array([[1.0, np.nan, 3.0], [4.0, 0.4, 9.0]])
    image = heat_map(
        axes, values, written_from=0.5, digits=0, rows=["a", "b"], columns=["x", "y", "z"]
    )
    assert image.get_clim() == (0, 9)
    np.testing.assert_array_equal(image.get_array().filled(np.nan), values)
    cells = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    # NaN and what is below the limit stay empty; dark cells have light numbers.
    assert cells == {
        (0, 0): ("1", "white"),
        (2, 0): ("3", "white"),
        (0, 1): ("4", "white"),
        (2, 1): ("9", "black"),
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y", "z"]
    assert heat_map(axes, values, limits=(1, 5)).get_clim() == (1, 5)  # those of all panels


def test_doses_given_by_a_policy():
    visits = np.zeros((3, 6))
    visits[0, 1], visits[2, 3] = 3.0, 1.0
    axes = draw_dose_grid(visits, DoseGrid(2, 3), "a policy").axes[0]
    # Action 1 is vasopressor level 1 without fluid; action 3 is IV-fluid level 1.
    np.testing.assert_allclose(axes.images[0].get_array(), [[0, 75, 0], [25, 0, 0]])
    assert axes.images[0].origin == "lower"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("vasopressor level", "IV-fluid level")


def test_settings_are_told_apart():
    for name in ("BC", "DQN, 20 steps", "CQL α=0.5, 20 steps", "optimum"):
        assert setting_style(name).keys() == {"color", "marker", "linestyle"}
    assert setting_styles(["CQL α=0.5", "BC"])["CQL α=0.5"] == setting_style("CQL α=0.5")
    styles = setting_styles(["BC", "CQL α=0.5", "CQL α=1"])
    assert len({style["color"] for style in styles.values()}) == 3
    assert len({style["marker"] for style in styles.values()}) >= 2


@pytest.mark.parametrize(
    ("shown", "lines", "texts"),
    [
        ([78.5, 84.0], [78, 87.5], []),
        ([78.5, 79.0], [78], ["↑ optimum 87.5 %"]),  # the optimum would squeeze a point
        ([], [78], ["↑ optimum 87.5 %"]),
    ],
)
def test_reference_lines(shown, lines, texts):
    axes = Figure().subplots()
    reference_lines(axes, {"random": 0.78, "optimum": 0.875}, shown)
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx(lines)
    assert [text.get_text() for text in axes.texts] == texts
    low, high = axes.get_ylim()
    assert low < min(78, *lines)
    assert max([78, *shown, *lines]) < high
    assert high - low < 2 * (max([*shown, 79]) - 78) + 1


def test_numbers_at_axes_have_thousands_separators():
    axes = Figure().subplots()
    axes.plot([0, 1], [0, 700_000])
    label_axes(axes)
    written = [label.get_text() for label in axes.get_yticklabels()]
    assert {"0", "200,000", "600,000"} <= set(written)
    axes.set_ylim(78.1, 78.2)
    assert "78.12" in [label.get_text() for label in axes.get_yticklabels()]


def test_the_same_figure_makes_the_same_files():
    def draw():
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1])
        return picture(figure, "name")

    files = draw()
    assert files == draw()
    assert files.keys() == {"name.png", "name.svg"}
    assert files["name.png"].startswith(b"\x89PNG")
    assert files["name.svg"].rstrip().endswith(b"</svg>")
