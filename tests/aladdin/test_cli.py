"""The command line: what goes to stdout and stderr, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aladdin import api, cli
from aladdin.cli import common
from scenarios import Scenario
from tests.aladdin.conftest import fake_run


class Shell:
    """Runs the command line in this process; keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *argv: str | Path) -> SimpleNamespace:
        code = cli.main([str(arg) for arg in argv])
        out, err = self.capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_help_names_every_command(shell: Shell) -> None:
    done = shell("--help")
    assert done.code == 0
    for name in cli.COMMANDS:
        assert f" {name} " in done.out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(shell: Shell, name: str) -> None:
    done = shell(name, "--help")
    assert done.code == 0
    assert "Example" in done.out
    assert f"aladdin {name}" in done.out


def test_help_does_not_say_that_a_flag_takes_a_value(shell: Shell) -> None:
    lines = [
        line
        for name in ("simulate", "trace", "paper", "crosscheck")
        for line in shell(name, "--help").out.splitlines()
    ]
    flags = [
        line
        for line in lines
        if any(f" {flag} " in line for flag in ("--json", "--spans", "--force", "--quick", "--resume"))
    ]
    assert len(flags) >= 6
    assert not [line for line in flags if "<" in line]


def test_version(shell: Shell) -> None:
    done = shell("--version")
    assert (done.code, done.out.split()[0]) == (0, "aladdin")


def test_no_arguments_shows_the_help(shell: Shell) -> None:
    done = shell()
    assert "Usage" in done.out + done.err


