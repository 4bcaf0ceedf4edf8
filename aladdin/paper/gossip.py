"""D-PSGD's Table 1, Figures 2c, 2d and 3b, and 112 nodes; AD-PSGD's 128 workers on a shared network.

Rules this module obeys:

* Traffic is counted in what passes through the busiest node, in and out, in models per step of every worker.
* An epoch's time is that of its samples at the simulated throughput.
* Batches and step times, which the papers do not give, are assumptions of the bundled scenarios. So what is
  compared are ratios and where they come about, never seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import log
from typing import Any

from aladdin.paper.cases import Case, Results, case
from analysis.paper import Claim, Picture, Section, Series, Table, published
from analysis.paper.sections import mean_of, shown

__all__ = [
    "bandwidth", "channels", "large", "shared", "traffic", "wanted_bandwidth", "wanted_channels",
    "wanted_large", "wanted_shared", "wanted_traffic",
]  # fmt: skip

BASE, SHARED = "paper/dpsgd-resnet20", "paper/adpsgd-resnet50"
MODEL_BYTES = 4 * 272474
COMPUTE = {"model": "lognormal", "mean": "50 ms", "spread": 0.05}

KINDS: dict[str, dict[str, Any]] = {
    "all-reduce (CNTK)": {"algorithm.name": "arsgd"},
    "parameter server": {"algorithm.name": "bsp"},
    "D-PSGD, ring": {},
}
LOOKS = {
    **dict(zip(KINDS, ("arsgd", "bsp", "dpsgd"), strict=True)),
    "D-PSGD, exponential": "adpsgd", "D-PSGD, complete": "gosgd",
}  # fmt: skip

# Table 1

NODES = (4, 8, 16, 32, 64)
GRAPHS = ("D-PSGD, ring", "D-PSGD, exponential", "D-PSGD, complete")


def _traffic(kind: str, nodes: int) -> Case:
    changes = dict(KINDS.get(kind, {}))
    if kind.startswith("D-PSGD, "):
        changes["algorithm.options.graph"] = kind.removeprefix("D-PSGD, ")
    steps = {"cluster.workers": nodes, "run.steps": 40, "run.warmup_steps": 2}
    return case(BASE, {**changes, **steps})


def wanted_traffic() -> Iterable[Case]:
    """All cases of D-PSGD's Table 1."""
    return (_traffic(kind, n) for kind in (*KINDS, *GRAPHS) for n in NODES)


def traffic(results: Results) -> Section:
    """Communication on the busiest node as a function of n."""
    found: dict[str, dict[int, Any]] = {
        kind: {n: results.estimate(_traffic(kind, n), "busiest", "bytes_per_step", by=_models) for n in NODES}
        for kind in dict.fromkeys((*KINDS, *GRAPHS))
    }
    ours = {kind: {n: mean_of(value) for n, value in values.items()} for kind, values in found.items()}
    slopes = {kind: _slope(values) for kind, values in ours.items()}
    rows = [[kind, *values.values(), f"n^{slopes[kind]:.2f}"] for kind, values in found.items()]
    columns = ("", *(f"n = {n}" for n in NODES), "grows as")
    server, ring, full = slopes["parameter server"], slopes["D-PSGD, ring"], ours["D-PSGD, complete"]
    claims = [
        Claim("C-PSGD's communication on the busiest node grows as n", "Table 1", abs(server - 1) < 0.1,
              f"measured n^{server:.2f}"),
        Claim("D-PSGD's grows as the degree of its graph: not at all on a ring", "Table 1", abs(ring) < 0.1,
              f"measured n^{ring:.2f}, {ours['D-PSGD, ring'][64]:.1f} models with 64 nodes"),
        Claim("D-PSGD's is twice the degree (in and out)", "Table 1",
              all(abs(full[n] / (2 * (n - 1)) - 1) < 0.1 for n in NODES),
              f"complete graph of 64: {full[64]:.1f} models per step, degree 63"),
    ]  # fmt: skip
    panels = {"": [Series(kind, list(values.items()), LOOKS.get(kind, "")) for kind, values in ours.items()]}
    return Section(
        "dpsgd-table1", "D-PSGD, Table 1: communication on the busiest node", "D-PSGD, Table 1",
        [Table("Models through the busiest node per step", columns, rows)],
        claims, [Picture("dpsgd-table1", "Traffic of the busiest node", panels, "nodes", "models per step",
                         log="xy")], (), [_traffic("D-PSGD, ring", 16).command], {"slopes": slopes},
    )  # fmt: skip


