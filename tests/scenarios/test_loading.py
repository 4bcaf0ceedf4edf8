"""Scenarios by name and by path, bases, overrides; what cannot be read is said."""

from __future__ import annotations

from pathlib import Path

import pytest

import scenarios
from scenarios.errors import ScenarioError
from scenarios.loading import read
from scenarios.overrides import parse
from scenarios.plan import plan


@pytest.mark.parametrize("name", scenarios.names())
def test_bundled_scenarios_are_valid_and_round_trip(name) -> None:
    scenario = scenarios.load(name)
    assert scenario.name == name
    assert scenario.description
    assert scenarios.Scenario.from_dict(scenario.to_dict()) == scenario


def test_the_bundled_scenarios_are_those_of_the_paper_and_the_demo() -> None:
    assert set(scenarios.names()) >= {"demo", "paper/resnet50", "paper/vgg16", "paper/vgg16-he1"}
    resnet, vgg = scenarios.load("paper/resnet50"), scenarios.load("paper/vgg16")
    assert plan(resnet).parameters == 23_528_522
    assert plan(vgg).parameters == 138_357_544
    assert (resnet.workload.batch, vgg.workload.batch) == (128, 96)
    for scenario in (resnet, vgg):
        assert plan(scenario).machine_of == (0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 2, 3)
        assert {m.up for m in scenario.cluster.machines} == {1.25e9}
    slow = scenarios.load("paper/vgg16-he1")
    assert [(s.ranks, s.factor) for s in slow.cluster.slowdowns] == [((0,), 10.0)]
    assert slow.override({"cluster.slowdowns": [], "name": vgg.name, "description": vgg.description}) == vgg
    demo = plan(scenarios.load("demo"))
    assert 4 * demo.parameters == pytest.approx(4.5e6, rel=0.01)


def test_overrides_by_path() -> None:
    scenario = scenarios.load(
        "paper/vgg16-he1",
        {
            "cluster.workers": "16",
            "cluster.bandwidth": "25 Gbit/s",
            "cluster.slowdowns.0.factor": "2.5",
            "cluster.slowdowns.0.ranks": "[1, 2]",
            "cluster.network.window": "unlimited",
            "run.seconds": "2 min",
            "algorithm.pi": 8,
        },
    )
    assert (scenario.cluster.workers, len(scenario.cluster.machines)) == (16, 8)
    assert scenario.cluster.machines[0].up == 3.125e9
    assert scenario.cluster.slowdowns[0].factor == 2.5
    assert scenario.cluster.slowdowns[0].ranks == (1, 2)
    assert scenario.cluster.network.window == float("inf")
    assert (scenario.run.steps, scenario.run.seconds) == (0, 120.0)
    assert scenario.algorithm.options["pi"] == 8
    assert scenarios.load(scenario) is scenario


def test_another_algorithm_starts_without_the_options_of_the_old_one() -> None:
    base = scenarios.load("paper/resnet50")
    for change in ({"algorithm.name": "bsp"}, {"algorithm": "bsp"}):
        other = base.override(change)
        assert (other.algorithm.name, other.algorithm.options) == ("bsp", {})
        assert other.algorithm.lr == base.algorithm.lr
    assert base.override({"algorithm.name": "aladdin"}) == base
    assert scenarios.load("demo", {"algorithm.name": "aladdin", "algorithm.pi": "3"}).algorithm.options == {
        "pi": 3
    }


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"cluster.wrokers": 3}, "did you mean 'workers'?"),
        ({"cluster.slowdowns.3.factor": 2}, "cluster.slowdowns.3: no such entry; the list has 1"),
        ({"cluster.workers.deep": 2}, "a path to a field"),
        ({"cluster.workers": "[1"}, "a YAML value"),
        ({"cluster.workers": "9" * 5000}, "cluster.workers: '999"),
        ({"cluster.workers": 10**5000}, "cluster.workers: ... (about 5001 digits)"),
        ({"run.steps": None}, "run.steps: null is not valid"),
        ({"run.steps": 3, "run.seconds": 3}, "exactly one"),
    ],
)
def test_bad_overrides(overrides, says) -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.load("paper/vgg16-he1", overrides)
    assert says in str(error.value)


