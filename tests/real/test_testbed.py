"""The test-bed: names and proofs anywhere; namespaces and links where root and the kernel allow them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zmq")

from real.errors import TransportError
from real.pacing import CHUNK, Links
from real.shaped import check_shaped, nics_of
from real.testbed import (
    BURST,
    GOODPUT,
    MOST,
    Nic,
    Place,
    Testbed,
    check_nics,
    clean,
    forbidden,
    names,
    spaces,
    unavailable,
    verify,
    within,
)
from real.testbed import places as placing
from real.testbed.commands import run_commands
from real.testbed.enter import REFUSED, arguments
from real.testbed.goodput import goodput, timed
from real.testbed.shaping import FIRST, PASSING
from scenarios.errors import ScenarioError
from scenarios.plan import plan
from scenarios.schema import Scenario
from tests.real.runs import tiny

_MISSING = unavailable()
needs_testbed = pytest.mark.skipif(_MISSING is not None, reason=f"no test-bed here: {_MISSING}")

ROOT = Path(__file__).parents[2]
SLOW = Nic(25e6, 25e6)


def ours() -> list[str]:
    """Names of this process's namespaces."""
    listed = sorted(os.listdir(names.FOLDER)) if names.FOLDER.is_dir() else []
    return [name for name in listed if name.startswith(f"aladdin-{os.getpid()}-")]


# ---- names, anywhere ----------------------------------------------------------------------------


def test_a_name_says_whose_it_is_and_a_live_owner_is_not_gone() -> None:
    name = names.prefix() + "bridge"
    owner = names.owner(name)
    assert owner is not None
    assert owner.pid == os.getpid()
    assert not owner.gone()
    assert names.prefix() != names.prefix()


def test_an_owner_is_gone_when_it_ended_or_its_number_is_another_process() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        live = names.Owner(process.pid, names._started(process.pid), names._space())
        assert not live.gone()
        assert names.Owner(process.pid, live.started - 1, live.space).gone()
        process.kill()
        deadline = time.monotonic() + 30
        while not live.gone():  # a zombie by then, which has ended
            assert time.monotonic() < deadline
    assert live.gone()


def test_whoever_lives_among_other_process_numbers_is_never_taken_for_gone() -> None:
    assert not names.Owner(2**30, 1, names._space() + 1).gone()
    assert names.Owner(2**30, 1, names._space()).gone()


@pytest.mark.parametrize(
    "name",
    ["mine", "aladdin", "aladdin-1", "aladdin-1-2-3-abcdefgh-0", "xaladdin-1-2-3-01234567-0",
     "aladdin-1-2-3-01234567-0x", "aladdin-1-2-3-01234567-", "aladdin-1-2-3-01234567-bridge\n",
     "aladdin-1-\N{ARABIC-INDIC DIGIT TWO}-3-01234567-0"],
)  # fmt: skip
def test_names_of_others_are_nobodys(name: str) -> None:
    assert names.owner(name) is None


def test_leftovers_are_those_of_the_gone_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "FOLDER", tmp_path)
    gone = f"aladdin-{2**30}-1-{names._space()}-01234567-0"
    elsewhere = f"aladdin-{2**30}-1-{names._space() + 1}-01234567-0"
    for name in (gone, elsewhere, names.prefix() + "0", "cni-1234", "aladdin-of-somebody"):
        (tmp_path / name).touch()
    assert names.leftovers() == [gone]


