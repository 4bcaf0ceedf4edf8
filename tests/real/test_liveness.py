"""Links that fall silent: who notices, who is cut off, and what a cut costs that is mended in time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

from hypothesis import given
from hypothesis import strategies as st

import real
from core.node import Message
from real import wire
from real.buffers import allocate, expose
from real.endpoint import Endpoint
from real.errors import TransportError
from real.liveness import LOOKS, Watch
from real.memory import MemoryNetwork
from real.outage import Outages, postpone
from real.pacing import Links
from real.pulse import Pulse
from real.survey import Survey
from real.testbed import unavailable
from real.transport import ZmqTransport
from scenarios.errors import ScenarioError
from scenarios.schema import Scenario
from tests.real.nodes import PATIENCE, Nodes, exchange, nodes, until
from tests.real.runs import tiny

AGREED = wire.Agreed(b"01234567", nodes=3, max_bytes=20_000_000)


# ---- one node's watch -----------------------------------------------------------------------------


def test_nobody_is_pinged_on_whom_nothing_waits() -> None:
    watch = Watch(5.0)
    for now in range(100):
        assert watch.look(float(now), ()) == ([], [])


def test_who_is_heard_is_neither_pinged_nor_silent() -> None:
    watch = Watch(5.0)
    for look in range(100):
        now = look * watch.interval
        watch.heard[1] = now
        assert watch.look(now, {1}) == ([], [])


def test_silence_counts_from_when_one_began_to_wait() -> None:
    watch = Watch(5.0)
    watch.heard[1] = 0.0
    assert watch.look(1000.0, {1}) == ([], [])
    assert watch.look(1001.0, {1}) == ([1], [])
    assert watch.look(1004.9, {1, 2}) == ([1], [])
    assert watch.look(1005.0, {1, 2}) == ([1], [1])
    assert watch.look(1006.0, {2}) == ([2], [])
    assert watch.look(1007.0, {1, 2}) == ([2], [])


def test_one_sign_of_life_ends_the_silence() -> None:
    watch = Watch(1.0)
    watch.look(0.0, {1})
    assert watch.look(1.5, {1}) == ([1], [1])
    watch.heard[1] = 1.6
    assert watch.look(1.7, {1})[1] == []


@given(st.floats(0.01, 1e4), st.lists(st.floats(0, 3), max_size=30))
def test_silence_is_noticed_within_a_look_and_never_early(timeout: float, steps: list[float]) -> None:
    watch, now, heard = Watch(timeout), 0.0, 0.0
    watch.look(0.0, {1})
    for step in steps:
        now += step * watch.interval
        _, silent = watch.look(now, {1})
        assert silent == ([1] if now - heard >= timeout else [])
        if step > 2:
            watch.heard[1] = heard = now
    assert watch.interval <= timeout / LOOKS


def test_an_order_that_comes_during_a_look_is_looked_at_next() -> None:
    """Else a survey would be over before anybody was asked, and this node would seem to hear nobody."""

    class Line:
        def send(self, *_: object, **__: object) -> None:
            if len(sent) == 0:
                pulse.survey(1, 1.0)  # as the pipe's thread may, at any point
            sent.append(time.monotonic())

        def close(self, linger: int) -> None:
            pass

    sent: list[float] = []
    pulse = Pulse(lambda _: Line(), b"ping", lambda: 0.0)
    pulse.watch(5.0, lambda: {1})
    pulse.look(0.0, {1}, False)
    pulse.look(1.0, {1}, False)
    assert len(sent) == 1
    assert pulse.due == 0.0
    pulse.look(1.7, {1}, False)
    assert len(sent) == 2
    assert pulse.due == pytest.approx(1.95)


def test_a_survey_lasts_from_when_all_were_asked() -> None:
    """Whoever looks late, on a busy machine, asks all the same before it says that it heard nobody."""
    asked: list[int] = []

    class Line:
        def __init__(self, peer: int) -> None:
            self.peer = peer

        def send(self, *_: object, **__: object) -> None:
            asked.append(self.peer)

    clock = [8.0]
    pulse = Pulse(Line, b"ping", lambda: clock[0])
    pulse.survey(1, 1.0)
    pulse.look(10.0, {1, 2}, False)
    assert sorted(asked) == [1, 2]
    assert pulse.surveyed() is None
    clock[0] = 10.2
    pulse.heard(2)
    pulse.look(11.0, {1, 2}, False)
    assert pulse.surveyed() == (1, [2])
    assert pulse.surveyed() is None


# ---- the launcher's verdict -----------------------------------------------------------------------


def hears(survey: Survey, alive: set[int], deaf: set[frozenset[int]]) -> None:
    for node in alive:
        survey.told(node, survey.number, [other for other in alive if frozenset((node, other)) not in deaf])


def cut(node: int, others: set[int]) -> set[frozenset[int]]:
    return {frozenset((node, other)) for other in others if other != node}


@pytest.mark.parametrize("lost", [0, 2, 3])
@pytest.mark.parametrize("reporter", ["it", "other"])
def test_the_one_that_most_others_miss_is_cut_off(lost: int, reporter: str) -> None:
    survey, alive = Survey(3, 5.0), {0, 1, 2, 3}
    other = 3 if lost != 3 else 1
    survey.missed(*((lost, [other]) if reporter == "it" else (other, [lost])))
    assert survey.begins(10.0, alive)
    assert not survey.begins(10.1, alive)
    assert survey.verdict(10.2, alive) == []
    hears(survey, alive, cut(lost, alive))
    assert survey.verdict(11.0, alive) == [lost]
    assert not survey.begins(12.0, alive - {lost})


def test_of_two_nodes_the_worker_is_cut_off() -> None:
    survey = Survey(1, 5.0)
    survey.missed(0, [1])
    assert survey.begins(0.0, {0, 1})
    hears(survey, {0, 1}, cut(0, {0, 1}))
    assert survey.verdict(1.0, {0, 1}) == [0]


def test_who_is_heard_again_by_then_stays() -> None:
    survey, alive = Survey(3, 5.0), {0, 1, 2, 3}
    survey.missed(0, [3])
    assert survey.begins(0.0, alive)
    hears(survey, alive, set())
    assert survey.verdict(1.0, alive) == []
    survey.missed(0, [3])
    assert survey.begins(2.0, alive)


def test_links_that_nobody_waits_on_do_not_matter() -> None:
    """0 and 1 cannot hear each other, but only the silence of 2 was reported."""
    survey, alive = Survey(3, 5.0), {0, 1, 2, 3}
    survey.missed(3, [2])
    assert survey.begins(0.0, alive)
    hears(survey, alive, cut(2, alive) | {frozenset((0, 1))})
    assert survey.verdict(1.0, alive) == [2]


def test_two_that_are_cut_off_both_go() -> None:
    survey, alive = Survey(4, 5.0), {0, 1, 2, 3, 4}
    survey.missed(0, [4])
    survey.missed(4, [1])
    assert survey.begins(0.0, alive)
    hears(survey, alive, cut(0, alive) | cut(1, alive))
    assert sorted(survey.verdict(1.0, alive)) == [0, 1]


def test_who_does_not_answer_has_no_say_and_the_wait_for_it_is_bounded() -> None:
    survey, alive = Survey(3, 5.0), {0, 1, 2, 3}
    survey.missed(3, [2])
    assert survey.begins(0.0, alive)
    for node in (0, 1, 3):
        survey.told(node, survey.number, {0, 1, 3} - {node})
    assert survey.verdict(survey.patience - 0.01, alive) == []
    assert survey.verdict(survey.patience, alive) == [2]


def test_reports_of_the_dead_are_forgotten() -> None:
    survey = Survey(3, 5.0)
    survey.missed(3, [2])
    assert not survey.begins(0.0, {0, 1, 3})
    survey.missed(3, [2])
    assert survey.begins(1.0, {0, 1, 2, 3})
    hears(survey, {0, 1, 3}, set())
    assert survey.verdict(2.0, {0, 1, 3}) == []


def answer(survey: Survey, alive: set[int]) -> None:
    """All but 3, which is late, hear everybody."""
    for node in alive - {3}:
        survey.beat(node, [], (survey.number, sorted(alive - {node})))


def test_a_late_answer_to_a_former_survey_does_not_count() -> None:
    """All hear each other by now; what 3 found in the survey before condemns nobody in this one."""
    survey, alive = Survey(3, 5.0), {0, 1, 2, 3}
    survey.beat(3, [2], None)
    assert survey.begins(0.0, alive)
    late = survey.number, [0, 1]
    answer(survey, alive)
    assert survey.verdict(survey.patience, alive) == []
    survey.beat(3, [2], None)
    assert survey.begins(20.0, alive)
    survey.beat(3, [], late)
    answer(survey, alive)
    assert survey.verdict(21.0, alive) == []
    survey.beat(3, [], (survey.number, [0, 1, 2]))
    assert survey.verdict(21.1, alive) == []
    survey.missed(3, [2])
    assert survey.begins(22.0, alive)


@given(st.data())
def test_a_verdict_always_leaves_no_reported_pair_apart(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 6))
    alive, pairs = set(range(n)), [frozenset((a, b)) for a in range(n) for b in range(a)]
    deaf = set(data.draw(st.lists(st.sampled_from(pairs), max_size=10)))
    reported = data.draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=5))
    survey = Survey(n - 1, 5.0)
    for one, other in map(tuple, reported):
        survey.missed(one, [other])
    assert survey.begins(0.0, alive)
    hears(survey, alive, deaf)
    gone = survey.verdict(1.0, alive)
    assert all(pair & set(gone) for pair in reported if pair in deaf)
    assert bool(gone) == any(pair in deaf for pair in reported)
    assert len(gone) <= len({pair for pair in reported if pair in deaf})


# ---- a cut ----------------------------------------------------------------------------------------


def test_outages_are_over_once() -> None:
    outages = Outages()
    assert outages.until(5.0) is None
    outages.add(1.0, 3.0)
    outages.add(2.0, 6.0)
    assert outages.until(0.5) is None
    assert outages.until(1.0) == 3.0
    assert outages.until(2.5) == outages.until(5.9) == 6.0
    assert outages.over(5.9) == 2.0
    assert outages.over(9.0) == 4.0
    assert outages.over(9.0) == 0.0


@pytest.mark.parametrize("attempt", range(5))
def test_outages_that_are_added_meanwhile_are_not_lost(attempt: int) -> None:
    outages, most = Outages(), 3000
    before = sys.getswitchinterval()
    adding = threading.Thread(target=lambda: [outages.add(number, 1e9) for number in range(most)])
    sys.setswitchinterval(1e-6)
    try:
        adding.start()
        while adding.is_alive():
            outages.over(0.0)
    finally:
        adding.join()
        sys.setswitchinterval(before)
    assert len(outages.planned) == most


def test_what_has_come_counts_before_anybody_is_called_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that moves frames may be late: a sign of life that waits to be taken is one."""
    monkeypatch.setattr("real.transport._LONGEST_SLEEP", 0.05)
    late = Endpoint(2, AGREED, Links(False), allocate=allocate, expose=expose, clock=time.monotonic)
    with nodes(AGREED) as made, closing(ZmqTransport(late, made.failures.append)) as transport:
        first, met = made.transports[0], list[int]()
        first.meet(2, transport.address, 0, lambda: met.append(2))
        transport.meet(0, first.address, 0, lambda: met.append(0))
        transport._turn()  # its thread is this one
        until(lambda: sorted(met) == [0, 2])
        late.say(wire.PING, [0])
        end = time.monotonic() + PATIENCE
        while not late.received["pong"]:
            assert time.monotonic() < end
            transport._turn()
        transport.pulse.watch(0.2, lambda: {0})
        transport._look(cut=True)
        made.endpoints[0].say(wire.PING, [2])
        time.sleep(0.5)
        transport._turn()
        assert transport.pulse.silent == []


