"""Keys and addresses: who may listen where, what is refused, and what the files must be like."""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

import zmq

import real
from aladdin import cli
from real import keys
from scenarios.errors import ScenarioError
from scenarios.loading import load
from tests.real.runs import tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return keys.create(tmp_path / "secrets")


def test_keys_are_private_and_come_back(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == sorted(keys.FILES)
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = keys.load(folder)
    assert zmq.curve_public(found.server_secret) == found.server_public
    assert zmq.curve_public(found.client_secret) == found.client_public
    assert found.server_secret != found.client_secret
    for secret in (found.server_secret, found.client_secret):
        assert secret.decode() not in repr(found)


def test_keys_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = keys.create(tmp_path / "deep" / "secrets")
    finally:
        os.umask(before)
    keys.load(made)


def test_two_sets_differ(tmp_path: Path) -> None:
    one, other = keys.load(keys.create(tmp_path / "a")), keys.load(keys.create(tmp_path / "b"))
    assert len({one.server_secret, one.client_secret, other.server_secret, other.client_secret}) == 4


def test_keys_are_never_overwritten(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ScenarioError, match=r"OUT_DIR: '.*secrets' is not valid; expected a new or empty"):
        keys.create(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_place_that_cannot_hold_keys_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ScenarioError, match="cannot hold keys"):
        keys.create(tmp_path / "file")


def spoil(folder: Path, how: str) -> None:
    """Do to a good set of keys what makes it unfit."""
    secret = folder / "client.secret"
    if how == "gone":
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    elif how == "missing":
        secret.unlink()
    elif how == "readable":
        secret.chmod(0o644)
    elif how == "open":
        folder.chmod(0o755)
    elif how == "short":
        secret.write_bytes(secret.read_bytes()[:20])
    elif how == "long":
        secret.write_bytes(secret.read_bytes().strip() + b"0" * 10)
    elif how == "rubbish":
        secret.write_bytes(bytes(range(40)))
    elif how == "beyond":
        secret.write_bytes(b"#" * 40)
    elif how == "link":
        target = folder.parent / "elsewhere"
        target.write_bytes(secret.read_bytes())
        target.chmod(0o600)
        secret.unlink()
        secret.symlink_to(target)
    elif how == "pipe":
        secret.unlink()
        os.mkfifo(secret, 0o600)
    elif how == "swapped":
        other = keys.create(folder.parent / "other")
        secret.write_bytes((other / "client.secret").read_bytes())


SPOILT = {
    "gone": r"secrets' cannot be opened: No such file",
    "missing": r"client\.secret' cannot be read: No such file",
    "readable": r"client\.secret' can be used by others \(mode 0644\)",
    "open": r"secrets' can be used by others \(mode 0755\)",
    "short": r"client\.secret' is not a key: expected 40 characters",
    "long": r"client\.secret' is not a key",
    "rubbish": r"client\.secret' is not a key",
    "beyond": r"client\.public and client\.secret are not a pair",
    "link": r"client\.secret' cannot be read",
    "pipe": r"client\.secret' is not a plain file",
    "swapped": r"client\.public and client\.secret are not a pair",
}


@pytest.mark.parametrize("how", SPOILT)
def test_unfit_keys_are_refused_before_a_run_starts(folder: Path, how: str) -> None:
    spoil(folder, how)
    with pytest.raises(ScenarioError, match=rf"run\.keys: .*{SPOILT[how]}.*aladdin keys"):
        real.train(tiny("asp", run={"keys": str(folder)}))


@pytest.mark.parametrize("address", ["10.0.0.5", "192.168.1.7", "8.8.8.8", "169.254.1.1"])
def test_an_address_beyond_loopback_needs_keys(address: str, folder: Path) -> None:
    with pytest.raises(ScenarioError, match=rf"run\.keys: is missing: run\.address {address} .*aladdin keys"):
        tiny("asp", run={"address": address})
    assert tiny("asp", run={"address": address, "keys": str(folder)}).run.address == address


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3"])
def test_loopback_needs_none(address: str) -> None:
    assert tiny("asp", run={"address": address}).run.address == address


@pytest.mark.parametrize(
    "address",
    ["localhost", "0.0.0.0", "::1", "", "224.0.0.1", "255.255.255.255", "1.2.3", "1.2.3.4:5", 7, None],
)
def test_what_is_no_address_of_one_interface_is_refused(address: object) -> None:
    with pytest.raises(ScenarioError, match=r"run\.address: .* is not valid; expected"):
        tiny("asp", run={"address": address})


def test_an_address_of_another_machine_is_refused(folder: Path) -> None:
    with pytest.raises(
        ScenarioError, match=r"address: '192\.0\.2\.1' is no address of this[^()]*\([^()]*\)$"
    ):
        real.train(tiny("asp", run={"address": "192.0.2.1", "keys": str(folder)}))


def test_a_native_all_reduce_would_bypass_keys(folder: Path) -> None:
    network = {"collective": "native"}
    with pytest.raises(ScenarioError, match=r"collective: 'native' .* messages with run\.keys"):
        real.train(tiny("arsgd", cluster={"network": network}, run={"keys": str(folder)}))


def test_what_nobody_chose_is_not_written_down(folder: Path) -> None:
    assert {"address", "keys"}.isdisjoint(tiny("asp").to_dict()["run"])
    chosen = tiny("asp", run={"address": "127.0.0.2", "keys": str(folder)})
    assert chosen.to_dict()["run"]["address"] == "127.0.0.2"
    assert type(chosen).from_dict(chosen.to_dict()) == chosen


def test_keys_lie_beside_the_scenarios_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: demo\nrun: {keys: secrets}\n")
    assert load(str(file)).run.keys == str(tmp_path / "secrets")


def test_the_command_makes_keys_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "secrets"
    assert cli.main(["keys", str(where)]) == 0
    assert str(where) in capsys.readouterr().out
    keys.load(where)
    assert cli.main(["keys", str(where)]) == 2
    said = capsys.readouterr()
    assert "never overwritten" in said.err
    assert cli.main(["simulate", "demo", "--set", "run.address=10.1.2.3"]) == 2
    assert "run.keys" in capsys.readouterr().err


def test_a_run_with_keys_works_and_its_record_holds_no_secret(folder: Path) -> None:
    record = real.train(tiny("asp", run={"keys": str(folder), "address": "127.0.0.3"}))
    assert record.nodes["steps"][:2].tolist() == [8, 8]
    assert not record.manifest["frames_dropped"]
    for name in ("client.secret", "server.secret"):
        assert (folder / name).read_text().strip() not in str(record.manifest)


def test_a_libzmq_without_curve_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "has", lambda _: False)
    for asked in (lambda: keys.create(tmp_path / "new"), lambda: keys.load(folder)):
        with pytest.raises(ScenarioError, match=r"libzmq was built without CURVE.*pip install"):
            asked()
    assert not (tmp_path / "new").exists()


CODE = ("aladdin", "analysis", "core", "real", "scenarios", "sim")
UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
UNPICKLING = {
    "recv_pyobj", "recv_object_list", "broadcast_object_list", "all_gather_object", "gather_object",
    "read_pickle", "torch.load", "np.load", "numpy.load", "yaml.load", "unsafe_load", "full_load",
}  # fmt: skip
EXCEPTIONS = {("cifar.py", "pickle")}
"""CIFAR-10 is published pickled; tests/scenarios/test_workloads.py shows what its unpickler refuses."""


def unpickling(text: str) -> set[str]:
    """What a module uses that unpickles, or may."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            names |= {node.attr}
            if isinstance(node.value, ast.Name):
                names |= {f"{node.value.id}.{node.attr}"}
    return {name for name in names if name.split(".")[0] in UNPICKLERS or name in UNPICKLING}


def test_nothing_is_ever_unpickled() -> None:
    found = {
        (path.name, name.split(".")[0] if name not in UNPICKLING else name)
        for package in CODE
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in unpickling(path.read_text(encoding="utf-8"))
    }
    assert found == EXCEPTIONS
    assert unpickling("import numpy as np\nnp.load(file, allow_pickle=True)") == {"np.load"}
