"""Rates and ends of flows against linear programs: slow, and right by the definition of max-min fairness."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from sim.clock import Clock
from sim.fluid import Fluid, Link
from sim.maxmin import Solver
from tests.sim.test_fluid import Plain, fast_ends

Flows = list[tuple[float, tuple[int, ...], float]]


def lexicographic(paths: list[tuple[int, ...]], capacities: list[float]) -> list[float]:
    """Max-min fair rates: raise the smallest rate as far as it goes, fix who cannot go further, repeat.

    Each round is a linear program in the free flows' rates and their common lower bound t; who is stuck
    at t is found with one more program for each free flow: can it alone have more, the others t at least?
    """
    crossing = np.array([[float(link in path) for path in paths] for link in range(len(capacities))])
    scale = max(capacities)
    rates = np.full(len(paths), -1.0)
    while (rates < 0).any():
        free = np.flatnonzero(rates < 0)
        fixed = np.flatnonzero(rates >= 0)
        room = np.maximum(np.array(capacities) - crossing[:, fixed] @ rates[fixed], 0.0) / scale
        on = crossing[:, free]
        used = on.any(axis=1)
        # all free flows at t: t = min room / count is the program's optimum by inspection; let it say so
        program = np.hstack([on[used], np.zeros((used.sum(), 1))])
        floor = np.hstack([-np.eye(len(free)), np.ones((len(free), 1))])
        goal = np.zeros(len(free) + 1)
        goal[-1] = -1.0
        best = linprog(
            goal,
            np.vstack([program, floor]),
            np.concatenate([room[used], np.zeros(len(free))]),
            method="highs",
        )
        assert best.status == 0
        level = best.x[-1]
        stuck = []
        for i in range(len(free)):
            alone = np.zeros(len(free))
            alone[i] = -1.0
            more = linprog(alone, on[used], room[used], bounds=[(level * (1 - 1e-10), None)] * len(free))
            assert more.status == 0
            if more.x[i] <= level * (1 + 1e-7):
                stuck.append(free[i])
        assert stuck
        rates[stuck] = level * scale
    return [float(rate) for rate in rates]


def two_levels(draw: random.Random) -> tuple[list[tuple[int, ...]], list[float]]:
    """Machines with a NIC (up, down) in racks with up-links (up, down); flows between any two machines."""
    racks, per = draw.randint(2, 4), draw.randint(1, 4)
    machines = racks * per
    nics = [draw.choice([1.0, 1.0, 2.5, 10.0]) for _ in range(2 * machines)]
    ups = [draw.choice([0.5, 1.0, 2.0, 3.7]) * per for _ in range(2 * racks)]
    paths = []
    for _ in range(draw.randint(2, 14)):
        a, b = draw.sample(range(machines), 2)
        through = () if a // per == b // per else (2 * machines + a // per, 2 * machines + racks + b // per)
        paths.append((a, *through, machines + b))
    return paths, nics + ups


@pytest.mark.parametrize("seed", range(25))
def test_rates_are_those_of_linear_programs(seed: int) -> None:
    paths, capacities = two_levels(random.Random(seed))
    clock = Clock()
    fluid = Fluid(clock)
    links = [Link(fluid, capacity) for capacity in capacities]
    flows = [Plain(clock, tuple(links[i] for i in path), 1.0) for path in paths]
    for flow in flows:
        fluid.start(flow, 1.0)
    fluid.solve()
    rates = [flow.hub.level for flow in flows]
    assert rates == pytest.approx(lexicographic(paths, capacities), rel=1e-8)  # the programs' own tolerance
    assert rates == pytest.approx(plain_rates(paths, capacities), rel=1e-12)


def plain_rates(paths: list[tuple[int, ...]], capacities: list[float]) -> list[float]:
    """Progressive filling by its definition: find the tightest link, fix its flows, take them away."""
    rates = dict.fromkeys(range(len(paths)), 0.0)
    left, free = dict(enumerate(capacities)), set(rates)
    while free:
        shares = {}
        for link, capacity in left.items():
            count = sum(link in paths[i] for i in free)
            if count:
                shares[link] = capacity / count
        tightest = min(shares, key=lambda link: shares[link])
        for i in [i for i in free if tightest in paths[i]]:
            rates[i] = shares[tightest]
            free.discard(i)
            for link in paths[i]:
                left[link] = max(left[link] - shares[tightest], 0.0)
    return [rates[i] for i in range(len(paths))]


def plain_ends(flows: Flows, capacities: list[float]) -> list[float]:
    """Ends of the flows, all rates anew at every start and end."""
    left = [nbytes for _, _, nbytes in flows]
    ends = [-1.0] * len(flows)
    now = 0.0
    while min(ends) < 0:
        moving = [i for i, flow in enumerate(flows) if flow[0] <= now and ends[i] < 0]
        rates = plain_rates([flows[i][1] for i in moving], capacities)
        due = {i: now + left[i] / rate for i, rate in zip(moving, rates, strict=True)}
        until = min([*due.values(), *(start for start, _, _ in flows if start > now)])
        for i, rate in zip(moving, rates, strict=True):
            left[i] -= rate * (until - now)
            if due[i] <= until * (1 + 1e-13):
                ends[i] = until
        now = until
    return ends


@pytest.mark.parametrize("seed", range(60))
def test_ends_in_racks_are_those_of_plain_filling(seed: int) -> None:
    """Flows come and go over shared up-links, so bottlenecks move; every end to 1e-9."""
    draw = random.Random(1000 + seed)
    flows: Flows = []
    paths, capacities = two_levels(draw)
    for _ in range(3):
        at = draw.uniform(0, 6)
        for path in paths:
            start = draw.choice([0.0, at, draw.uniform(0, 8)])
            flows.append((start, path, draw.choice([1.0, 2.0, draw.uniform(0.01, 9)])))
    assert fast_ends(flows, capacities) == pytest.approx(plain_ends(flows, capacities), rel=1e-9)


def test_ends_in_racks_take_the_short_way_and_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would hold less than it says."""
    short = settled = moved = 0
    drop, settle, move = Link._drop, Solver.settle, Solver._move

    def counted_drop(*args: Any) -> None:
        nonlocal short
        short += 1
        drop(*args)

    def counted_settle(*args: Any) -> None:
        nonlocal settled
        settled += 1
        settle(*args)

    def counted_move(solver: Solver, flow: Plain, to: Link) -> None:
        nonlocal moved
        moved += flow.hub is not solver._free
        move(solver, flow, to)

    monkeypatch.setattr(Link, "_drop", counted_drop)
    monkeypatch.setattr(Solver, "settle", counted_settle)
    monkeypatch.setattr(Solver, "_move", counted_move)
    for seed in range(10):
        draw = random.Random(seed)
        paths, capacities = two_levels(draw)
        fast_ends([(draw.uniform(0, 3), path, 1.0) for path in paths * 2], capacities)
    assert min(short, settled, moved) > 20