def test_simulate_prints_a_table_and_writes_nothing(
    shell: Shell, drivers: list[Scenario], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = shell(
        "simulate", "demo", "-a", "asp,bsp", "--set", "cluster.workers=3", "--set", "workload.batch=16"
    )
    assert done.code == 0
    assert "demo: 3 workers, 1 server, predicted" in done.out
    assert "ASP" in done.out
    assert "BSP" in done.out
    assert done.err == ""
    assert list(tmp_path.iterdir()) == []
    assert [(one.cluster.workers, one.workload.batch) for one in drivers] == [(3, 16)] * 2


def test_json_is_one_document(shell: Shell, drivers: list[Scenario], tmp_path: Path) -> None:
    done = shell("simulate", "demo", "-a", "asp,bsp", "--json", "--out", tmp_path / "runs", "--spans")
    found = json.loads(done.out)
    assert [run["algorithm"] for run in found["runs"]] == ["asp", "bsp"]
    assert found["flags"] == []
    assert found["runs"][0]["path"] == str(tmp_path / "runs" / "asp")
    assert (tmp_path / "runs" / "asp" / "spans.parquet").exists()
    assert all(one.run.spans for one in drivers)


def test_train_writes_below_runs(
    shell: Shell, drivers: list[Scenario], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = shell("train", "demo", "--algorithm", "asp")
    assert done.code == 0
    assert "written to runs/demo-asp-20261121T073553" in done.out
    assert len(drivers) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["simulate", "nope"], "'nope' is neither a bundled scenario nor a file"),
        (["simulate", "demo", "-a", "aladin"], "algorithm.name: 'aladin' — did you mean 'aladdin'?"),
        (["simulate", "demo", "-s", "cluster.workers=0"], "cluster.workers"),
        (["simulate", "demo", "-s", "cluster.workrs=2"], "did you mean"),
        (["simulate", "demo", "-s", "cluster.workers"], "PATH=VALUE"),
        (["simulate", "demo", "-s", "cluster.bandwidth=10 Gbut/s"], "Gbut"),
        (["simulate", "demo", "--profile", "nowhere.json"], "nowhere.json"),
        (["simulate", "demo", "--out", "/proc/no/run"], "cannot be written"),
        (
            ["train", "demo", "-s", "cluster.network.collective=native", "-a", "arsgd"],
            "cluster.network.collective",
        ),
        (["simulate", "demo", "-a", ""], "--algorithm: '' is not valid; expected names such as asp,bsp"),
        (["simulate", "demo", "-a", " ,"], "--algorithm: ' ,'"),
        (["simulate", "demo", "-a", "all,asp"], "expected all, in small letters and by itself"),
        (["train", "demo", "-a", "ALL"], "expected all, in small letters and by itself"),
        (
            ["simulate", "demo", "-s", "algorithm="],
            "algorithm: null is not valid; expected an algorithm's name",
        ),
        (["simulate", "demo", "-s", "run.steps=null"], "run.steps: null is not valid"),
        (["simulate", "demo", "-s", f"cluster.workers={'9' * 5000}"], "cluster.workers: '999"),
        (["simulate", "demo", "-s", "run.steps=1e12"], "run.steps: 1000000000000"),
        (["train", "demo", "-s", "algorithm.lr=1e300"], "algorithm.lr: '1e300'"),
        (
            ["train", "demo", "-s", "workload.batch=1e9"],
            "workload.batch: 1000000000 is not valid; expected at most 1437",
        ),
        (["crosscheck", "nope"], "'nope' is neither"),
        (["crosscheck", "demo", "--profile", "nowhere.json"], "nowhere.json"),
        (["demo", "-s", "cluster.workers=0"], "cluster.workers: 0"),
        (["demo", "--out", "/proc/no/run"], "cannot be written"),
        (["plot", "nowhere"], "nowhere: it does not exist"),
        (["trace", "nowhere"], "nowhere: it does not exist"),
        (["verify", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    shell: Shell, drivers: list[Scenario], argv: list[str], message: str
) -> None:
    done = shell(*argv)
    assert done.code == 2
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert done.out == ""
    assert drivers == []


@pytest.mark.parametrize(
    "argv", [["simulate"], ["simulat"], ["list", "horses"], ["simulate", "demo", "--fast"]]
)
def test_usage_errors_are_exit_code_2(shell: Shell, argv: list[str]) -> None:
    done = shell(*argv)
    assert done.code == 2
    assert done.out == ""
    assert "Usage" in done.err


def test_an_existing_run_is_not_overwritten(shell: Shell, drivers: list[Scenario], tmp_path: Path) -> None:
    assert shell("simulate", "demo", "-o", tmp_path / "run").code == 0
    done = shell("simulate", "demo", "-o", tmp_path / "run")
    assert done.code == 2
    assert "never overwritten" in done.err
    assert len(drivers) == 1


def driver(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    monkeypatch.setattr(api, "_driver", lambda _: run)


@pytest.mark.parametrize("kind", ["TransportError", "Deadlock"])
def test_a_run_that_fails_is_exit_code_3(shell: Shell, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise type(kind, (RuntimeError,), {})("server 4 is gone")

    driver(monkeypatch, fail)
    done = shell("simulate", "demo")
    assert (done.code, done.err) == (3, "error: server 4 is gone\n")


def test_a_bug_is_not_hidden(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    driver(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        shell("simulate", "demo")


def test_ctrl_c_prints_what_is_finished_and_says_where(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(scenario: Scenario, **_: Any) -> Any:
        if scenario.algorithm.name == "bsp":
            raise KeyboardInterrupt
        return fake_run(scenario)

    driver(monkeypatch, run)
    done = shell("simulate", "demo", "-a", "asp,bsp", "-o", tmp_path / "runs", "--json")
    assert done.code == 130
    assert done.err == "stopped: by Ctrl-C\n"
    found = json.loads(done.out)
    assert found["stopped"] is True
    assert [one["path"] for one in found["runs"]] == [str(tmp_path / "runs" / "asp")]


def test_ctrl_c_before_the_command_has_begun(monkeypatch: pytest.MonkeyPatch, shell: Shell) -> None:
    def importing(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", importing)
    done = shell("list")
    assert (done.code, done.out, done.err) == (130, "", "stopped: by Ctrl-C\n")


def test_ctrl_c_in_training_keeps_the_partial_run(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(scenario: Scenario, **_: Any) -> Any:
        stop = type("Interrupted", (Exception,), {})("stopped by Ctrl-C")
        stop.record = fake_run(scenario, "real")
        raise stop

    driver(monkeypatch, run)
    done = shell("train", "demo", "-o", tmp_path / "run")
    assert done.code == 130
    assert done.err.startswith("warning: interrupted: the run is not complete\n")
    assert done.err.endswith(f"\nstopped: by Ctrl-C; what was finished is in {tmp_path / 'run'}\n")
    assert "ALADDIN*" in done.out
    assert (tmp_path / "run" / "manifest.json").exists()
    done = shell("train", "demo", "-o", tmp_path / "other", "--json")
    found = json.loads(done.out)
    assert (done.code, found["stopped"], found["runs"][0]["path"]) == (130, True, str(tmp_path / "other"))


def test_flags_are_warnings_and_part_of_the_output(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(monkeypatch, lambda scenario, **_: fake_run(scenario, flags=["out of range: workers is 8"]))
    done = shell("simulate", "demo")
    assert done.err == "warning: out of range: workers is 8\n"
    assert "* out of range: workers is 8" in done.out
    assert json.loads(shell("simulate", "demo", "--json").out)["flags"] == ["out of range: workers is 8"]


def test_warnings_of_some_of_several_runs_name_them(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "asp": ["clocks jumped", "out of range"],
        "bsp": ["out of range"],
        "ssp": ["clocks jumped", "out of range"],
    }
    driver(monkeypatch, lambda scenario, **_: fake_run(scenario, flags=said[scenario.algorithm.name]))
    done = shell("simulate", "demo", "--algorithm", "asp,bsp,ssp")
    assert done.err == "warning: ASP, SSP: clocks jumped\nwarning: out of range\n"


def test_warnings_of_many_runs_name_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    common.warn_of([("a", ["x", "y"]), ("b", ["x", "z"]), ("c", ["x", "z"]), ("d", [])], most=1)
    assert capsys.readouterr().err == "warning: a and 2 others: x\nwarning: a: y\nwarning: b and 1 other: z\n"


def rows(*oks: bool) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(name=f"case {i}", kind="asp", tolerance=1e-8,
                        worst_relative_error=1e-9 if ok else 0.5, ok=ok, what="iter_end")
        for i, ok in enumerate(oks)
    ]  # fmt: skip


@pytest.mark.parametrize(("oks", "code"), [((True, True), 0), ((True, False), 1)])
def test_verify_prints_a_row_per_case(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, oks: tuple[bool, ...], code: int
) -> None:
    monkeypatch.setattr(api, "verify", lambda _, **__: rows(*oks))
    done = shell("verify", "file.json")
    assert done.code == code
    assert "case 0" in done.out
    assert "case 1" in done.out
    assert f"{sum(oks)} of 2 cases" in done.out
    found = json.loads(shell("verify", "file.json", "--json").out)
    assert found["failed"] == 2 - sum(oks)


@pytest.mark.parametrize(
    ("what", "names"),
    [("algorithms", ["asp", "aladdin", "arsgd"]), ("scenarios", ["demo", "paper/vgg16"]),
     ("workloads", ["resnet50", "digits"])],
)  # fmt: skip
def test_list(shell: Shell, what: str, names: list[str]) -> None:
    done = shell("list", what)
    assert done.code == 0
    for name in names:
        assert name in done.out
    assert what in json.loads(shell("list", what, "--json").out)


def test_plot_and_trace_print_their_files(shell: Shell, drivers: list[Scenario], tmp_path: Path) -> None:
    shell("simulate", "demo", "--spans", "-o", tmp_path / "run")
    done = shell("plot", tmp_path / "run", "-o", tmp_path / "pictures")
    assert done.out.split() == [
        str(tmp_path / "pictures" / f"{name}.png") for name in ("breakdown", "timeline")
    ]
    done = shell("trace", tmp_path / "run", "-o", tmp_path / "t.json", "--json")
    assert json.loads(done.out) == {"file": str(tmp_path / "t.json")}
    assert len(drivers) == 1


def test_pictures_and_traces_are_not_overwritten_unless_told_to(
    shell: Shell, drivers: list[Scenario], tmp_path: Path
) -> None:
    shell("simulate", "demo", "--spans", "-o", tmp_path / "run")
    pictures, trace = tmp_path / "pictures", tmp_path / "t.json"
    for command, out, file in (("plot", pictures, pictures / "breakdown.png"), ("trace", trace, trace)):
        assert shell(command, tmp_path / "run", "-o", out).code == 0
        file.write_bytes(b"mine")
        done = shell(command, tmp_path / "run", "-o", out)
        assert (done.code, done.out) == (2, "")
        assert f"--out: '{out}'" in done.err
        assert "--force" in done.err
        assert file.read_bytes() == b"mine"
        assert shell(command, tmp_path / "run", "-o", out, "--force").code == 0
        assert file.read_bytes() != b"mine"
    assert len(drivers) == 1


def test_an_algorithm_with_its_settings_as_a_table(shell: Shell, drivers: list[Scenario]) -> None:
    assert shell("simulate", "demo", "-s", "algorithm={name: bsp, lr: 0.25}").code == 0
    assert [(one.algorithm.name, one.algorithm.lr) for one in drivers] == [("bsp", 0.25)]


def test_a_verification_of_nothing_is_bad_input(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"cases": [], "net_cases": []}', encoding="utf-8")
    done = shell("verify", tmp_path / "none.json")
    assert (done.code, done.out) == (2, "")
    assert "holds no cases" in done.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("argv", [["list", "scenarios"], ["list", "scenarios", "--json"], ["--help"]])
def test_output_that_cannot_be_written_is_one_message(argv: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "aladdin", *argv],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: the results cannot be printed: No space left on device\n"


def loaded(*argv: str, code: int = 0) -> set[str]:
    """Top-level modules in memory after the command line ``argv``, in a process of its own."""
    program = (
        "import sys; from aladdin.cli import main; code = main(sys.argv[1:]); "
        "print('LOADED', *{m.split('.')[0] for m in sys.modules}, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == code
    return set(done.stderr.rpartition("LOADED")[2].split())


def test_help_loads_nothing_heavy() -> None:
    assert loaded("--help").isdisjoint({"torch", "numpy", "simpy", "matplotlib", "pyarrow", "scipy", "yaml"})


@pytest.mark.parametrize("argv", [("demo", "-s", "cluster.workers=0"), ("crosscheck", "nope")])
def test_long_commands_refuse_bad_input_before_they_load_what_they_need(argv: tuple[str, ...]) -> None:
    assert loaded(*argv, code=2).isdisjoint({"torch", "scipy", "simpy", "matplotlib", "pyarrow"})


def test_python_dash_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aladdin", "simulate", "nope"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: scenario: 'nope'")


ODD = r"[/x] [bold]y[/] :smile: $\mathdefault$ $\foo$"
"""A name that is no markup, no picture and no formula."""


def test_names_are_neither_markup_nor_formulas(shell: Shell, tmp_path: Path) -> None:
    named = ["--set", f"name={ODD}", "--set", "run.steps=20"]
    simulated = shell("simulate", "demo", "--spans", *named, "--out", str(tmp_path / "a"))
    assert f"{ODD}: 4 workers" in simulated.out
    drawn = shell("plot", str(tmp_path / "a"), "--out", str(tmp_path / "p"))
    assert drawn.code == 0
    assert {file.name for file in (tmp_path / "p").iterdir()} >= {"breakdown.png", "timeline.png"}
    compared = shell("compare", "demo", "-a", "asp,bsp", *named, "--out", str(tmp_path / "c"))
    assert compared.code == 0
    assert f"{ODD}: 4 workers" in compared.out
    plan = ["--counts", "1,2", "--out", str(tmp_path / "s")]
    planned = shell("plan-servers", "paper/vgg16", *named[:2], "--set", "run.steps=5", *plan)
    assert planned.code == 0
    assert ODD in planned.out


def test_names_that_cannot_be_encoded_are_printed_all_the_same(tmp_path: Path) -> None:
    """A case's with half a surrogate pair, a folder's that is no UTF-8."""
    case = {
        "name": "half \ud800", "expected": {"completion": []},
        "params": {"up": [1], "dn": [1], "lat": [0], "flows": []},
    }  # fmt: skip
    (tmp_path / "cases.json").write_text(json.dumps({"net_cases": [case]}), encoding="utf-8")
    folder = bytes(tmp_path / "run") + b"-\xff"
    for arguments, code, said in (
        (["verify", "cases.json"], 1, "half \\ud800"),
        (["simulate", "demo", "--set", "run.steps=5", "--out", folder], 0, "run-\\udcff"),
        (["plot", folder, "--out", "pictures"], 0, "breakdown.png"),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "aladdin", *arguments], cwd=tmp_path, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONIOENCODING": "utf-8"},
            encoding="utf-8", check=False,
        )  # fmt: skip
        assert run.returncode == code, run.stderr
        assert said in run.stdout