def _models(count: float) -> float:
    return count / MODEL_BYTES


def _slope(values: dict[int, float]) -> float:
    """Exponent between the last two sizes that are compared."""
    first, last = NODES[-3], NODES[-1]
    return log(values[last] / values[first]) / log(last / first)


# Figures 2c and 2d

BANDWIDTHS: dict[str, float] = {
    "10 Gbit/s": 10_000, "1 Gbit/s": 1000, "300 Mbit/s": 300, "100 Mbit/s": 100, "30 Mbit/s": 30,
    "10 Mbit/s": 10, "3 Mbit/s": 3,
}  # fmt: skip
LATENCIES = {"0.1 ms": 0.1, "0.3 ms": 0.3, "1 ms": 1, "3 ms": 3, "10 ms": 10, "30 ms": 30, "100 ms": 100}
AXES = {"bandwidth": ("dpsgd-figure2c", "Mbit/s"), "latency": ("dpsgd-figure2d", "ms")}
GPUS = (7, 10)
"""Those of the figure, by its caption."""


def _epoch(kind: str, workers: int, **changes: str) -> Case:
    paths = {f"cluster.{name}": value for name, value in changes.items()}
    return case(BASE, {**KINDS[kind], **({"cluster.workers": workers} if workers != 7 else {}), **paths})


def wanted_bandwidth() -> Iterable[Case]:
    """All cases of D-PSGD's Figures 2c and 2d."""
    for kind in KINDS:
        for workers in GPUS:
            yield from (_epoch(kind, workers, bandwidth=value) for value in BANDWIDTHS)
            yield from (_epoch(kind, workers, latency=value) for value in LATENCIES)


def bandwidth(results: Results) -> Section:
    """Epoch times against bandwidth and against latency."""
    sweeps: dict[str, dict[str, float]] = {"bandwidth": BANDWIDTHS, "latency": LATENCIES}
    tables, pictures = [], []
    gains: dict[tuple[str, str, int], dict[str, float]] = {}
    for workers in GPUS:
        for what, values in sweeps.items():
            ours = {
                kind: {v: _seconds(results, _epoch(kind, workers, **{what: v})) for v in values}
                for kind in KINDS
            }
            rows: list[list[Any]] = [[kind, *times.values()] for kind, times in ours.items()]
            for kind in tuple(KINDS)[:2]:
                ratio = {v: mean_of(ours[kind][v]) / mean_of(ours["D-PSGD, ring"][v]) for v in values}
                gains[kind, what, workers] = ratio
                rows.append([f"{kind} / D-PSGD", *ratio.values()])
            title = f"{workers} GPUs, seconds per epoch by {what}"
            tables.append(Table(title, ("", *values), rows))
            if workers == GPUS[0]:
                name, unit = AXES[what]
                lines = [
                    Series(kind, [(values[v], mean_of(t)) for v, t in times.items()], LOOKS[kind])
                    for kind, times in ours.items()
                ]
                heading = f"Epoch of ResNet-20 by {what}, {workers} GPUs"
                axis = f"{what} in {unit}"
                pictures.append(Picture(name, heading, {"": lines}, axis, "seconds per epoch", log="xy"))
    return Section(
        "dpsgd-figure2", "D-PSGD, Figure 2c and d: epoch time by bandwidth and latency",
        published("dpsgd.source"), tables, _gains(gains), pictures, (),
        [_epoch("D-PSGD, ring", 7, bandwidth="10 Mbit/s").command],
        {f"{k}/{w}/{n}": max(r.values()) for (k, w, n), r in gains.items()},
    )  # fmt: skip


