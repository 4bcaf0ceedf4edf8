"""This machine, read from the kernel's files."""

from __future__ import annotations

from pathlib import Path

from scenarios.hardware import environment, hardware


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
