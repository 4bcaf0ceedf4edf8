"""Devices that differ: drawn repeatably, read from a CSV with units, bad rows named by line."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

import scenarios
from scenarios.cluster import Cluster, Layout, Machine, StepTime
from scenarios.errors import ScenarioError
from scenarios.fields import build, plain
from scenarios.heterogeneity import Heterogeneity, measured
from scenarios.steptime import StepTimes

CSV = """# measured in May
name, speed, bandwidth [Mbit/s], latency (ms)
a, 1, 100, 1
b, 0.5, 1 Gbit/s, 2

c, 2, 8, 500 us
"""


def written(folder: Path, text: str) -> str:
    path = folder / "devices.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_draws_are_the_clusters_own_and_do_not_change_as_it_grows() -> None:
    def made(workers: int, **own: object) -> Cluster:
        return Cluster(workers, layout=Layout(workers_per_machine=2), heterogeneity=Heterogeneity(**own))  # type: ignore[arg-type]

    few, many = made(4, speed=0.3, bandwidth=0.5), made(4000, speed=0.3, bandwidth=0.5)
    assert many.scale[:4] == few.scale
    assert [m.up for m in many.machines[:2]] == [m.up for m in few.machines[:2]]
    assert few.scale[0] == few.scale[1] != few.scale[2]
    assert made(4, speed=0.3, seed=1).scale != few.scale
    assert len(set(made(4, speed=0.3, per="worker").scale)) == 4
    speeds = [1 / factor for factor in many.scale[::2]]
    assert statistics.fmean(speeds) == pytest.approx(1, abs=0.03)
    assert statistics.stdev(speeds) == pytest.approx(0.3, abs=0.03)
    rates = [machine.up / 1.25e9 for machine in many.machines[:-1]]
    assert statistics.fmean(rates) == pytest.approx(1, abs=0.05)
    assert statistics.stdev(rates) == pytest.approx(0.5, abs=0.07)
    assert all(machine.up == machine.down for machine in many.machines)
    assert many.machines[-1] == Machine("server0")


def test_speeds_multiply_those_given_by_rank_and_reach_the_step_times() -> None:
    devices = {"speed": (1.0, 0.5)}
    cluster = Cluster(
        4,
        compute=StepTime(mean=2.0, scale=(1.0, 1.0, 3.0, 3.0)),
        heterogeneity=Heterogeneity(devices=devices),
    )
    assert cluster.scale == (1.0, 2.0, 3.0, 6.0)
    draw = StepTimes(cluster, 0).draw
    assert [draw(rank, 0, 0.0)[0] for rank in range(4)] == [2.0, 4.0, 6.0, 12.0]
    assert cluster.compute.scale == (1.0, 1.0, 3.0, 3.0)


def test_a_csv_has_units_in_its_header_or_its_cells(tmp_path) -> None:
    assert measured(written(tmp_path, CSV)) == {
        "speed": [1.0, 0.5, 2.0],
        "latency": [1e-3, 2e-3, 5e-4],
        "up": [12.5e6, 125e6, 1e6],
        "down": [12.5e6, 125e6, 1e6],
    }
    assert measured(written(tmp_path, "step_time [ms],up,down\n5,1e3,2 kB/s\n")) == {
        "step_time": [5e-3], "up": [1e3], "down": [2e3],
    }  # fmt: skip


def test_machines_take_the_rows_in_turn_or_at_random(tmp_path) -> None:
    tree = {"workers": 5, "heterogeneity": {"file": written(tmp_path, CSV)}}
    cluster = build(Cluster, tree)
    assert [machine.up for machine in cluster.machines] == [12.5e6, 125e6, 1e6, 12.5e6, 125e6, 1.25e9]
    assert [machine.latency for machine in cluster.machines] == [1e-3, 2e-3, 5e-4, 1e-3, 2e-3, 0.0]
    assert cluster.scale == (1.0, 2.0, 0.5, 1.0, 2.0)
    Path(tree["heterogeneity"]["file"]).unlink()
    assert build(Cluster, plain(cluster)) == cluster, "a scenario that was read needs the file no more"
    tree["heterogeneity"] = {"file": written(tmp_path, CSV), "order": "random"}
    drawn = build(Cluster, tree | {"workers": 3000})
    shares = [drawn.scale.count(factor) / 3000 for factor in (1.0, 2.0, 0.5)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.04)


def test_measured_step_times_are_taken_as_they_are(tmp_path) -> None:
    path = written(tmp_path, "step_time\n100 ms\n250 ms\n")
    tree = {"workers": 2, "compute": {"mean": "50 ms"}, "heterogeneity": {"file": path, "per": "worker"}}
    draw = StepTimes(build(Cluster, tree), 0).draw
    assert [draw(rank, 0, 0.0)[0] for rank in range(2)] == pytest.approx([0.1, 0.25])


def test_listed_machines_differ_too(tmp_path) -> None:
    machines = [{"name": "a", "workers": 1}, {"name": "b", "workers": 1}, {"name": "s"}]
    cluster = build(Cluster, {"machines": machines, "heterogeneity": {"bandwidth": 1.0}})
    assert len({machine.up for machine in cluster.machines}) == 3
    assert cluster.machines[2].up == 1.25e9
    assert build(Cluster, plain(cluster)) == cluster


def test_the_path_is_relative_to_the_scenarios_file(tmp_path, monkeypatch) -> None:
    (tmp_path / "own").mkdir()
    written(tmp_path / "own", CSV)
    scenario = tmp_path / "own" / "mine.yaml"
    scenario.write_text("cluster: {heterogeneity: {file: devices.csv}}\nrun: {steps: 1}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert scenarios.load(scenario).cluster.scale == (1.0, 2.0, 0.5, 1.0)
    other = written(tmp_path, "speed\n4\n")
    changed = scenarios.load(scenario, {"cluster.heterogeneity.file": other})
    assert changed.cluster.scale == (0.25,) * 4
    assert changed.override({"cluster.workers": 2}).cluster.scale == (0.25,) * 2
    based = tmp_path / "based.yaml"
    based.write_text("base: own/mine.yaml\ncluster: {workers: 2}\n", encoding="utf-8")
    assert scenarios.load(based).cluster.scale == (1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("speed,up\n1,5\n1,5,6\n", "line 3: has 3 columns; expected 2: speed, up"),
        ("speed\n1\n\n2,3\n", "line 4: has 2 columns; expected 1: speed"),
        ('speed,up\n1,"5\n6"\n', "line 2: cannot be read: unexpected end of data"),
        ("name,speed\na\x0cb,1\nc\n", "line 3: has 1 columns; expected 2: name, speed"),
        ("speed,up\n1,quick\n", "line 2: up: 'quick' is not valid; expected a quantity such as '10 Gbit/s'"),
        ("speed,up\n0,5\n", "line 2: speed: '0' is not valid; expected a finite number above 0"),
        ("speed\nnan\n", "line 2: speed: 'nan'"),
        ("speed,up [ms]\n1,5\n", "line 1: up: '1 ms' is not valid; expected bytes/s"),
        ("speed,up\n1,5 ms\n", "line 2: up: '5 ms' is not valid; expected bytes/s"),
        ("sped\n1\n", "line 1: column: 'sped' — did you mean 'speed'?"),
        ("speed,speed\n1,1\n", "line 1: column: 'speed' is not valid; expected each column once"),
        ("bandwidth,up\n1,1\n", "line 1: column: 'bandwidth'"),
        ("speed\n", "holds no devices"),
        ("name\nx\n", "measures nothing: expected some of speed, step_time, up, down, latency, bandwidth"),
        ("", "holds no devices"),
    ],
)
def test_what_is_wrong_in_a_csv_is_told_with_its_line(tmp_path, text, says) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ScenarioError) as found:
        build(Cluster, {"heterogeneity": {"file": path}})
    assert str(found.value).startswith("heterogeneity.file: ")
    assert says in str(found.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"file": "nowhere.csv"}, "heterogeneity.file: 'nowhere.csv' cannot be read"),
        ({"file": 3}, "heterogeneity.file: 3 is not valid; expected the path"),
        ({"sped": 1}, "heterogeneity.sped: no such field — did you mean 'speed'?"),
        ({"speed": -1}, "heterogeneity.speed: -1"),
        (
            {"speed": 0.1, "devices": {"speed": [1]}},
            "heterogeneity.speed: 0.1 .* 0 where devices are measured",
        ),
        ({"devices": {"speed": [1], "step_time": [1]}}, "heterogeneity.devices: .* not both"),
        ({"devices": {"speed": [1], "up": [1, 2]}}, "heterogeneity.devices: .* columns of equal length"),
        ({"devices": {"speed": [0]}}, r"heterogeneity.devices.speed\[0\]: 0"),
        ({"devices": {"speed": []}}, "heterogeneity.devices.speed: .* a value for each device"),
        ({"devices": {"sped": [1]}}, "heterogeneity.devices: 'sped'"),
        ({"devices": {"up": [1]}, "per": "worker"}, "heterogeneity.per: 'worker'"),
    ],
)
def test_what_is_wrong_in_a_table_is_refused(given, says) -> None:
    with pytest.raises(ScenarioError, match=says):
        build(Cluster, {"heterogeneity": given})


def test_machines_without_their_workers_cannot_differ() -> None:
    with pytest.raises(ScenarioError, match=r"machines: NICs that differ \(heterogeneity\) need a layout"):
        Cluster(1, machines=(Machine("a"), Machine("b")), heterogeneity=Heterogeneity(bandwidth=1.0))