def _seconds(results: Results, one: Case) -> dict[str, Any]:
    return results.estimate(one, "throughput", by=lambda rate: 50_000 / rate)


def _gains(gains: dict[tuple[str, str, int], dict[str, float]]) -> list[Claim]:
    central, reduce = "parameter server", "all-reduce (CNTK)"
    similar = [gains[kind, "bandwidth", 7]["10 Gbit/s"] for kind in (central, reduce)]
    low = {kind: gains[kind, "bandwidth", 7]["3 Mbit/s"] for kind in (central, reduce)}
    high = {kind: gains[kind, "latency", 7]["100 ms"] for kind in (central, reduce)}
    best = max(gains, key=lambda key: max(gains[key].values()))
    most = max(gains[best].values())
    server = max(max(ratios.values()) for key, ratios in gains.items() if key[0] == central)
    return [
        Claim("On a fast network all three take similar times (within a factor of 2)", "section 5.2",
              max(similar) < 2, f"at most {max(similar):.2f} times D-PSGD's"),
        Claim("D-PSGD outperforms the parameter server where bandwidth is low", "section 5.2",
              low[central] > 1.5, f"{low[central]:.1f} times as fast at 3 Mbit/s, 7 GPUs"),
        Claim("D-PSGD outperforms all-reduce where latency is high", "section 5.2", high[reduce] > 1.5,
              f"{high[reduce]:.1f} times as fast at 100 ms, 7 GPUs"),
        Claim("All-reduce slows down significantly where bandwidth is low, D-PSGD less", "section 5.2",
              low[reduce] > 1.5, f"D-PSGD {low[reduce]:.2f} times as fast at 3 Mbit/s, 7 GPUs"),
        Claim("D-PSGD is up to an order of magnitude faster on slow networks", "abstract", most >= 10,
              f"{most:.1f} times as fast as {best[0]}, {best[2]} GPUs, worst {best[1]}; over the parameter "
              f"server never more than {server:.1f} times"),
    ]  # fmt: skip


# 7 GPUs with shared PCIe channels

COUNTS = range(1, 8)
RATES = {"50 MB/s": 50, "62 MB/s": 62, "75 MB/s": 75, "100 MB/s": 100, "300 MB/s": 300, "1 GB/s": 1000}


def _channels(workers: int, rate: str) -> Case:
    machine = {"up": rate, "down": rate, "latency": "5 us", "local_bandwidth": rate}
    machines = [{"name": f"channel{i}", **machine} for i in range(4)]
    machines.append({"name": "host", **machine})
    placement = [rank % 4 for rank in range(workers)]
    return case(BASE, {"cluster": {
        "workers": workers, "machines": machines, "placement": placement, "compute": COMPUTE,
        "servers": {"count": 1, "placement": ["host"]}, "network": {"admission": "fair"},
    }})  # fmt: skip


def wanted_channels() -> Iterable[Case]:
    """All cases of D-PSGD's Figure 3b."""
    return (_channels(n, rate) for rate in RATES for n in COUNTS if n > 1)


def channels(results: Results) -> Section:
    """D-PSGD's speed-up on one machine whose GPUs share four PCIe channels."""
    found = {rate: {n: results.estimate(_channels(n, rate), "speedup") if n > 1 else 1.0
                    for n in COUNTS} for rate in RATES}  # fmt: skip
    ours = {rate: {n: mean_of(value) for n, value in values.items()} for rate, values in found.items()}
    target = published("dpsgd.speedup_of_7")
    both = [rate for rate, v in ours.items() if v[4] >= 3.6 and abs(v[7] / target - 1) <= 0.1]
    likely = [rate for rate in both if RATES[rate] >= 1000]
    rows = [[rate, *values.values()] for rate, values in found.items()]
    columns = ("payload rate of a channel", *(f"n = {n}" for n in COUNTS))
    where = f"at {', '.join(both)}" if both else "at no rate that was tried"
    claims = [
        Claim("Nearly linear up to 4 GPUs and about 5 times with 7, since channels are shared", "section 5.2",
              bool(likely), f"both come about {where}; PCIe carries gigabytes per second"),
    ]  # fmt: skip
    panels = {"": [Series(rate, list(values.items())) for rate, values in ours.items()]}
    picture = Picture("dpsgd-figure3", "D-PSGD on four PCIe channels", panels, "GPUs", "speed-up", line=True)
    return Section(
        "dpsgd-figure3", "D-PSGD, Figure 3b: speed-up of 7 GPUs", published("dpsgd.source"),
        [Table("Speed-up over one GPU, time per epoch", columns, rows)], claims, [picture], (),
        [_channels(7, "75 MB/s").command], {rate: values[7] for rate, values in ours.items()},
    )  # fmt: skip


