"""All-reduce: what every algorithm's schedule promises, and that departures do it no harm."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.algorithms import make
from core.collectives import ALGORITHMS, CHOICE, Choice, schedule_of
from core.collectives.schedules import ADD, FLUSH, SCALE, SEND, TAKE, Schedule
from core.collectives.trees import chunks_of, families, height
from core.node import Node
from tests.conformance import problem
from tests.conformance.scripted import Scripted

NBYTES = 96.0
MEMBERS = [2, 3, 4, 5, 6, 7, 8, 11, 13, 16]

algorithms = st.sampled_from(ALGORITHMS)
seeds = st.integers(0, 2**32 - 1)


def choice(algorithm: str, members: int, per_machine: int = 2, chunk: float = 16) -> Choice:
    return Choice(algorithm, tuple(rank // per_machine for rank in range(members)), chunk)


def schedule(algorithm: str, members: int, **options: Any) -> Schedule:
    return schedule_of(choice(algorithm, members, **options), tuple(range(members)), NBYTES)


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_steps_of_a_phase_move_as_much_between_the_same_members(algorithm: str, members: int) -> None:
    """What the closed forms rely on: they look at the first step of each phase only."""
    for lane in schedule(algorithm, members).lanes:
        for phase in lane:
            for place in range(members):
                moved = {
                    tuple((op.peer, op.stop - op.start) for op in phase.step(place, i) if op.kind == SEND)
                    for i in range(phase.count)
                }
                assert len(moved) <= 1


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_sent_is_awaited_in_that_order(algorithm: str, members: int) -> None:
    """Between two members, lane by lane: the parts sent are the parts awaited."""
    made = schedule(algorithm, members)
    sent, awaited = defaultdict(list), defaultdict(list)
    for place in range(members):
        for lane in range(len(made.lanes)):
            for op in made.ops(lane, place):
                if op.kind == SEND:
                    sent[place, op.peer, op.lane].append((op.start, op.stop))
                elif op.kind in (ADD, TAKE):
                    assert op.lane == lane
                    awaited[op.peer, place, lane].append((op.start, op.stop))
    assert sent == awaited


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_part_is_scaled_once_where_everybody_is_in_it(algorithm: str, members: int) -> None:
    made = schedule(algorithm, members)
    scaled = Counter(
        part
        for place in range(members)
        for lane in range(len(made.lanes))
        for op in made.ops(lane, place)
        if op.kind == SCALE
        for part in range(op.start, op.stop)
    )
    assert scaled == dict.fromkeys(range(made.grain), 1)


def sent_by(made: Schedule) -> list[float]:
    """Tensors that each member sends."""
    ops = [[op for lane in range(len(made.lanes)) for op in made.ops(lane, p)] for p in range(made.members)]
    return [sum(op.stop - op.start for op in own if op.kind == SEND) / made.grain for own in ops]


@pytest.mark.parametrize("members", MEMBERS)
def test_bytes_sent_are_the_theoretical_ones(members: int) -> None:
    """Ring and halving-doubling: 2 (n-1)/n; folded members 1, their partners 1 more; tree: its edges."""
    n = members
    assert sent_by(schedule("ring", n)) == pytest.approx([2 * (n - 1) / n] * n)
    power = 1 << (n.bit_length() - 1)
    halving = sent_by(schedule("halving_doubling", n))
    optimal, pairs = 2 * (power - 1) / power, n - power
    assert halving == pytest.approx([1, 1 + optimal] * pairs + [optimal] * (n - 2 * pairs))
    expected = np.zeros(n)
    for tree in families(n):
        expected += [(int(parent >= 0) + len(children)) / 2 for parent, children in tree]
    assert sent_by(schedule("tree", n)) == pytest.approx(expected)
    assert max(expected) <= 2
    grouped = sent_by(schedule("hierarchical", n, per_machine=2))
    machines = -(-n // 2)
    for place, sent in enumerate(grouped):
        beside = int(place % 2 == 0 and place + 1 < n)
        ring = 2 * (machines - 1) / machines
        assert sent == pytest.approx(1 if place % 2 else ring + beside)


@pytest.mark.parametrize("members", range(2, 70))
def test_the_two_trees_span_and_complement_each_other(members: int) -> None:
    for tree in families(members):
        assert sum(parent < 0 for parent, _ in tree) == 1
        assert all(tree[child].parent == place for place in range(members) for child in tree[place].children)
        assert height(tree) <= np.ceil(np.log2(members))
        above = {place for place in range(members) if tree[place].parent >= 0}
        assert {child for _, children in tree for child in children} == above
        assert all(len(children) <= 2 for _, children in tree)
    both = [place for place in range(members) if all(tree[place].children for tree in families(members))]
    assert len(both) <= (2 if members % 2 else 0) + 1


def test_chunks() -> None:
    assert chunks_of(10e6, 1e6) == 5
    assert chunks_of(10e6 + 4, 1e6) == 6
    assert chunks_of(0, 1e6) == 1


def test_a_step_of_halving_is_over_when_its_send_is() -> None:
    ops = list(schedule("halving_doubling", 4).ops(0, 0))
    assert [op.kind for op in ops].count(FLUSH) == [op.kind for op in ops].count(SEND) == 4


def run(
    algorithm: str, seed: int, workers: int, steps: int = 8, name: str = "arsgd",
    crashes: dict[int, int] | None = None, options: dict[str, Any] | None = None, per_machine: int = 2,
    **knobs: Any,
) -> tuple[list[Node], Scripted]:  # fmt: skip
    nodes = problem.build(workers, 0)
    for node in nodes:
        node.memory[CHOICE] = choice(algorithm, workers, per_machine)
    rng = np.random.default_rng(seed)
    driver = Scripted(
        make(name, options or {}), nodes, problem.gradient, steps, lambda count: int(rng.integers(count)),
        **knobs,
    )  # fmt: skip
    driver.run(crashes)
    return nodes, driver


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(seed=seeds, workers=st.integers(1, 9), per_machine=st.integers(1, 4), inbox=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_the_mean_everywhere_bit_for_bit(
    algorithm: str, seed: int, workers: int, per_machine: int, inbox: int
) -> None:
    nodes, _ = run(algorithm, seed, workers, 4, per_machine=per_machine, inbox=inbox)
    expected = problem.large_batch(workers, 4, problem.schedule_of(workers))
    for node in nodes:
        np.testing.assert_allclose(node.params, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(node.params, nodes[0].params)
        assert not any(node.memory["allreduce"].early.values())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(seed=seeds, workers=st.integers(2, 6))
@settings(max_examples=10, deadline=None)
def test_the_schedule_of_deliveries_does_not_change_a_bit(algorithm: str, seed: int, workers: int) -> None:
    one, other = run(algorithm, seed, workers, 3)[0], run(algorithm, 1, workers, 3)[0]
    np.testing.assert_array_equal(one[0].params, other[0].params)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(seed=seeds, data=st.data())
@settings(max_examples=30, deadline=None)
def test_replicas_agree_after_a_crash(algorithm: str, seed: int, data: st.DataObject) -> None:
    """A crash well before the end: the survivors' replicas end bit-identical."""
    workers = data.draw(st.integers(3, 7))
    victim = data.draw(st.integers(0, workers - 1))
    turn = data.draw(st.integers(0, 120))
    inbox = data.draw(st.integers(1, 3))
    nodes, driver = run(algorithm, seed, workers, 12, crashes={turn: victim}, inbox=inbox)
    survivors = [n for n in nodes if n.id != victim]
    assert driver.crashed == {victim}
    for node in survivors:
        assert node.step == 12
        np.testing.assert_array_equal(node.params, survivors[0].params)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(seed=seeds, data=st.data())
@settings(max_examples=30, deadline=None)
def test_survivors_finish_whoever_dies(algorithm: str, seed: int, data: st.DataObject) -> None:
    workers = data.draw(st.integers(2, 7))
    victims = data.draw(st.lists(st.integers(0, workers - 1), max_size=workers - 1, unique=True))
    crashes = {data.draw(st.integers(0, 600)): victim for victim in victims}
    nodes, driver = run(algorithm, seed, workers, crashes=crashes, inbox=data.draw(st.integers(1, 3)))
    assert all(node.step == 8 for node in nodes if node.id not in driver.crashed)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(seed=seeds, budgets=st.lists(st.integers(0, 6), min_size=2, max_size=6))
@settings(max_examples=25, deadline=None)
def test_uneven_budgets_do_not_block_the_rest(algorithm: str, seed: int, budgets: list[int]) -> None:
    nodes, _ = run(algorithm, seed, len(budgets), dict(enumerate(budgets)))  # type: ignore[arg-type]
    assert [node.step for node in nodes] == budgets
