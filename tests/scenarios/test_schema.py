"""Bad input is refused with the field's path, the value and what is valid; good input round-trips."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.algorithms import ALGORITHMS
from scenarios.errors import ScenarioError
from scenarios.schema import (
    AlgorithmChoice,
    Cluster,
    Layout,
    Network,
    Run,
    Scenario,
    Servers,
    Slowdown,
    StepTime,
    Workload,
)

TREE = {
    "name": "small",
    "cluster": {
        "workers": 4,
        "workers_per_machine": 2,
        "bandwidth": "10 Gbit/s",
        "latency": "50 us",
        "servers": {"count": 2, "placement": "beside"},
        "compute": {"model": "gamma", "mean": "50 ms", "spread": 0.1},
        "slowdowns": [{"ranks": [1], "factor": 4}],
        "network": {"inbox": "unlimited"},
    },
    "algorithm": {"name": "aladdin", "pi": 2, "lr": 0.1},
    "run": {"steps": 5},
}

BAD = [
    ("algorithm.name", "aladin", "did you mean 'aladdin'?"),
    ("algorithm.name", "no.such.module:Thing", "importable"),
    ("algorithm.name", "..aladdin", "importable"),
    ("algorithm.name", "tests.scenarios.fails:Thing", "importable module:Class (ZeroDivisionError: "),
    ("algorithm.name", "pathlib:Path", "a class that has worker, server"),
    ("algorithm.pi", 0, "algorithm.pi: 0 is not valid; expected a whole number of at least 1"),
    ("algorithm.alpha", 1.5, "algorithm.alpha: 1.5"),
    ("algorithm.alpha", -0.1, "algorithm.alpha: -0.1"),
    ("algorithm.pie", 2, "algorithm.pie: no such field — did you mean 'pi'?"),
    ("algorithm.lr", 0, "algorithm.lr: 0 is not valid; expected a finite number above 0"),
    ("algorithm.lr", "nan", "algorithm.lr: 'nan'"),
    ("algorithm.momentum", 1.0, "[0, 1)"),
    ("algorithm.decay", 2, "of at most 1"),
    ("algorithm.milestones", [3, 2], "rising order"),
    ("algorithm.lr_scaling", "lineal", "did you mean 'linear'?"),
    ("cluster.workers", 0, "cluster.workers: 0 is not valid; expected a whole number of at least 1"),
    ("cluster.workers", -3, "of at least 1"),
    ("cluster.workers", 10**12, "of at most 1000000"),
    ("cluster.workers", 10**400, "cluster.workers: 1000"),
    ("cluster.workers", 2.5, "cluster.workers: 2.5"),
    ("cluster.workers", "many", "cluster.workers: 'many'"),
    ("cluster.workers", True, "cluster.workers: True"),
    ("cluster.wrokers", 4, "cluster.wrokers: no such field — did you mean 'workers'?"),
    ("cluster.bandwith", 4, "did you mean 'bandwidth'?"),
    ("cluster.bandwidth", "10 Gbits/s", "did you mean 'Gbit/s'?"),
    ("cluster.bandwidth", 0, "cluster.bandwidth: 0"),
    ("cluster.bandwidth", "-1 GB/s", "cluster.bandwidth: '-1 GB/s'"),
    ("cluster.bandwidth", math.nan, "cluster.bandwidth: nan"),
    ("cluster.bandwidth", math.inf, "cluster.bandwidth: inf"),
    ("cluster.bandwidth", "inf", "cluster.bandwidth: 'inf'"),
    ("cluster.bandwidth", 10**400, "cluster.bandwidth: 1000"),
    ("cluster.bandwidth", "1e999999 GB/s", "cluster.bandwidth: '1e999999 GB/s'"),
    ("cluster.compute.scale", [10**400], "cluster.compute.scale[0]: 1000"),
    ("cluster.latency", "-1 us", "of at least 0"),
    ("cluster.latency", "5 MB", "not bytes"),
    ("cluster.layout", {}, "stand directly under cluster"),
    ("cluster.network.window", 0, "of at least 1 or 'unlimited'"),
    ("cluster.network.inbox", -1, "cluster.network.inbox: -1"),
    ("cluster.network.admission", "lifo", "fifo, fair, or a whole number"),
    ("cluster.network.admission", 0, "cluster.network.admission: 0"),
    ("cluster.network.collective", "gloo", "cluster.network.collective: 'gloo'"),
    ("cluster.network.overhead", math.inf, "cluster.network.overhead: inf"),
    ("cluster.servers.count", 0, "of at least 1"),
    ("cluster.servers.placement", ["machine0", "mashine1"], "did you mean 'machine1'?"),
    ("cluster.servers.placement", "machine0", "for each of 2 servers"),
    ("cluster.servers.sharding", "row", "cluster.servers.sharding: 'row'"),
    ("cluster.slowdowns", [{"ranks": [4], "factor": 2}], "cluster.slowdowns[0].ranks: 4"),
    ("cluster.slowdowns", [{"ranks": [1, 1], "factor": 2}], "each rank once"),
    ("cluster.slowdowns", [{"kind": "fixd"}], "cluster.slowdowns[0].kind: 'fixd' — did you mean 'fixed'?"),
    ("cluster.slowdowns", [{"kind": "transient", "factor": 2}], "mean_on"),
    ("cluster.slowdowns", [{"kind": "scheduled"}], "intervals"),
    ("cluster.slowdowns", [{"kind": "scheduled", "intervals": [[2, 1, 3]]}], "before the end"),
    ("cluster.slowdowns", [{"kind": "heavy_tailed", "shape": 1}], "above 1"),
    ("cluster.slowdowns", [{"kind": "heavy_tailed", "factor": 3}], "heavy_tailed slow-down has shape"),
    ("cluster.slowdowns", [{"mean_on": "1 s", "factor": 3}], "a fixed slow-down has factor"),
    ("cluster.slowdowns", [{"factor": 3, "intervals": [[1, 2, 3]]}], "a fixed slow-down has factor"),
    ("workload", {"model": "cnn", "hidden": [], "image_size": 1}, "at least 2 pixels for cnn"),
    ("algorithm", {"name": "aladdin", "alpha": math.nan}, "algorithm.alpha: nan"),
    ("cluster.slowdowns", [{"factor": 0}], "cluster.slowdowns[0].factor: 0"),
    ("cluster.compute.model", "normal", "did you mean 'lognormal'?"),
    ("cluster.compute.mean", "0 s", "cluster.compute.mean"),
    ("cluster.compute", {"spread": 0.1}, "0 for model constant"),
    ("cluster.compute", {"model": "empirical"}, "measured step times"),
    ("cluster.compute", {"model": "shifted_exponential", "spread": 1.1}, "[0, 1]"),
    ("cluster.compute.scale", [1, 2], "for each of 4 workers"),
    ("cluster.tensor_rates", {"aply": 1e9}, "tensor_rates.aply: no such field — did you mean 'apply'?"),
    ("cluster.tensor_seconds", {"send": 1}, "tensor_seconds.send: no such field — known: accumulate, apply"),
    ("cluster.tensor_rates", {"apply": math.nan}, "cluster.tensor_rates.apply: nan"),
    ("cluster.machines", 1, "at least 2, for 4 workers, 2 each"),
    ("cluster", 3, "cluster: 3 is not valid; expected a table"),
    ("workload.model", "resnet", "did you mean 'resnet50'?"),
    ("workload.data", "digit", "did you mean 'digits'?"),
    ("workload.batch", 0, "workload.batch: 0"),
    ("workload.parameters", 1, "cluster.servers.count: 2 is not valid; expected between 1 and 1"),
    ("workload.parameters", -1, "workload.parameters: -1"),
    ("workload.classes", 3, "at least 10"),
    ("workload", {"model": "cnn", "hidden": [3]}, "layers of its own"),
    ("workload", {"model": "vgg16"}, "image_size"),
    ("run.steps", 0, "exactly one of steps, seconds and samples"),
    ("run.seconds", "-2 s", "run.seconds: '-2 s'"),
    ("run", {"steps": 3, "samples": 10}, "got steps 3, samples 10"),
    ("run.links", "knotted", "run.links: 'knotted'"),
    ("run.device", "gpu", "run.device: 'gpu'"),
    ("run.spans", "yes", "true or false"),
    ("run.seed", -1, "run.seed: -1"),
    ("run.server_restarts", -1, "run.server_restarts: -1"),
    ("run.checkpoint_every", "1 s", "run.checkpoint_every: 1.0 is not valid; expected 0 where"),
    ("run", {"steps": 5, "server_restarts": 1, "checkpoint_every": 1e-4}, "0 or at least 1 ms"),
    (
        "cluster.bandwidth",
        "1e300",
        "cluster.bandwidth: '1e300' is not valid; expected a finite rate in bytes/s of at most 1e+18",
    ),
    ("cluster.bandwidth", 1e-300, "of at least 0.001"),
    ("cluster.latency", 1e300, "a finite time in seconds of at most 1e+09"),
    ("cluster.compute", {"model": "lognormal", "spread": 1e200}, "cluster.compute.spread: 1e+200"),
    ("cluster.compute", {"model": "lognormal", "spread": 100}, "a number of at most 10"),
    ("cluster.compute", {"model": "gamma", "spread": 1e9}, "cluster.compute.spread"),
    ("cluster.compute.mean", 1e300, "of at most 1e+09"),
    ("cluster.compute.mean", 1e-300, "of at least 1e-09"),
    ("cluster.compute.scale", [1, 1, 1, 1e9], "of at most 1e+06"),
    (
        "cluster.slowdowns",
        [{"kind": "fixed"}],
        "cluster.slowdowns[0].factor: 1.0 is not valid; expected a factor other",
    ),
    ("cluster.slowdowns", [{"kind": "transient", "mean_on": 1, "mean_off": 1}], "other than 1"),
    ("cluster.slowdowns", [{"kind": "transient", "factor": 2, "mean_on": 1e-30, "mean_off": 1}], "mean_on"),
    ("cluster.slowdowns", [{"factor": 1e300}], "of at most 1e+06"),
    ("cluster.network.window", 1e300, "of at most 1000000000000"),
    ("algorithm.lr", 1e300, "algorithm.lr: 1e+300 is not valid; expected a finite number of at most 1e+06"),
    ("workload.weight_decay", 1e300, "of at most 1000"),
    ("workload.batch", 1438, "at most 1437, the training samples of digits"),
    ("workload.batch", 1e9, "at most 1437"),
    ("workload.parameters", 1e30, "of at most 100000000000000"),
    ("run.seed", 2**64, "of at most 9223372036854775807"),
    (
        "run.steps",
        10**12,
        "run.steps: 1000000000000 is not valid; expected at most 25000000: 100,000,000 steps of all 4",
    ),
    ("run", {"samples": 10**12}, "run.samples: 1000000000000 is not valid; expected at most 3200000000"),
    ("run", {"seconds": 1e9}, "run.seconds: 1000000000.0 is not valid; expected at most 1250000"),
    ("nmae", "x", "nmae: no such field — did you mean 'name'?"),
]


def put(tree: dict, path: str, value: object) -> dict:
    head, _, rest = path.partition(".")
    inner = tree.get(head)
    return tree | {head: put(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}


@pytest.mark.parametrize(("path", "value", "says"), BAD)
def test_bad_input(path, value, says) -> None:
    with pytest.raises(ScenarioError) as error:
        Scenario.from_dict(put(TREE, path, value))
    assert says in str(error.value)
    assert str(error.value).startswith(path.split(".")[0].split("[")[0]) or "servers.count" in says


def test_a_missing_budget_hides_no_other_mistake_and_is_told_by_its_path() -> None:
    with pytest.raises(ScenarioError, match=r"^cluster\.worker: no such field — did you mean 'workers'"):
        Scenario.from_dict({"cluster": {"worker": 4}})
    with pytest.raises(ScenarioError, match=r"^run\.steps: exactly one of .* got none"):
        Scenario.from_dict({"cluster": {"workers": 4}})


def test_paced_links_with_a_native_collective() -> None:
    paced = put(put(TREE, "algorithm", "arsgd"), "run.links", "paced")
    with pytest.raises(
        ScenarioError, match=r"cluster\.network\.collective: 'native'.*messages.*bypass paced links"
    ):
        Scenario.from_dict(paced)
    assert Scenario.from_dict(put(paced, "cluster.network.collective", "messages")).run.links == "paced"
    assert Scenario.from_dict(put(paced, "algorithm", "bsp")).run.links == "paced"


def test_restarts_of_servers_where_there_are_none() -> None:
    """Asked for they are refused; those of another algorithm go with it, as its options do."""
    restarting = put(TREE, "run", {"steps": 5, "server_restarts": 2, "checkpoint_every": 1})
    refused = r"^run\.server_restarts: 2 is not valid; expected 0: arsgd has no servers$"
    with pytest.raises(ScenarioError, match=refused):
        Scenario.from_dict(put(restarting, "algorithm", "arsgd"))
    served = Scenario.from_dict(restarting)
    with pytest.raises(ScenarioError, match=refused):
        served.override({"algorithm.name": "arsgd", "run.server_restarts": 2})
    other = served.override({"algorithm.name": "arsgd"}).run
    assert (other.steps, other.server_restarts, other.checkpoint_every) == (5, 0, 0)
    assert served.override({"algorithm.name": "bsp"}).run == served.run


def test_more_layers_than_shards_only_matters_where_layers_are_kept_whole() -> None:
    by_layer = put(TREE, "cluster.servers", {"count": 3, "placement": "beside", "sharding": "layer"})
    with pytest.raises(
        ScenarioError, match=r"cluster\.servers\.count: 3 .* between 1 and 2, the number of layers"
    ):
        Scenario.from_dict(by_layer)
    assert Scenario.from_dict(put(by_layer, "algorithm", "arsgd")).cluster.servers.count == 3


def test_python_objects_and_trees_are_equal() -> None:
    made = Scenario(
        name="small",
        cluster=Cluster(
            workers=4,
            layout=Layout(workers_per_machine=2, bandwidth=1.25e9, latency=50e-6),
            servers=Servers(count=2, placement="beside"),
            compute=StepTime("gamma", 0.05, 0.1),
            slowdowns=(Slowdown(ranks=(1,), factor=4.0),),
            network=Network(inbox=math.inf),
        ),
        algorithm=AlgorithmChoice("aladdin", {"pi": 2}, lr=0.1),
        run=Run(steps=5),
    )
    assert made == Scenario.from_dict(TREE)


def test_units_are_read_from_python_too() -> None:
    assert Layout(bandwidth="10 Gbit/s").bandwidth == 1.25e9  # type: ignore[arg-type]
    assert Run(seconds="2 min").seconds == 120.0  # type: ignore[arg-type]


@given(
    name=st.sampled_from(sorted(ALGORITHMS)),
    workers=st.integers(2, 9),
    admission=st.sampled_from(["fifo", "fair", 1, 3]),
    window=st.sampled_from([1, 2, "unlimited"]),
    placement=st.sampled_from(["dedicated", "beside"]),
    budget=st.sampled_from([{"steps": 3}, {"seconds": 1.5}, {"samples": 100}]),
    kind=st.sampled_from(
        [{"kind": "fixed", "factor": 3}, {"kind": "transient", "factor": 2, "mean_on": 1, "mean_off": "2 s"}]
    ),
)
def test_round_trip(name, workers, admission, window, placement, budget, kind) -> None:
    scenario = Scenario.from_dict(
        {
            "algorithm": name,
            "cluster": {
                "workers": workers,
                "servers": {"count": 2, "placement": placement},
                "network": {"admission": admission, "window": window},
                "slowdowns": [{"ranks": "all", **kind}],
            },
            "run": budget,
        }
    )
    tree = json.loads(json.dumps(scenario.to_dict(), allow_nan=False))
    assert Scenario.from_dict(tree) == scenario


def test_a_users_own_algorithm_by_its_path() -> None:
    for spelled in ("core.algorithms.asp:ASP", "core.algorithms.asp.ASP"):
        assert AlgorithmChoice(spelled).make() == AlgorithmChoice("asp").make()


def test_images_too_small_for_the_model() -> None:
    with pytest.raises(ScenarioError, match="image_size"):
        Workload(model="resnet50", data="synthetic", image_size=16)


PATHS = sorted(
    {path for path, _, _ in BAD} | {"cluster.slowdowns.0.factor", "cluster.tensor_rates", "algorithm"}
)
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=3),
    st.sampled_from(["unlimited", "10 Gbit/s", "1e999", "-0", "0x10", "1_000", "{}", "[]", "dedicated"]),
    st.lists(st.integers(-1, 5), max_size=3),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


@given(path=st.sampled_from(PATHS), value=JUNK)
def test_whatever_is_given_is_a_scenario_or_a_clear_error(path, value) -> None:
    try:
        scenario = Scenario.from_dict(TREE).override({path: value})
    except ScenarioError:
        return
    assert Scenario.from_dict(json.loads(json.dumps(scenario.to_dict(), allow_nan=False))) == scenario