# 112 nodes

MANY = 112


def _large(kind: str) -> Case:
    machines = [{"name": f"ec2-{i}", "up": "10 Gbit/s", "down": "10 Gbit/s", "latency": "50 us",
                 "workers": 16 if i < 4 else 8} for i in range(10)]  # fmt: skip
    machines.append({"name": "server", "up": "10 Gbit/s", "down": "10 Gbit/s", "latency": "50 us"})
    cluster = {
        "workers": MANY, "machines": machines, "compute": COMPUTE,
        "servers": {"count": 1, "placement": ["server"]},
        "network": {"collective": "messages", "allreduce": "ring"},
    }  # fmt: skip
    return case(BASE, {"cluster": cluster, **KINDS[kind], "run.steps": 12})


def wanted_large() -> Iterable[Case]:
    """Cases with 112 nodes."""
    return (_large(kind) for kind in KINDS)


def large(results: Results) -> Section:
    """Epoch times with 112 GPUs."""
    ours = {kind: _seconds(results, _large(kind)) for kind in KINDS}
    rows = [[kind, value] for kind, value in ours.items()]
    fastest = min(ours, key=lambda kind: mean_of(ours[kind]))
    claims = [
        Claim("D-PSGD converges like centralized SGD, by epochs, also with 112 nodes", "section 5.2", None,
              "needs CIFAR-10 and a GPU; 8 workers on small images are in the accuracy part"),
        Claim("D-PSGD's epochs are the fastest with 112 nodes", "section 5.2 (implied)",
              fastest == "D-PSGD, ring", ", ".join(f"{k} {mean_of(v):.2f} s" for k, v in ours.items())),
    ]  # fmt: skip
    return Section(
        "dpsgd-112", "D-PSGD with 112 nodes", published("dpsgd.source"),
        [Table("4 machines of 16 GPUs, 6 of 8, 10 Gbit/s", ("", "seconds per epoch"), rows)], claims, (), (),
        [_large("D-PSGD, ring").command],
    )  # fmt: skip


# AD-PSGD

TENANTS = {"all links free": 1, "one link at 1/2": 2, "at 1/4": 4, "at 1/8": 8, "at 1/16": 16, "at 1/32": 32}
SLOW = "one worker ×10 slower"
CONDITIONS = (*TENANTS, SLOW)
ASYNCHRONOUS: dict[str, dict[str, Any]] = {
    "all-reduce": {"algorithm.name": "arsgd"},
    "A-PSGD, one server": {"algorithm.name": "asp"},
    "D-PSGD, ring": {"algorithm.name": "dpsgd", "algorithm.options.graph": "ring"},
    "AD-PSGD": {},
}


def _shared(kind: str, condition: str) -> Case:
    """On a ring a delay travels one place per step: it takes 64 steps until all 128 feel it."""
    share = TENANTS.get(condition, 1)
    machine = {"latency": "10 us", "local_bandwidth": "8 GB/s"}
    rates = [10 / share if i == 0 else 10 for i in range(32)]
    machines = [{"name": f"machine{i}", "up": f"{rate:g} Gbit/s", "down": f"{rate:g} Gbit/s", "workers": 4,
                 **machine} for i, rate in enumerate(rates)]  # fmt: skip
    machines.append({"name": "server", "up": "10 Gbit/s", "down": "10 Gbit/s", **machine})
    cluster: dict[str, Any] = {
        "workers": 128, "machines": machines, "servers": {"count": 1, "placement": ["server"]},
        "compute": {"model": "lognormal", "mean": "0.3 s", "spread": 0.05},
    }  # fmt: skip
    if condition == SLOW:
        cluster["slowdowns"] = [{"kind": "fixed", "ranks": [0], "factor": 10}]
    long = {"run.steps": 160, "run.warmup_steps": 90} if kind.endswith(("D-PSGD", "ring")) else {}
    return case(SHARED, {"cluster": cluster, **ASYNCHRONOUS[kind], **long})


