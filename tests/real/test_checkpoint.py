"""Journals and checkpoints that are cut short, damaged, somebody else's, or find no room."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("torch")

import numpy as np

from real import checkpoint, journal, wire
from real.buffers import expose
from real.checkpoint import CheckpointError
from real.errors import WireError
from real.journal import Journal, JournalError
from real.keeping import Registry
from real.kept import KeptEndpoint
from real.pacing import Links
from real.replay import Keeper
from real.wire import Header
from tests.real.kept import Cluster

OURS = {"run": "ours", "node": 2}


@contextmanager
def no_room(nbytes: int) -> Iterator[None]:
    """No file can grow beyond so many bytes meanwhile: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def written(folder: Path, records: int = 5) -> Path:
    one = Journal(folder, OURS)
    for number in range(records):
        one.took((0, 0, number))
    one.close()
    return folder / "records"


# ---- journals -------------------------------------------------------------------------------------


def test_a_record_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    for cut in range(1, 12):
        path.write_bytes(whole[:-cut])
        history = journal.read(tmp_path, OURS)
        assert [record[4] for record in history.answers] == [0, 1, 2, 3]
    again = Journal(tmp_path, OURS, history=history)
    again.took((0, 0, 9))
    assert [record[4] for record in journal.read(tmp_path, OURS).answers] == [0, 1, 2, 3, 9]


def test_no_life_writes_where_a_checkpoint_has_put_an_end(tmp_path: Path) -> None:
    """Checkpoints may have begun payload files to which nothing was written."""
    written(tmp_path)
    for _ in range(3):
        again = Journal(tmp_path, OURS, history=journal.read(tmp_path, OURS))
        boundary = again.roll()
        again.close()
    assert Journal(tmp_path, OURS, history=journal.read(tmp_path, OURS)).segment > boundary


def test_a_piece_of_a_former_life_does_not_get_into_a_payload(tmp_path: Path) -> None:
    registry, agreed = Registry(), wire.Agreed(b"01234567", 2, 1 << 20)
    made = KeptEndpoint(
        0, agreed, Links(paced=False), allocate=registry.room, expose=expose, clock=float
    )  # fmt: skip
    made.keep(Journal(tmp_path, OURS), registry)
    made.introduce({1: 0}, {1})
    made.meet(1, 1)
    made.on_frame(Header(wire.REQ, 1, 0, "m", "float32", 1, total=8))
    made.on_frame(Header(wire.DATA, 1, 0, "m", "float32", 0, total=8), memoryview(b"its past"))
    made.on_frame(Header(wire.DATA, 1, 0, "m", "float32", 1, total=8), memoryview(b"its life"))
    [arrived] = journal.read(tmp_path, OURS).arrived.values()
    read = bytearray(8)
    journal.payload(tmp_path, arrived, memoryview(read))
    assert read == b"its life"


def test_every_damaged_byte_is_found(tmp_path: Path) -> None:
    path = written(tmp_path, records=2)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        with pytest.raises(JournalError, match=rf"{path}.*damaged at byte"):
            journal.read(tmp_path, OURS)


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(JournalError, match=rf"{path}: it is of another run: run is 'ours', not 'theirs'"):
        journal.read(tmp_path, {**OURS, "run": "theirs"})


def test_an_empty_journal_is_refused(tmp_path: Path) -> None:
    written(tmp_path).write_bytes(b"")
    with pytest.raises(JournalError, match="truncated"):
        journal.read(tmp_path, OURS)


def test_without_room_a_journal_says_so_and_stays_whole(tmp_path: Path) -> None:
    one = Journal(tmp_path, OURS)
    one.took((0, 0, 0))
    size = (tmp_path / "records").stat().st_size
    with no_room(size + 10), pytest.raises(JournalError, match=r"records: cannot be written .*Make room"):
        one.took((0, 0, 1))
    assert (tmp_path / "records").stat().st_size == size
    place = one.reserve(4096)
    with no_room(1024), pytest.raises(JournalError, match="payload-0: cannot be written"):
        one.store(place, 0, memoryview(bytes(4096)))
    one.took((0, 0, 1))
    assert len(journal.read(tmp_path, OURS).answers) == 2


# ---- checkpoints ----------------------------------------------------------------------------------


def saved(folder: Path, position: int = 7) -> Path:
    return checkpoint.save(
        folder, position, OURS, {"segment": 1}, {"tensor 1": np.arange(64, dtype=np.uint8)}
    )


def test_a_checkpoint_is_read_back(tmp_path: Path) -> None:
    position, state, arrays = checkpoint.load(saved(tmp_path), OURS)
    assert (position, state) == (7, {"segment": 1})
    assert arrays["tensor 1"].tolist() == list(range(64))


def test_every_damaged_byte_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x01]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=str(path)):
            checkpoint.load(path, OURS)


@pytest.mark.parametrize("length", [0, 5, 8, 100, -1])
def test_a_truncated_checkpoint_is_refused(length: int, tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=rf"{path}: it is damaged, truncated or no checkpoint"):
        checkpoint.load(path, OURS)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(CheckpointError, match=rf"{path}: it is of another run: node is 2, not 3"):
        checkpoint.load(path, {**OURS, "node": 3})


