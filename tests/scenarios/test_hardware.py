"""This machine, read from the kernel's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenarios.hardware import Stolen, environment, hardware, processor_time


def test_this_machine_has_a_processor_and_cores() -> None:
    found = hardware()
    assert found["processor"]
    assert found["cores"] >= 1
    assert found == hardware()


def test_processor_and_gpu_by_name(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Z80: the CPU\nmodel name\t: other\n")
    gpu = tmp_path / "driver" / "nvidia" / "gpus" / "0000:01:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 44\n")
    found = hardware(tmp_path)
    assert (found["processor"], found["gpu"]) == ("Z80: the CPU", "NVIDIA H200")


def test_without_a_gpu_its_name_is_empty(tmp_path: Path) -> None:
    assert hardware(tmp_path)["gpu"] == ""


def test_environment_names_versions_and_hardware() -> None:
    found = environment()
    assert set(found["versions"]) == {"numpy", "simpy"}
    assert found["processor"] == hardware()["processor"]
    assert len(found["commit"]) in (0, 40)


def stat(proc: Path, used: int, stolen: int) -> None:
    (proc / "stat").write_text(f"cpu  {used} 2 3 400 5 6 7 {stolen} 0 0\ncpu0 1\n")


def test_what_the_host_keeps_is_a_share_of_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    stat(tmp_path, 1000, 500)
    assert processor_time(tmp_path) == (10.18, 5.0)
    stolen = Stolen(tmp_path)
    assert stolen.share() == 0.0
    stat(tmp_path, 1300, 600)
    assert stolen.share() == pytest.approx(0.25)
    (tmp_path / "stat").write_text("cpu  1 2 3\n")
    assert stolen.share() is None


def test_where_the_system_says_nothing_of_its_host_nothing_is_claimed(tmp_path: Path) -> None:
    assert processor_time(tmp_path) is None
    assert Stolen(tmp_path).share() is None