def wanted_shared() -> Iterable[Case]:
    """All cases of AD-PSGD."""
    return (_shared(kind, condition) for kind in ASYNCHRONOUS for condition in CONDITIONS)


def shared(results: Results) -> Section:
    """Epochs of 128 workers where others use the link of one machine, or one worker is slow."""
    samples = published("table2.samples.imagenet")
    ours = {
        kind: {
            c: results.estimate(_shared(kind, c), "throughput", by=lambda rate: samples / rate)
            for c in CONDITIONS
        }
        for kind in ASYNCHRONOUS
    }
    means = {kind: {c: mean_of(value) for c, value in values.items()} for kind, values in ours.items()}
    ratio = {c: means["all-reduce"][c] / means["AD-PSGD"][c] for c in CONDITIONS}
    rows: list[list[Any]] = [[kind, *values.values()] for kind, values in ours.items()]
    rows.append(["all-reduce / AD-PSGD", *ratio.values()])
    low, high = published("adpsgd.epochs_faster")
    inside = [name for name in TENANTS if low <= ratio[name] <= high]
    beside = {kind: means[kind][SLOW] / means["AD-PSGD"][SLOW] for kind in ASYNCHRONOUS if kind != "AD-PSGD"}
    others = ", ".join(f"{kind} {value:.1f}" for kind, value in beside.items()) + " times its epoch"
    server = means["A-PSGD, one server"]["all links free"] / means["AD-PSGD"]["all links free"]
    speedup = results.estimate(_shared("AD-PSGD", "all links free"), "speedup")
    linear = mean_of(speedup) / published("adpsgd.workers")
    claims = [
        Claim("Linear speed-up with up to 128 workers (of throughput, at least 70 % of linear)", "abstract",
              linear >= 0.7, f"{shown(speedup)} times one worker where all links are free, {linear:.0%} of "
              "linear; theirs is one of convergence"),
        Claim(f"Epochs up to {low} to {high} times faster than synchronous ones, if one link is slow enough",
              "abstract", bool(inside), ", ".join(f"{name}: {ratio[name]:.1f}" for name in TENANTS)),
        Claim("AD-PSGD outperforms the best of D-PSGD, A-PSGD and all-reduce in a heterogeneous environment",
              "abstract", min(beside.values()) > 1, f"{SLOW}: {others}"),
        Claim("... often by orders of magnitude (10 times the best of them)", "abstract",
              min(beside.values()) >= 10, f"{SLOW}: {others}"),
        Claim("With many workers a parameter server is a bottleneck", "abstract", server > 2,
              f"A-PSGD's epoch takes {server:.0f} times as long with 128 workers and no straggler"),
    ]  # fmt: skip
    looks = dict(zip(ASYNCHRONOUS, ("arsgd", "asp", "dpsgd", "adpsgd"), strict=True))
    panels = {"": [Series(k, [(f, v[c]) for c, f in TENANTS.items()], looks[k]) for k, v in means.items()]}
    picture = Picture("adpsgd", "Epoch of ResNet-50, 128 workers", panels, "one link slower by",
                      "seconds per epoch", log="xy")  # fmt: skip
    return Section(
        "adpsgd", "AD-PSGD: 128 workers on a shared network", published("adpsgd.source"),
        [Table("Seconds per epoch of ImageNet-1K", ("", *CONDITIONS), rows)], claims, [picture], (),
        [_shared("AD-PSGD", "at 1/16").command], ratio,
    )  # fmt: skip