def test_without_room_nothing_is_left_of_a_checkpoint(tmp_path: Path) -> None:
    before = saved(tmp_path)
    big = {"tensor 1": np.zeros(1 << 16, dtype=np.uint8)}
    with no_room(4096), pytest.raises(CheckpointError, match=r"checkpoint-.*: cannot be written"):
        checkpoint.save(tmp_path, 8, OURS, {}, big)
    assert list(tmp_path.iterdir()) == [before]


# ---- servers that come back -----------------------------------------------------------------------


def half_done(folder: Path) -> Cluster:
    """A run whose server has taken some checkpoints when it dies."""
    cluster = Cluster("asp", folder, seed=3, every=25)
    keeper = cluster.lives[2].keeper
    assert keeper is not None
    while keeper.taken < 3:
        cluster.ticks += 1
        cluster.tick()
    cluster.kill(2)
    assert len(checkpoint.stored(folder / "2")) == 2
    return cluster


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def finished(cluster: Cluster) -> Keeper:
    cluster.revive(2)
    keeper = cluster.lives[2].keeper
    assert keeper is not None
    cluster.run()
    assert cluster.ledgers() == {worker: [cluster.steps] for worker in range(cluster.workers)}
    return keeper


def test_a_checkpoint_that_was_being_written_is_ignored(tmp_path: Path) -> None:
    cluster = half_done(tmp_path)
    newest = checkpoint.stored(tmp_path / "2")[0]
    newest.rename(newest.with_name(f".{newest.name}.partial-1"))
    assert not finished(cluster).notes
    assert not list((tmp_path / "2").glob(".*")), "it is of no use to anybody"


@pytest.mark.parametrize("how", ["damaged", "truncated", "foreign"])
def test_instead_of_a_bad_checkpoint_the_one_before_is_taken(how: str, tmp_path: Path) -> None:
    cluster = half_done(tmp_path)
    newest, older = checkpoint.stored(tmp_path / "2")
    if how == "damaged":
        damage(newest)
    elif how == "truncated":
        newest.write_bytes(newest.read_bytes()[:200])
    else:
        other = half_done(tmp_path / "other")
        other_identity = {"run": "another", "node": 2}
        position, state, arrays = checkpoint.load(older, {"run": "test", "node": 2})
        made = checkpoint.save(tmp_path / "other" / "2", position + 1, other_identity, state, arrays)
        shutil.copy(made, newest)
        assert other.computed
    notes = finished(cluster).notes
    assert len(notes) == 1
    assert str(newest) in notes[0]
    assert ("of another run" if how == "foreign" else "damaged") in notes[0]


def test_without_a_usable_checkpoint_all_are_named(tmp_path: Path) -> None:
    cluster = half_done(tmp_path)
    paths = checkpoint.stored(tmp_path / "2")
    for path in paths:
        damage(path)
    with pytest.raises(CheckpointError) as caught:
        cluster.revive(2)
    assert all(str(path) in str(caught.value) for path in paths)


def test_a_checkpoint_that_lacks_a_tensor_says_which(tmp_path: Path) -> None:
    """A program that does not make the same tensors again."""
    cluster = half_done(tmp_path)
    identity = {"run": "test", "node": 2}
    position, state, arrays = checkpoint.load(checkpoint.stored(tmp_path / "2")[0], identity)
    del arrays["tensor 1"]
    checkpoint.save(tmp_path / "2", position, identity, state, arrays)
    with pytest.raises(CheckpointError, match=r"does not hold 'tensor 1' .* the same tensors again"):
        cluster.revive(2)


def test_a_damaged_payload_is_refused(tmp_path: Path) -> None:
    cluster = Cluster("asp", tmp_path, seed=3)
    while not (tmp_path / "2" / "payload-0").stat().st_size:
        cluster.ticks += 1
        cluster.tick()
    for _ in range(60):
        cluster.ticks += 1
        cluster.tick()
    cluster.kill(2)
    damage(tmp_path / "2" / "payload-0")
    with pytest.raises(JournalError, match=r"payload-0: the message at byte \d+ is not what was written"):
        cluster.revive(2)


def test_a_server_that_has_lost_what_it_confirmed_is_found_out(tmp_path: Path) -> None:
    cluster = Cluster("asp", tmp_path, seed=3)
    for _ in range(150):
        cluster.ticks += 1
        cluster.tick()
    cluster.kill(2)
    path = tmp_path / "2" / "records"
    path.write_bytes(path.read_bytes()[:200])
    cluster.revive(2)
    with pytest.raises(WireError, match=r"has lost messages that it confirmed|the rest is lost"):
        cluster.run()


def test_without_room_for_checkpoints_the_run_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster("asp", tmp_path, seed=3, every=25)
    save, tried = checkpoint.save, list[int]()

    def cramped(*args: object) -> object:
        tried.append(cluster.ticks)
        with no_room(512):
            return save(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save", cramped)
    cluster.run({150: 2})
    keeper = cluster.lives[2].keeper
    assert keeper is not None
    assert not keeper.taken
    assert 1 <= sum(tick < 150 for tick in tried) <= 2, "it waits longer every time"
    assert all("cannot be written" in note for note in keeper.notes)
    assert not checkpoint.stored(tmp_path / "2")
    assert cluster.ledgers() == {worker: [cluster.steps] for worker in range(cluster.workers)}