def test_assignments_are_parsed() -> None:
    assert parse(["a.b=1", "c = x=y"]) == {"a.b": "1", "c": "x=y"}
    with pytest.raises(ScenarioError, match="PATH=VALUE"):
        parse(["cluster.workers"])


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_files_and_bases(tmp_path) -> None:
    write(
        tmp_path / "base.yaml", "cluster: {workers: 2, bandwidth: 1 GB/s}\nrun: {steps: 3}\nalgorithm: asp\n"
    )
    child = write(tmp_path / "child.yaml", "base: base.yaml\ncluster: {workers: 3}\n")
    scenario = scenarios.load(child)
    assert (scenario.name, scenario.cluster.workers, scenario.cluster.machines[0].up) == ("child", 3, 1e9)
    other = scenarios.load(
        write(tmp_path / "o.yaml", "base: paper/vgg16\nalgorithm: bsp\nrun: {seconds: 3}\n")
    )
    assert (other.algorithm.name, other.algorithm.options, other.algorithm.lr) == ("bsp", {}, 0.05)
    assert (other.run.steps, other.run.seconds) == (0, 3.0)
    assert scenarios.load(write(tmp_path / "of-demo.yaml", "base: demo\nrun: {seed: 4}\n")).run.seed == 4
    # machines one by one, in place of the base's equal ones
    machines = [{"name": "a", "workers": 3}, {"name": "b", "up": "2 GB/s"}]
    text = f"base: base.yaml\ncluster: {{workers: 3, machines: {machines}}}\n"
    listed = scenarios.load(write(tmp_path / "listed.yaml", text))
    assert [machine.name for machine in listed.cluster.machines] == ["a", "b"]
    for name in ("demo", "paper/vgg16"):  # which says how fast its machines are inside
        change = {"cluster.machines": [{"name": "a", "workers": 3}, {"name": "b"}], "cluster.workers": 3}
        change["cluster.servers"] = {"count": 1}
        for found in (scenarios.load(name, change), scenarios.load(name).override(change)):
            assert [machine.name for machine in found.cluster.machines] == ["a", "b"]
            assert found.cluster.layout is None
    again = {"cluster.machines": [{"name": "c", "workers": 1}, {"name": "d", "workers": 2}, {"name": "e"}]}
    assert listed.override(again).cluster.placement == (0, 1, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "is not valid YAML"),
        ("- 1", "is no scenario"),
        ("", "is no scenario"),
        (
            "run: {steps: 1}\ncluster:\n  workers: 2\n  workers: 3\n",
            "line 4: workers stands twice in one table",
        ),
        ("run: {steps: 1}\nrun: {steps: 2}\n", "line 2: run stands twice"),
        ("base: 3\n", "name or path"),
        ("base: bad.yaml\n", "not based on itself"),
        ("base: dmeo\n", "base: 'dmeo' is neither a bundled scenario"),
        ("? [1, 2]\n: 3\n", "line 1: a name of a field is text"),
        ("a: &a [*a]\n", "line 1: it contains itself"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: " + "[" * 40 + "]" * 40, "nested too deeply"),
        ("run:\n  steps: !!int abc\n", "line 2, column 10: this is no int"),
        ("run: {seconds: !!float abc}\n", "this is no float"),
        ("run: {seconds: !!timestamp abc}\n", "this is no timestamp"),
        ("run: {spans: !!bool abc}\n", "this is no bool"),
        ("run: {steps: 010}\n", "line 1, column 14: 010 would be octal or a time of day"),
        ("run: {seconds: 1:30}\n", "1:30 would be octal or a time of day"),
        ("run: {seconds: -01:30.5}\n", "-01:30.5 would be"),
        ("run: {seconds: 00.5, steps: 3}\n", "exactly one of steps"),
        ("run: {steps: " + "9" * 5000 + "}\n", "line 1, column 14: this is no int"),
        ("name: a\n---\nname: b\n", "another document"),
        ("base: ../{folder}/bad.yaml\n", "not based on itself"),
        ("run: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_bad_files(tmp_path, text, says) -> None:
    with pytest.raises(ScenarioError) as error:
        scenarios.load(write(tmp_path / "bad.yaml", text.replace("{folder}", tmp_path.name)))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_names(tmp_path) -> None:
    with pytest.raises(ScenarioError, match=r"'paper/vgg61' is neither .* did you mean 'paper/vgg16'\?"):
        scenarios.load("paper/vgg61")
    with pytest.raises(ScenarioError, match="cannot be read"):
        scenarios.load(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="cannot be read"):
        scenarios.load(tmp_path / "binary.yaml")


def test_equal_keys_in_different_tables_are_fine() -> None:
    assert read("a: {x: 1}\nb: {x: 2}\n") == {"a": {"x": 1}, "b": {"x": 2}}


def test_aliases_of_aliases_are_read_in_no_time() -> None:
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 25)]
    with pytest.raises(ScenarioError, match="a0: no such field"):
        scenarios.Scenario.from_dict(read("\n".join(["a0: &a0 [x]", *lines])))


def test_dates_and_a_byte_order_mark(tmp_path) -> None:
    for text in ("2020-13-45", "2020-12-31"):
        path = write(tmp_path / "a.yaml", f"\ufeffdescription: {text}\nrun: {{steps: 1}}\n")
        assert scenarios.load(path).description == text


def test_an_algorithm_as_a_table() -> None:
    for given in ("{name: bsp, lr: 0.25}", {"name": "bsp", "lr": 0.25}):
        chosen = scenarios.load("demo", {"algorithm": given}).algorithm
        assert (chosen.name, chosen.lr) == ("bsp", 0.25)
    for given in ("", "3", "{name: }", "[asp]"):
        with pytest.raises(ScenarioError, match=r"algorithm: .* expected an algorithm's name"):
            scenarios.load("demo", {"algorithm": given})
    with pytest.raises(ScenarioError, match=r"algorithm\.name: null"):
        scenarios.load("demo", {"algorithm.name": ""})
