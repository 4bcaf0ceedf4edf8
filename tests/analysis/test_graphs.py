"""Pictures of mixing matrices: what is in them, read off the figure."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from analysis import graphs
from core import mixing
from core.mixing import Matrix
from core.topology import GRAPHS, graph, schedule


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_no_two_nodes_lie_on_each_other(name: str, n: int) -> None:
    places = graphs.positions(n, name)
    assert places.shape == (n, 2)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(n)
    assert apart.min() > 0.1
    assert np.abs(places).max() <= 1.0 + 1e-9


def test_a_server_stands_in_the_middle() -> None:
    assert np.allclose(graphs.positions(5, centre=True)[5], 0)
    assert np.allclose(graphs.positions(6, "star")[0], 0)


def test_the_spectrum_shows_every_eigenvalue() -> None:
    W = mixing.metropolis(graph("ring", 8))
    spectrum = graphs.draw([W], "D-PSGD").axes[1]
    drawn = np.asarray(spectrum.collections[-1].get_offsets())[:, 1]
    assert np.allclose(drawn, np.sort(np.linalg.eigvalsh(W))[::-1])
    assert "ζ = 0.8047" in spectrum.get_title(loc="left")


def test_complex_eigenvalues_are_drawn_in_the_unit_disc() -> None:
    peers = schedule("one_peer_exponential", 6)
    period = [mixing.push_sum(peers, step) for step in range(peers.period)]
    plane = graphs.draw(period, "SGP").axes[1]
    drawn = np.asarray(plane.collections[-1].get_offsets())
    assert len(drawn) == 6
    assert np.linalg.norm(drawn, axis=1).max() == pytest.approx(1)
    assert plane.get_ylabel() == "imaginary part"


@pytest.mark.parametrize(
    ("matrices", "squared"),
    [
        ([mixing.metropolis(graph("ring", 8))], False),
        ([mixing.identity(4), mixing.aladdin(4, 0.5)], False),
        ([mixing.pairwise_expected(graph("ring", 8))], True),
        ([mixing.push_sum(schedule("star", 5), 0)], False),
    ],
)
def test_the_curve_crosses_a_tenth_at_the_marked_step(matrices: list[Matrix], squared: bool) -> None:
    decay = graphs.draw(matrices, "", squared=squared).axes[2]
    curve, _, mark = decay.lines
    steps, left = curve.get_data()
    marked = mark.get_xdata()[0]
    assert marked == mixing.steps_to_shrink(matrices, 100 if squared else 10)
    assert np.interp(marked, steps, left) <= 0.1 + 1e-9
    assert np.interp(marked - 1, steps, left) > 0.1 or np.diff(steps).max() > 1
    assert left[0] == pytest.approx(1)


def test_what_never_mixes_has_no_mark() -> None:
    assert len(graphs.draw([mixing.identity(4)], "").axes[2].lines) == 2


def test_edges_that_change_from_step_to_step_have_a_key() -> None:
    peers = schedule("one_peer_exponential", 8)
    figure = graphs.draw([mixing.push_sum(peers, step) for step in range(3)], "SGP")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["step 0", "step 1", "step 2"]
    assert len(figure.axes[0].texts) == 8 + 3 * 8
    assert graphs.draw([mixing.average(4)], "").axes[0].get_legend() is None
