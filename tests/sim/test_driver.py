"""The driver: effects, budgets, where time goes, departures, crashes, deadlocks, determinism."""

from __future__ import annotations

import hashlib
from math import inf
from typing import Any

import numpy as np
import pytest

import sim
from core.effects import AllReduce, Compute, Flush, Now, Poll, Receive, Send, TrySend
from core.node import GRADIENT, LEFT, MODEL, Finished, Left, Node, Program
from core.record import PARTS, Record
from core.tensors import Phantom
from scenarios.plan import plan
from sim.driver import Driver
from sim.errors import Deadlock
from tests.sim.programs import Programs, driver, message, parts, scenario, steps

ALGORITHMS = ["bsp", "asp", "aladdin", "aladdin_l1", "aladdin_l2", "arsgd"]


def digest(record: Record) -> str:
    """Hash of all tables."""
    found = hashlib.sha256()
    for name, table in record.tables().items():
        for column, values in table.items():
            found.update(f"{name}.{column}".encode())
            found.update(values.astype("U").tobytes() if values.dtype.kind == "U" else values.tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("admission", ["fifo", 2, "fair"])
@pytest.mark.parametrize("placement", ["dedicated", "beside"])
def test_every_second_is_booked_and_no_gradient_is_lost(
    algorithm: str, admission: str | int, placement: str
) -> None:
    chosen = scenario(
        5, 6, algorithm, latency=0.01, machines=3, network={"admission": admission, "overhead": 0.002},
        servers={"count": 3, "placement": placement}, compute={"model": "gamma", "mean": 1.0, "spread": 0.4},
        tensor_seconds={"accumulate": 0.01, "apply": 0.03, "mix": 0.02}, tensor_rates={"snapshot": 2e10},
    )  # fmt: skip
    record = sim.simulate(chosen)
    total = sum(record.nodes[part] for part in PARTS)
    assert total == pytest.approx(np.full(len(total), record.duration), rel=1e-9)
    rows = record.steps
    assert sum(rows[part] for part in PARTS[:-1]) == pytest.approx(rows["end"] - rows["start"], abs=1e-9)
    for rank in range(5):
        own = rows["node"] == rank
        assert rows["step"][own].tolist() == list(range(6))
        assert rows["start"][own][1:].tolist() == rows["end"][own][:-1].tolist()
    workers = record.nodes["role"] == "worker"
    if (~workers).any():
        done = record.nodes["applied"] + record.nodes["pending"] + record.nodes["lost"]
        assert done[workers].tolist() == [6] * 5
        assert record.nodes["lost"].tolist() == [0] * len(workers)
        assert (record.nodes["applied"] + record.nodes["pending"])[~workers].tolist() == [30] * 3
    assert record.nodes["bytes_out"].sum() == pytest.approx(record.nodes["bytes_in"].sum())


@pytest.mark.parametrize("admission", ["fifo", 2, "fair"])
def test_while_latency_and_overhead_last_nothing_moves_and_who_is_blocked_waits(admission: str | int) -> None:
    """A second of compute, then 0.01 s, 0.25 s and a second of bytes each way."""
    network = {"admission": admission, "overhead": 0.25}
    record = sim.simulate(scenario(1, 1, "asp", latency=0.01, network=network))
    assert parts(record, 0) == pytest.approx(booked(compute=1, send=1, receive=1, wait=0.52))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_seed_gives_the_same_bytes(algorithm: str) -> None:
    def run(seed: int) -> str:
        chosen = scenario(
            4, 5, algorithm, compute={"model": "lognormal", "mean": 1.0, "spread": 0.3}, latency=0.001
        )
        return digest(sim.simulate(chosen.override({"run.seed": seed, "run.spans": True})))

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_spans_cover_every_workers_time() -> None:
    record = sim.simulate(
        scenario(3, 4, "asp", latency=0.01, tensor_seconds={"apply": 0.1}).override({"run.spans": True})
    )
    spans = record.spans
    lasted = spans["end"] - spans["start"]
    for node in range(4):
        for i, part in enumerate(PARTS[:-1]):
            own = lasted[(spans["node"] == node) & (spans["kind"] == i)].sum()
            assert own == pytest.approx(record.nodes[part][node], abs=1e-9)
    assert lasted[spans["kind"] == len(PARTS)].sum() == pytest.approx(2 * 3 * 4)


# Booking


def booked(**seconds: float) -> dict[str, float]:
    """Parts as named, all else nothing."""
    return {part: seconds.get(part, 0.0) for part in PARTS}


def test_a_blocked_receiver_books_latency_as_wait_and_bytes_as_receive() -> None:
    def worker(node: Node) -> Program:
        if node.id == 0:
            yield Send((1, message("x", 2.0)))
        else:
            yield Receive("x")

    record = driver(scenario(2, latency=0.5), Programs(worker)).run()
    assert parts(record, 1) == pytest.approx(booked(wait=0.5, receive=2))


def test_bytes_that_are_not_awaited_are_no_receive() -> None:
    def worker(node: Node) -> Program:
        if node.id == 0:
            yield Send((2, message("other", 2.0)))
        elif node.id == 1:
            yield Send((2, message("x", 1.0)))
        else:
            yield Receive("x")

    record = driver(scenario(3), Programs(worker)).run()
    assert parts(record, 2) == pytest.approx(booked(wait=2, receive=1))


def test_own_bytes_that_move_are_send_only_while_nothing_awaited_moves() -> None:
    def worker(node: Node) -> Program:
        if node.id == 0:
            yield Send((1, message("request", 3.0)))
            yield Receive("reply")
        else:
            yield Compute()
            yield Send((0, message("reply", 1.0)))

    record = driver(scenario(2), Programs(worker)).run()
    assert parts(record, 0) == pytest.approx(booked(send=1, receive=1))


def test_transfers_that_nobody_waits_for_cost_no_time() -> None:
    def worker(node: Node) -> Program:
        yield Send((1 - node.id, message("x", 0.5)))
        yield Compute()

    record = driver(scenario(2), Programs(worker)).run()
    assert parts(record, 0) == pytest.approx(booked(compute=1))
    assert record.links["bytes"][:4].tolist() == [5e8] * 4


def test_tensor_work_is_paid_before_the_next_effect() -> None:
    times = []

    def worker(node: Node) -> Program:
        node.tensors.accumulate(Phantom(10), Phantom(10))
        times.append((yield Now()))
        node.tensors.apply(Phantom(250_000_000), Phantom(1), 0.1)
        times.append((yield Now()))
        node.tensors.accumulate(Phantom(1), Phantom(1))

    made = driver(
        scenario(1, tensor_seconds={"accumulate": 2.0, "apply": 0.5}, tensor_rates={"apply": 1e9}),
        Programs(worker),
    )
    record = made.run()
    assert times == [2.0, 3.5]
    assert parts(record, 0)["update"] == pytest.approx(5.5)
    assert record.duration == pytest.approx(5.5)


# Windows and inboxes


def test_try_send_takes_all_or_none_and_send_waits_for_room() -> None:
    log: list[Any] = []

    def worker(node: Node) -> Program:
        if node.id:
            return
        log.append((yield TrySend((1, message("a", 1.0)))))
        log.append((yield TrySend((2, message("b", 1.0)), (1, message("b", 1.0)))))
        yield Send((1, message("c", 1.0)))
        log.append((yield Now()))
        yield Send((1, message("d", 1.0)), window=inf)
        log.append((yield Now()))
        yield Flush(1)
        log.append((yield Now()))
        yield Flush(1, 2)

    record = driver(scenario(3), Programs(worker)).run()
    assert log == [True, False, 1.0, 1.0, 3.0]
    assert record.nodes["messages_in"].tolist() == [0, 3, 0]


def test_receive_selects_by_tag_source_and_step() -> None:
    got: list[tuple[str, int, int]] = []

    def worker(node: Node) -> Program:
        if node.id == 0:
            for step in (1, 2):
                yield Send((2, message("a", 0.1, step)), window=inf)
        elif node.id == 1:
            yield Send((2, message("b", 0.1, 7)), window=inf)
            yield Send((2, message("a", 0.1, 1)), window=inf)
        else:
            yield Compute()
            for want in (
                Receive("a", step=2),
                Receive("a", source=1),
                Receive(("b", "a")),
                Receive(("b", "a")),
            ):
                found = yield want
                got.append((found.tag, found.source, found.step))
            assert (yield Poll("a")) is None

    driver(scenario(3), Programs(worker)).run()
    assert got == [("a", 0, 2), ("a", 1, 1), ("a", 0, 1), ("b", 1, 7)]


def test_a_companion_shares_the_node_and_is_closed_at_the_end() -> None:
    heard: list[float] = []
    closed: list[int] = []

    def companion(node: Node) -> Program:
        try:
            while True:
                yield Receive("ping")
                heard.append((yield Now()))
        finally:
            closed.append(node.id)

    def worker(node: Node) -> Program:
        yield Compute()
        if node.id == 0:
            yield Send((1, message("ping", 1.0)))

    record = driver(scenario(2), Programs(worker, companions=lambda node: [companion(node)])).run()
    assert heard == [2.0]
    assert sorted(closed) == [0, 1]
    assert parts(record, 1)["receive"] == 0.0


@pytest.mark.parametrize("compute", ["native", "paced"])
def test_what_a_companion_may_change_is_copied_before_a_native_step_of_an_emulated_cluster(
    compute: str,
) -> None:
    def companion(node: Node) -> Program:
        yield Receive("never")

    slow = [{"ranks": [0], "factor": 2}]
    cluster = {"host": {"cores": 4}, "tensor_rates": {"snapshot": 1e9}, "slowdowns": slow}
    made = scenario(2, **cluster).override({"run.compute": compute})
    only_one = Programs(steps, companions=lambda node: [companion(node)][node.id :])
    record = driver(made, only_one).run()
    copied = 3 * 1.0 if compute == "native" else 0.0  # three steps, 1 GB each, which no slow-down stretches
    assert parts(record, 0) == pytest.approx({**parts(record, 0), "compute": 6.0 + copied, "update": 0.0})
    assert parts(record, 1)["compute"] == 3.0


def test_a_step_after_a_pause_takes_longer_in_proportion_to_it() -> None:
    """Worker 0 never pauses; 1 is slowed down; 2 waits a second for a message before its second step."""

    def worker(node: Node) -> Program:
        yield Compute()
        if node.id == 2:
            yield Receive("ping")
        yield Compute()
        if node.id == 0:
            yield Send((2, message("ping", 0.0)))

    slow = [{"ranks": [1], "factor": 2}]
    host = {"cores": 4, "cold": 0.4, "pause": 2.0}
    made = scenario(3, host=host, slowdowns=slow).override({"run.compute": "native"})
    record = driver(made, Programs(worker)).run()
    assert parts(record, 0)["compute"] == 2.0
    assert parts(record, 1)["compute"] == pytest.approx(2 * (1.0 + 1.2)), "half of the pause"
    assert parts(record, 2) == pytest.approx({**parts(record, 2), "compute": 2.2, "wait": 1.0})


@pytest.mark.parametrize("window", [1, 5])
def test_programs_pay_for_each_message_that_they_send_or_take(window: int) -> None:
    """Two to 1 and one offered; 1 waits for them, and looks. What is refused or not there costs nothing."""

    def worker(node: Node) -> Program:
        yield Compute()
        if node.id:
            yield Receive("ping")
            yield Poll("pong")
            yield Flush(0)
            yield Receive("ping")
            yield Compute()
            yield Compute()
            yield Poll("ping")
            return
        yield Send((1, message("ping", 1.0)), (1, message("ping", 1.0)), window=inf)
        yield TrySend((1, message("ping", 1.0)))
        yield Compute()

    def run(**host: float) -> Record:
        made = scenario(2, 9, host={"cores": 4, **host}, network={"window": window, "inbox": 9})
        return driver(made, Programs(worker)).run()

    record = run(message=0.125)
    offered = window > 2
    assert parts(record, 0)["update"] == pytest.approx((2 + offered) * 0.125)
    assert parts(record, 1)["update"] == pytest.approx((2 + offered) * 0.125)
    assert run().nodes["update"].tolist() == [0.0, 0.0]


# Budgets


@pytest.mark.parametrize(
    ("budget", "expected"),
    [({"steps": 4}, [4, 4]), ({"seconds": 3.5, "steps": 0}, [4, 2]), ({"samples": 5, "steps": 0}, [3, 2])],
)
def test_budgets(budget: dict[str, Any], expected: list[int]) -> None:
    chosen = scenario(2, slowdowns=[{"ranks": [1], "factor": 2}])
    chosen = chosen.override({f"run.{name}": value for name, value in budget.items()})
    flushed: list[int] = []

    def worker(node: Node) -> Program:
        yield from steps(node)
        flushed.append(node.id)

    record = driver(chosen, Programs(worker)).run()
    assert record.nodes["steps"].tolist() == expected
    assert sorted(flushed) == [0, 1]


def test_progress_is_reported_to_the_end() -> None:
    calls: list[tuple[int, int]] = []
    sim.simulate(scenario(2, 10), on_progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (20, 20)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


# Departures, crashes, deadlock


def test_a_departure_comes_after_the_last_message_and_after_live_is_updated() -> None:
    log: list[Any] = []

    def worker(node: Node) -> Program:
        yield Compute()
        if node.id == 0:
            yield Send((2, message(GRADIENT, 3.0)))

    def server(node: Node) -> Program:
        while True:
            found = yield Receive((GRADIENT, LEFT))
            log.append(
                (
                    found.tag,
                    found.rank if type(found) is Left else found.source,
                    sorted(node.live),
                    (yield Now()),
                )
            )

    driver(scenario(2), Programs(worker, server)).run()
    assert log == [(LEFT, 1, [0], 1.0), (GRADIENT, 0, [0], 4.0), (LEFT, 0, [], 4.0)]


def test_unread_messages_come_before_a_departure_changes_live() -> None:
    log: list[Any] = []

    def worker(node: Node) -> Program:
        yield Compute()
        yield Send((node.workers, message(GRADIENT, 0.1)))

    def server(node: Node) -> Program:
        yield Receive(GRADIENT)
        node.tensors.accumulate(Phantom(1), Phantom(1))
        while True:
            found = yield Receive((GRADIENT, LEFT))
            log.append((found.tag, sorted(node.live)))

    made = driver(scenario(2, tensor_seconds={"accumulate": 100.0}), Programs(worker, server))
    made.run()
    assert log == [(LEFT, [1]), (GRADIENT, [1]), (LEFT, [])]


def test_a_receiver_from_a_source_is_told_when_that_has_left() -> None:
    got: list[Any] = []

    def worker(node: Node) -> Program:
        if node.id == 0:
            yield Send((1, message("x", 1.0)))
            yield Compute()
        else:
            got.append((yield Receive("x", source=0)).tag)
            got.append((yield Receive("x", source=0)))
            got.append((yield Poll("x", source=0)))

    driver(scenario(2), Programs(worker)).run()
    assert got == ["x", Left(0), Left(0)]


def test_departures_are_heard_once_each_and_in_order() -> None:
    got: list[Any] = []

    def worker(node: Node) -> Program:
        yield Compute()
        if node.id == 2:
            got.append((yield Receive((LEFT, "x"), source=1)))
            got.append((yield Receive((LEFT, "x"))))
            got.append((yield Receive((LEFT, "x"))))
            got.append((yield Poll(LEFT)))

    driver(scenario(3, slowdowns=[{"ranks": [1], "factor": 2}]), Programs(worker)).run()
    assert got == [Left(1), Left(0), Left(1), None]


@pytest.mark.parametrize("admission", ["fifo", "fair"])
@pytest.mark.parametrize("at", [0.5, 1.5, 2.25, 3.0, 5.1])
@pytest.mark.parametrize("algorithm", ["asp", "aladdin", "bsp"])
def test_a_crash_loses_only_what_was_the_dead_workers(algorithm: str, at: float, admission: str) -> None:
    made = Driver(plan(scenario(4, 8, algorithm, latency=0.01, network={"admission": admission})))
    made.crash(2, at)
    record = made.run()
    assert record.nodes["steps"][[0, 1, 3]].tolist() == [8, 8, 8]
    assert record.nodes["lost"][[0, 1, 3]].tolist() == [0, 0, 0]
    assert record.nodes["steps"][2] < 8
    assert record.nodes["end"][2] == at
    total = sum(record.nodes[part] for part in PARTS)
    assert total == pytest.approx(np.full(len(total), record.duration), rel=1e-9)
    assert all(nic.free_in == nic.free_out == made.network.slots for nic in made.network.nics)


@pytest.mark.parametrize("collective", ["native", "messages"])
@pytest.mark.parametrize("at", [0.5, 1.2, 2.9, 4.1])
def test_all_reduce_goes_on_with_the_survivors(collective: str, at: float) -> None:
    made = Driver(plan(scenario(4, 6, "arsgd", network={"collective": collective})))
    made.crash(1, at)
    record = made.run()
    assert record.nodes["steps"][[0, 2, 3]].tolist() == [6, 6, 6]


def test_a_dead_server_leaves_workers_in_a_deadlock_that_names_them() -> None:
    made = Driver(plan(scenario(2, 5, "asp")))
    made.crash(2, 1.5)
    with pytest.raises(Deadlock, match=r"worker 0 waits to receive model"):
        made.run()


def test_servers_in_a_deadlock_are_counted_as_elsewhere() -> None:
    def worker(node: Node) -> Program:
        yield Receive(MODEL)

    def server(node: Node) -> Program:
        yield Receive("gradient")

    with pytest.raises(Deadlock) as caught:
        driver(scenario(2), Programs(worker, server)).run()
    assert "server 0 (node 2) waits to receive gradient" in caught.value.waiting


def test_deadlock_says_who_waits_for_what() -> None:
    def worker(node: Node) -> Program:
        yield Compute()
        if node.id == 0:
            yield Receive((MODEL, "x"), source=1, step=3)
        elif node.id == 1:
            yield AllReduce(Phantom(1))
        else:
            for _ in range(4):
                yield Send((0, message("y", 0.1)))

    with pytest.raises(Deadlock) as caught:
        driver(scenario(3), Programs(worker)).run()
    assert "worker 0 waits to receive model/x from node 1, step 3" in caught.value.waiting
    assert "worker 1 waits in an all-reduce for the other workers" in caught.value.waiting
    assert any(
        "worker 2 waits to send to node 0 (1 undelivered, 2 unread there)" in line
        for line in caught.value.waiting
    )


def test_messages_to_a_worker_that_has_ended_hold_nobody_up() -> None:
    def worker(node: Node) -> Program:
        yield Compute()
        if node.id == 1:
            for _ in range(5):
                yield Send((0, message("x", 0.1)))

    record = driver(scenario(2), Programs(worker)).run()
    assert record.nodes["steps"].tolist() == [1, 1]


# All-reduce


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("admission", ["fifo", "fair"])
def test_ring_as_messages_costs_what_the_closed_form_says(workers: int, admission: str) -> None:
    """Equal steps, so the ring runs in lock-step; chunks of one element more or less are 1e-8 here."""

    def run(collective: str) -> Record:
        network = {"collective": collective, "admission": admission, "overhead": 0.003}
        return sim.simulate(scenario(workers, 3, "arsgd", latency=0.01, network=network))

    native, messages = run("native"), run("messages")
    ring = 2 * (workers - 1) * (0.013 + 1 / workers)
    assert native.duration == pytest.approx(3 * (1 + ring))
    assert messages.duration == pytest.approx(native.duration, rel=1e-7)
    assert parts(native, 0)["receive"] == pytest.approx(3 * ring)


def test_native_all_reduce_is_wait_until_all_joined() -> None:
    record = sim.simulate(scenario(2, 2, "arsgd", slowdowns=[{"ranks": [1], "factor": 3}]))
    assert parts(record, 0) == pytest.approx(booked(compute=2, wait=4, receive=2))
    assert parts(record, 1) == pytest.approx(booked(compute=6, receive=2))


@pytest.mark.parametrize("collective", ["native", "messages"])
def test_all_reduce_gives_everybody_the_mean(collective: str) -> None:
    class Values:
        initial = np.zeros(7, dtype=np.float32)

        def __call__(self, params: Any, rank: int, step: int) -> Any:
            return np.arange(7, dtype=np.float32) * (rank + 1)

    means: list[Any] = []

    def worker(node: Node) -> Program:
        try:
            while True:
                gradient = yield Compute()
                yield AllReduce(gradient)
                means.append(gradient)
        except Finished:
            return

    made = driver(scenario(3, 2, network={"collective": collective}), Programs(worker), gradients=Values())
    made.run()
    assert len(means) == 6
    for mean in means:
        assert mean == pytest.approx(2.0 * np.arange(7), rel=1e-6)


# Values and staleness


def test_numbers_train_a_quadratic_and_replicas_agree() -> None:
    class Quadratic:
        """f(x) = |x - 3|^2 / 2."""

        initial = np.zeros(4, dtype=np.float64)

        def __call__(self, params: Any, rank: int, step: int) -> Any:
            return params - 3.0

        def evaluate(self, params: Any) -> tuple[float, float]:
            return float(((params - 3.0) ** 2).sum() / 2), 0.5

    chosen = scenario(2, 60, "bsp").override(
        {"algorithm.lr": 0.05, "algorithm.momentum": 0.0, "workload.parameters": 4}
    )
    made = Driver(plan(chosen), gradients=Quadratic())
    record = made.run()
    values = [node.params for node in made.nodes]
    assert values[0].tolist() == values[1].tolist() == values[2].tolist()
    assert values[0] == pytest.approx(3.0 * (1 - 0.9**60) * np.ones(4))
    assert record.curves["loss"].tolist() == pytest.approx([4 * (3.0 * 0.9**60) ** 2 / 2])
    assert record.curves["samples"].tolist() == [120]
    assert record.curves["consensus"].tolist() == [0.0]
    assert record.curves["time"].tolist() == [record.duration]


def test_staleness_counts_the_versions_in_between() -> None:
    """ASP, two equal workers: each gradient has missed the other one's, but for the very first."""
    record = sim.simulate(scenario(2, 5, "asp"))
    assert record.gradients["staleness"].tolist() == [0.0] + [1.0] * 9
    assert record.gradients["time"].tolist() == sorted(record.gradients["time"].tolist())
    assert record.gradients["count"].sum() == 10


def test_what_is_not_an_effect_is_refused() -> None:
    def worker(node: Node) -> Program:
        yield "compute"  # type: ignore[misc]

    with pytest.raises(TypeError, match="node 0 yielded 'compute'"):
        driver(scenario(1), Programs(worker)).run()