def test_whoever_is_started_while_a_namespace_goes_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look and a kill a process may have had children."""
    monkeypatch.setattr(names, "FOLDER", tmp_path)
    (tmp_path / "one").touch()
    found, killed = [[11], [12, 13], []], list[int]()
    monkeypatch.setattr(spaces, "inside", lambda _: found.pop(0))
    monkeypatch.setattr(spaces.os, "kill", lambda pid, _: killed.append(pid))
    spaces.remove("one")
    assert killed == [11, 12, 13]
    assert not (tmp_path / "one").exists()


def test_one_name_that_the_kernel_keeps_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "FOLDER", tmp_path)
    bed = Testbed.__new__(Testbed)
    bed._prefix, bed._handlers = "aladdin-", {}
    for name in ("aladdin-0", "aladdin-1", "aladdin-2", "other"):
        (tmp_path / name).touch()
    removed = []

    def remove(name: str) -> None:
        removed.append(name)
        if name == "aladdin-1":
            raise OSError("busy")

    monkeypatch.setattr(spaces, "remove", remove)
    with pytest.raises(OSError, match="busy"):
        bed.close()
    assert sorted(removed) == ["aladdin-0", "aladdin-1", "aladdin-2"]


def test_nothing_is_imported_from_the_folder_that_a_command_is_run_in(tmp_path: Path) -> None:
    """It is root who runs it, and whose the folder is nobody knows."""
    folder = tmp_path / "somebodys"
    folder.mkdir()
    for name in ("msgspec", "ctypes", "real"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')", encoding="utf-8")
    nowhere = Place("nowhere", str(tmp_path / "nowhere"), 1, "10.77.0.1")
    done = subprocess.run(
        arguments(nowhere, ["true"]), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == REFUSED
    assert done.stderr.startswith("error: namespace nowhere cannot be entered")
    assert not (tmp_path / "run").exists()


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nics", "words"),
    [
        ([], ("cluster.machines", "0", f"1 to {MOST} machines")),
        ([SLOW] * (MOST + 1), (str(MOST + 1), f"1 to {MOST} machines")),
        ([SLOW, Nic(10.0, 25e6)], ("cluster.machines[1].up", "10.0", "1 Mbit/s")),
        ([Nic(25e6, 1e12)], ("cluster.machines[0].down", "32 Gbit/s")),
    ],
)
def test_what_cannot_be_played_is_refused(nics: list[Nic], words: tuple[str, ...]) -> None:
    with pytest.raises(ScenarioError) as error:
        check_nics(nics)
    assert all(word in str(error.value) for word in words)


def test_the_machine_that_cannot_be_played_is_named_as_the_scenario_has_it() -> None:
    with pytest.raises(ScenarioError, match=r"cluster\.machines\[4\]\.up"):
        check_nics([SLOW, Nic(10.0, 25e6)], [1, 4])


def test_without_root_it_says_so_and_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert forbidden() == unavailable() == "network namespaces need root"
    with pytest.raises(ScenarioError, match=r"run.links: 'shaped'.*paced.*need root"):
        check_shaped(plan(tiny(run={"links": "shaped"})))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": {"admission": 2}}, ("cluster.network.admission", "2", "fifo or fair")),
        ({"latency": "2 ms"}, ("cluster.machines[0].latency", "0.001", "0.0005")),
        ({"bandwidth": "1 kbit/s"}, ("cluster.machines[0].up", "125.0", "1 Mbit/s")),
        ({"servers": {"placement": "beside"}}, ("run.links", "shaped", "fair", "nodes 0, 2 share")),
    ],
)
def test_scenarios_that_no_testbed_plays(changes: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(ScenarioError) as error:
        check_shaped(plan(tiny(cluster=changes, run={"links": "shaped"})))
    assert all(word in str(error.value) for word in words)


def test_nodes_in_namespaces_listen_nowhere_else(tmp_path: Path) -> None:
    changes = {"links": "shaped", "address": "10.0.0.1", "keys": str(tmp_path)}
    with pytest.raises(ScenarioError, match=r"run.address: '10.0.0.1'.*their namespaces"):
        check_shaped(plan(tiny(run=changes)))


# ---- how messages are put on shaped links ---------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1, 1 << 16, 1 << 20, 20_000_000])
def test_the_last_piece_waits_until_the_link_is_about_to_run_dry(nbytes: int) -> None:
    links = Links(paced=False, shaped=True, up=(25e6, 125e6), down=(25e6, 125e6))
    pieces = links.pieces(1, 0, nbytes, 5.0)
    assert [at for _, at, _ in pieces] == list(np.cumsum([0, *(length for _, _, length in pieces[:-1])]))
    assert sum(length for _, _, length in pieces) == nbytes
    assert all(time == 5.0 for time, _, _ in pieces[:-1])
    assert all(0 < length <= CHUNK for _, _, length in pieces[:-1])
    before = nbytes - pieces[-1][2]
    assert 5.0 <= pieces[-1][0] <= 5.0 + max(0.0, before - BURST) / 25e6


def test_links_without_a_rate_get_everything_at_once() -> None:
    unlimited = (float("inf"),) * 2
    links = Links(paced=False, shaped=True, up=unlimited, down=unlimited)
    assert links.pieces(0, 1, 9_000_000, 1.0) == Links(paced=False).pieces(0, 1, 9_000_000, 1.0)


# ---- with root ------------------------------------------------------------------------------------


@pytest.fixture
def bed() -> Iterator[Testbed]:
    with Testbed([SLOW, Nic(125e6, 12.5e6), SLOW]) as made:
        yield made
    assert ours() == []


@needs_testbed
def test_places_are_entered_and_verified_and_outside_is_refused(bed: Testbed) -> None:
    assert len(ours()) == 4
    for place in bed.places:
        within(place.path, lambda place=place: verify(place))
        assert len(place.peers) == 2
    with pytest.raises(TransportError, match=r"not inside namespace .*by this machine's own routes"):
        verify(bed.places[0])
    with pytest.raises(TransportError, match="not inside"):
        within(bed.places[1].path, lambda: verify(bed.places[0]))


@needs_testbed
def test_a_place_whose_cable_does_not_lead_to_its_peers_is_refused(bed: Testbed) -> None:
    place = bed.places[0]

    def misroute() -> None:
        from pyroute2 import IPRoute

        with IPRoute() as kernel:
            kernel.route("add", dst=f"{bed.places[1].address}/32", oif=1)

    within(place.path, misroute)
    with pytest.raises(TransportError, match=rf"packets to {bed.places[1].address} would leave by lo"):
        within(place.path, lambda: verify(place))


@needs_testbed
def test_a_process_with_threads_does_not_enter(bed: Testbed) -> None:
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        with pytest.raises(TransportError, match="would stay outside"):
            within(None, lambda: placing.enter(bed.places[0]))
    finally:
        over.set()
        other.join()


@needs_testbed
def test_nothing_of_this_machine_is_reached_from_inside(bed: Testbed) -> None:
    assert within(bed.places[0].path, lambda: placing.leaves_by("192.0.2.1")) == ""
    assert within(bed.places[0].path, lambda: [name for _, name in socket.if_nameindex()]) == [
        "lo",
        placing.DEVICE,
    ]


@needs_testbed
@pytest.mark.parametrize(("source", "to", "rate"), [(0, 2, 25e6), (0, 1, 12.5e6), (1, 2, 25e6)])
def test_a_link_is_never_faster_than_told(bed: Testbed, source: int, to: int, rate: float) -> None:
    seconds = 0.5
    carried = goodput(bed.places[source], bed.places[to], seconds)
    assert 0 < carried <= rate * GOODPUT * 1.02 + 2 * BURST / seconds


@needs_testbed
def test_links_are_shared_fairly_where_told() -> None:
    """Among peers, however many connections each has: four of one take no more than one of another."""
    found = [0.0] * 5
    with Testbed([Nic(125e6, 125e6), Nic(125e6, 125e6), Nic(125e6, 20e6)], fair=True) as made:

        def carry(i: int) -> None:
            found[i] = goodput(made.places[min(i, 1)], made.places[2], 1.0)

        threads = [threading.Thread(target=carry, args=(i,)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(found)
    assert sum(found) <= 20e6 * 1.1 + 2 * BURST
    assert found[0] > 0.35 * sum(found)


@needs_testbed
def test_a_cut_link_is_silent_and_nothing_is_lost_when_it_is_restored(bed: Testbed) -> None:
    first, second = bed.places[0], bed.places[2]
    with within(second.path, lambda: socket.create_server((second.address, 0))) as server:
        address = server.getsockname()
        with (
            within(first.path, lambda: socket.create_connection(address, timeout=60)) as out,
            server.accept()[0] as into,
        ):
            bed.cut(2)
            out.sendall(b"while cut")
            into.settimeout(0.5)
            with pytest.raises(TimeoutError):
                into.recv(1)
            with pytest.raises(TimeoutError):
                within(first.path, lambda: socket.create_connection(address, timeout=0.3))
            bed.restore(2)
            into.settimeout(60)
            assert into.recv(9, socket.MSG_WAITALL) == b"while cut"


@needs_testbed
def test_it_is_removed_when_building_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the kernel knows no such queue")

    monkeypatch.setattr("real.testbed.bed.shape", fail)
    with pytest.raises(TransportError, match=r"cannot be built: the kernel knows no such queue"):
        Testbed([SLOW, SLOW])
    assert ours() == []


@needs_testbed
def test_a_signal_while_it_is_built_removes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its first namespace and its last; one that comes while it is removed changes nothing."""
    monkeypatch.setattr("real.testbed.bed.shape", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        Testbed([SLOW, SLOW])
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before is signal.SIG_DFL
    assert ours() == []


@needs_testbed
@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_it_is_removed_when_its_block_fails(stop: type[BaseException]) -> None:
    with pytest.raises(stop), Testbed([SLOW]):
        raise stop
    assert ours() == []


OWNER = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who is started by nohup is deaf to it
from real.testbed import Nic, Testbed
with Testbed([Nic(25e6, 25e6)] * 2) as bed:
    print(bed.places[0].name, flush=True)
    time.sleep(600)
"""


@contextmanager
def owner() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process with a test-bed of its own, and the name of its first namespace; killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@needs_testbed
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_its_owner_removes_it(number: signal.Signals) -> None:
    with owner() as (process, name):
        assert (names.FOLDER / name).exists()
        process.send_signal(number)
        process.wait(60)
        assert not (names.FOLDER / name).exists()


@needs_testbed
def test_what_a_killed_owner_leaves_is_removed_next_time_and_nothing_else() -> None:
    foreign = f"somebody-{os.getpid()}"
    spaces.create(foreign)
    try:
        with owner() as (_, kept):
            with owner() as (_, left):
                place = Place(
                    left, str(names.FOLDER / left), (names.FOLDER / left).stat().st_ino, "10.77.0.1"
                )
                sleeper = subprocess.Popen(arguments(place, ["sleep", "600"]))
                deadline = time.monotonic() + 60
                while spaces.inside(left) != [sleeper.pid]:
                    assert time.monotonic() < deadline
            with Testbed([SLOW]) as bed:
                assert kept not in bed.removed
                assert sleeper.wait(60) == -signal.SIGKILL
            assert not (names.FOLDER / left).exists()
            assert (names.FOLDER / kept).exists()
            assert (names.FOLDER / foreign).exists()
        clean()
        assert not (names.FOLDER / kept).exists()
        assert (names.FOLDER / foreign).exists()
    finally:
        spaces.remove(foreign)


@needs_testbed
def test_a_command_runs_in_every_place(tmp_path: Path, bed: Testbed) -> None:
    told = "$RANK $ALADDIN_ADDRESS $WORLD_SIZE $(stat -Lc %i /proc/self/ns/net)"
    line = f'echo "{told}" > {tmp_path}/$ALADDIN_NODE'
    run_commands(bed, ["sh", "-c", line])
    said = [(tmp_path / str(node)).read_text(encoding="utf-8").split() for node in range(3)]
    assert said == [[str(i), p.address, "3", str(p.inode)] for i, p in enumerate(bed.places)]


@needs_testbed
def test_a_command_that_fails_on_one_node_ends_on_all(bed: Testbed) -> None:
    with pytest.raises(TransportError, match="node 1: sh ended with exit code 7"):
        run_commands(bed, ["sh", "-c", "[ $RANK = 1 ] && exit 7; exec sleep 600"])
    assert [spaces.inside(place.name) for place in bed.places] == [[], [], []]


@needs_testbed
def test_what_a_command_leaves_behind_ends_with_the_testbed(tmp_path: Path) -> None:
    with Testbed([SLOW, SLOW]) as bed:
        run_commands(bed, ["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/$RANK"])
        left = [int((tmp_path / str(node)).read_text(encoding="utf-8")) for node in range(2)]
        assert [spaces.inside(place.name) for place in bed.places] == [[pid] for pid in left]
    deadline = time.monotonic() + 60
    while any(names._started(pid) != -1 for pid in left):
        assert time.monotonic() < deadline


@needs_testbed
@pytest.mark.parametrize(
    ("algorithm", "network"),
    [("asp", {"admission": "fifo"}), ("asp", {"admission": "fair"}), ("arsgd", {"collective": "native"})],
)
def test_a_run_over_shaped_links(algorithm: str, network: dict[str, str]) -> None:
    torch = pytest.importorskip("torch")
    assert torch
    import real

    scenario = tiny(algorithm, cluster={"network": network}, run={"links": "shaped"})
    record = real.train(scenario)
    assert record.manifest["complete"]
    assert record.manifest["scenario"]["run"]["links"] == "shaped"
    assert record.nodes["steps"][:2].tolist() == [8, 8]
    if algorithm == "asp":
        assert record.nodes["applied"].tolist() == [8, 8, 16]
        assert record.nodes["bytes_out"].sum() == record.nodes["bytes_in"].sum() > 0
    assert set(record.links["capacity"]) == {nics_of(plan(scenario))[0].up}
    assert ours() == []


@needs_testbed
def test_a_worker_that_comes_back_is_in_its_namespace_again() -> None:
    pytest.importorskip("torch")
    import real

    given = tiny(
        workers=3, run={"links": "shaped", "steps": 40}, cluster={"compute": {"mean": "30 ms"}}
    ).to_dict()
    given["faults"] = [{"kind": "crash", "ranks": [1], "step": 5, "back": "100 ms"}]
    record = real.train(Scenario.from_dict(given))
    assert record.manifest["complete"]
    assert record.nodes["applied"][1] > 5
    assert record.nodes["steps"][0] == record.nodes["steps"][2] == 40
    assert ours() == []


@needs_testbed
def test_a_cut_of_a_run_is_one_of_the_kernels_links(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    import real

    told: list[tuple[str, int]] = []
    cut, restore = Testbed.cut, Testbed.restore
    monkeypatch.setattr(Testbed, "cut", lambda bed, at: (told.append(("cut", at)), cut(bed, at)))
    monkeypatch.setattr(Testbed, "restore", lambda bed, at: (told.append(("restore", at)), restore(bed, at)))
    given = tiny(workers=2, run={"links": "shaped", "steps": 60, "heartbeat_timeout": "30 s"}).to_dict()
    given["faults"] = [
        {"kind": "cut", "ranks": [1], "at": "100 ms", "back": "300 ms"},
        {"kind": "cut", "ranks": [1], "at": "200 ms", "back": "500 ms"},
    ]
    record = real.train(Scenario.from_dict(given))
    assert told == [("cut", 1), ("cut", 1), ("restore", 1)]
    assert record.nodes["applied"].tolist() == [60, 60, 120]
    assert record.duration > 0.7
    assert ours() == []


@needs_testbed
def test_a_rank_outside_its_namespace_refuses_to_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    import real
    from real.shaped import ShapedLinks

    def wrong(self: ShapedLinks, node: int) -> Place:
        first, second = self._bed.places[:2]
        return Place(second.name, second.path, first.inode, second.address)

    monkeypatch.setattr(ShapedLinks, "place", wrong)
    with pytest.raises(TransportError, match=r"failed to start:[^$]*not inside namespace"):
        real.train(tiny(run={"links": "shaped"}))
    assert ours() == []


TRAINER = """
import real
from tests.real.runs import tiny
if __name__ == "__main__":
    scenario = tiny(run={"links": "shaped", "steps": 100_000})
    real.train(scenario, on_progress=lambda *_: print("on", flush=True))
"""


@needs_testbed
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_whose_launcher_is_ended_leaves_no_process_and_no_namespace(
    tmp_path: Path, number: signal.Signals
) -> None:
    pytest.importorskip("torch")
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
            built = [n for n in os.listdir(names.FOLDER) if n.startswith(f"aladdin-{process.pid}-")]
            nodes = [pid for name in built for pid in spaces.inside(name)]
            assert (len(built), len(nodes)) == (4, 3)
            process.send_signal(number)
            process.wait(60)
        finally:
            process.kill()
    deadline = time.monotonic() + 60
    while any(names._started(pid) != -1 for pid in nodes):
        assert time.monotonic() < deadline
    if number == signal.SIGKILL:
        clean()
    assert not set(built) & set(os.listdir(names.FOLDER))


@needs_testbed
def test_acknowledgements_and_grants_pass_data(bed: Testbed) -> None:
    """What comes back of a transfer is in the class that passes others, the data is not."""
    from pyroute2 import IPRoute

    def sent() -> dict[int, int]:
        with IPRoute() as kernel:
            [device] = kernel.link_lookup(ifname=placing.DEVICE)
            classes = kernel.get_classes(index=device)
            return {
                c["handle"] & 0xFFFF: c.get_nested("TCA_STATS2", "TCA_STATS_BASIC")["bytes"] for c in classes
            }

    nbytes = 2_000_000
    assert timed([(bed.places[0], bed.places[2], nbytes)])[0] > 0
    forth, back = (within(bed.places[i].path, sent) for i in (0, 2))
    assert forth[FIRST & 0xFFFF] > nbytes
    assert back[FIRST & 0xFFFF] < back[PASSING & 0xFFFF] < nbytes