def test_what_moves_on_paced_links_takes_that_much_longer() -> None:
    network = MemoryNetwork(2, Links(True, (1e6,) * 2, (1e6,) * 2, (0.0,) * 2))
    import numpy as np

    sender, receiver = network.endpoints
    sender.submit([(1, Message("m", np.zeros(25_000, np.float32)))])
    network.run(100.04)
    postpone(sender, 0.5)
    postpone(receiver, 0.5)
    network.run(100.59)
    assert not receiver.mailbox.items
    network.run(100.61)
    ((_, due),) = receiver.mailbox.items
    assert due == pytest.approx(100.6)


@pytest.fixture(params=[False, True], ids=["native", "paced"])
def trio(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    links = Links(request.param, (1e9,) * 3, (1e9,) * 3, (0.0,) * 3)
    with nodes(AGREED, 3, links=links) as made:
        yield made


def test_a_cut_holds_everything_back_and_then_it_flows_in_order(trio: Nodes) -> None:
    import torch

    exchange(trio)
    first, second, _ = trio.endpoints
    first.window = second.window = float("inf")
    trio.transports[0].cut(1.0)
    began = time.monotonic()
    for number in range(2):
        assert first.submit([(1, Message("out", torch.full((10,), float(number)), number))])
        assert second.submit([(0, Message("in", torch.full((10,), float(number)), number))])
    exchange(trio, source=1, to=2)
    exchange(trio, source=2, to=1)
    if time.monotonic() < began + 0.8:
        assert not first.received["messages"]
        assert second.received["messages"] == 2
    until(lambda: first.delivered([1]) and second.delivered([0]))
    assert time.monotonic() >= began + 1.0
    for endpoint, tag, source in ((second, "out", 0), (first, "in", 1)):
        got = [endpoint.take((tag,), source, None)[0] for _ in range(2)]
        assert [(m.step, m.tensor[0].item()) for m in got if isinstance(m, Message)] == [(0, 0.0), (1, 1.0)]
    assert all(not transport.dropped for transport in trio.transports)


def test_who_waits_on_a_node_that_is_cut_off_notices_and_others_do_not(trio: Nodes) -> None:
    for node, transport in enumerate(trio.transports):
        transport.pulse.watch(0.4, lambda node=node: {0, 1, 2} - {node, 2 - node})
    time.sleep(0.8)
    until(lambda: all(transport.pulse.silent == [] for transport in trio.transports))
    trio.transports[0].cut(3.0)
    until(lambda: trio.transports[1].pulse.silent == [0])
    until(lambda: trio.transports[0].pulse.silent == [1])
    assert trio.transports[2].pulse.silent == []
    until(lambda: all(transport.pulse.silent == [] for transport in trio.transports))


def test_a_survey_tells_who_can_be_heard(trio: Nodes) -> None:
    exchange(trio)
    trio.transports[2].cut(4.0)
    for transport in trio.transports:
        transport.pulse.survey(3, 1.5)
    found: dict[int, tuple[int, list[int]]] = {}

    def told() -> bool:
        for node, transport in enumerate(trio.transports):
            heard = transport.pulse.surveyed()
            if heard is not None:
                found[node] = heard
        return len(found) == 3

    until(told)
    assert found == {0: (3, [1]), 1: (3, [0]), 2: (3, [])}


def test_signs_of_life_are_no_progress(trio: Nodes) -> None:
    """Else a run in which nothing moves would never be found out."""
    exchange(trio)
    for node, transport in enumerate(trio.transports):
        transport.pulse.watch(0.2, lambda node=node: {0, 1, 2} - {node})
    heard = trio.transports[0].pulse._watch.heard
    before, moved = dict(heard), [endpoint.moved for endpoint in trio.endpoints]
    until(lambda: all(heard.get(peer, 0.0) > before.get(peer, 0.0) for peer in (1, 2)))
    assert [endpoint.moved for endpoint in trio.endpoints] == moved
    assert not trio.endpoints[0].received["pong"]


# ---- whole runs -----------------------------------------------------------------------------------


def faulty(
    algorithm: str, workers: int, steps: int, timeout: str, *faults: dict[str, object], links: str = "native"
) -> Scenario:
    made = tiny(
        algorithm, workers=workers, run={"steps": steps, "heartbeat_timeout": timeout, "links": links}
    )
    return made.override({"faults": list(faults)})


@pytest.mark.parametrize("algorithm", ["asp", "bsp", "adpsgd"])
def test_a_cut_that_is_mended_in_time_loses_nothing(algorithm: str) -> None:
    fault = {"kind": "cut", "ranks": [1], "at": "100 ms", "back": "600 ms"}
    record = real.train(faulty(algorithm, 3, 30, "20 s", fault))
    assert record.nodes["steps"][:3].tolist() == [30, 30, 30]
    assert record.manifest["lost"] == {}
    assert not record.manifest["frames_dropped"]
    assert record.nodes["lost"].sum() == 0
    assert [(row, node) for row, node in zip(record.events["event"], record.events["node"], strict=True)] == [
        (6, 1),
        (7, 1),
    ]


@pytest.mark.parametrize(
    "algorithm", ["asp", "bsp", *(pytest.param(one, marks=pytest.mark.slow) for one in ("aladdin", "adpsgd"))]
)
def test_who_stays_cut_off_is_taken_for_dead_and_the_rest_go_on(algorithm: str) -> None:
    fault = {"kind": "cut", "ranks": [1], "at": "50 ms", "back": "300 s"}
    record = real.train(faulty(algorithm, 3, 60, "2 s", fault))
    assert record.nodes["steps"][[0, 2]].tolist() == [60, 60]
    assert record.manifest["lost"] == {"1": "its links were silent for 2 s"}
    computed = record.nodes["steps"][:3]
    if algorithm != "adpsgd":
        fates = sum(record.nodes[what][:3] for what in ("applied", "pending", "lost"))
        assert fates.tolist() == computed.tolist()


def test_a_server_that_is_cut_off_is_named() -> None:
    fault = {"kind": "cut", "servers": [0], "at": "50 ms", "back": "300 s"}
    # a busy machine may delay its pulse
    silent = r"server 0 .* is gone \((its links were|it was) silent for 2 s\)"
    with pytest.raises(TransportError, match=silent) as caught:
        real.train(faulty("asp", 2, 500, "2 s", fault))
    assert caught.value.record is not None  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.skipif(unavailable() is not None, reason=f"no test-bed: {unavailable()}")
def test_cables_that_are_pulled_in_a_test_bed() -> None:
    """The kernel drops what is sent: worker 1 for a while, which loses nothing; worker 2 for good."""
    short = {"kind": "cut", "ranks": [1], "at": "100 ms", "back": "600 ms"}
    long = {"kind": "cut", "ranks": [2], "at": "100 ms", "back": "300 s"}
    record = real.train(faulty("asp", 3, 60, "6 s", short, long, links="shaped"))
    assert record.nodes["steps"][:2].tolist() == [60, 60]
    assert record.nodes["lost"][:2].tolist() == [0, 0]
    assert record.manifest["lost"] == {"2": "its links were silent for 6 s"}
    happened = sorted(zip(record.events["event"].tolist(), record.events["node"].tolist(), strict=True))
    assert happened == [(0, 2), (6, 1), (6, 2), (7, 1)]


def test_links_of_a_native_all_reduce_are_not_ours_to_cut() -> None:
    fault = {"kind": "cut", "ranks": [1], "at": "1 s", "back": "1 s"}
    made = tiny("arsgd", cluster={"network": {"collective": "native"}}).override({"faults": [fault]})
    with pytest.raises(ScenarioError, match=r"faults\[0\]\.kind: 'cut' .* collective: messages"):
        real.train(made)


def test_a_server_that_is_away_is_waited_for_however_long() -> None:
    """It is known to be dead, and comes back: its silence is nobody's fault."""
    fault = {"kind": "crash", "servers": [0], "at": "200 ms", "back": "4 s", "checkpoint_every": "1 s"}
    record = real.train(faulty("asp", 2, 40, "2 s", fault))
    assert record.nodes["steps"][:2].tolist() == [40, 40]
    assert record.manifest["lost"] == {}
    assert [event for event in record.events["event"].tolist() if event in (0, 6, 7)] == [0]
