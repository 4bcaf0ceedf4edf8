"""Files that users name: nothing is read without end."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenarios import ScenarioError, files, load
from scenarios.profile import Profile


def test_line_ends_of_all_systems_are_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeffé\r\nb\rc\n".encode())
    assert files.text(tmp_path / "a", "utf-8-sig") == "é\nb\nc\n"


def test_what_is_too_large_is_refused_and_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST", 1 << 20)
    (tmp_path / "a").write_bytes(b" " * (1 << 20))
    assert len(files.text(tmp_path / "a")) == 1 << 20
    with pytest.raises(OSError, match="holds more than 1 MiB"):
        files.text("/dev/zero")


@pytest.mark.parametrize("value", [3, None, ["a"], b"a"])
def test_a_place_is_text_or_a_path(value: object) -> None:
    assert files.place("a/b", "out") == Path("a/b")
    with pytest.raises(ScenarioError, match=r"out: .* is not valid; expected the path of a file"):
        files.place(value, "out")


def test_scenarios_and_profiles_without_end_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST", 1 << 20)
    endless = tmp_path / "endless.yaml"
    endless.symlink_to("/dev/zero")
    for read in (load, Profile.read):
        with pytest.raises(ScenarioError, match="holds more than 1 MiB"):
            read(endless)  # type: ignore[operator]
