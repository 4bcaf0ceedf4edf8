"""Ours and SimGrid's C++ on the same cases, side by side: simulated time and cost per worker step.

    python benchmarks/against_simgrid.py [--workers N ...] [--steps K] [--algorithms asp bsp aladdin]

Builds ``../shared/oracle/simgrid_reference.cpp`` (``--source`` names another place) against the
installed SimGrid (Debian: libsimgrid-dev). Without either: a clear word and exit code 2.

The cases are those of ``sim_speed.scenario``: ResNet-50 over 10 Gbit/s, one server, fair sharing,
step times all different; inboxes without bound and no tensor work, as the reference program has it.
Wall time is that of the run alone on both sides: SimGrid's without its set-up, ours with the record.
SimGrid runs with ``network/optim:Full`` (docs/decisions.md says why) and, for its speed, as by default.
The simulated ends are compared exactly; ASP under fair sharing is chaotic, so there they drift apart.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.sim_speed import scenario, unit  # noqa: E402

SOURCE = ROOT.parent / "shared" / "oracle" / "simgrid_reference.cpp"
ALGORITHMS = ("asp", "bsp", "aladdin")
FLAGS = (
    "--cfg=network/model:CM02", "--cfg=network/bandwidth-factor:1", "--cfg=network/latency-factor:1",
    "--cfg=network/weight-S:0", "--cfg=network/TCP-gamma:1e30", "--cfg=network/crosstraffic:no",
    "--cfg=contexts/stack-size:64", "--cfg=maxmin/precision:1e-9", "--log=root.thres:error",
)  # fmt: skip


class Missing(Exception):
    """Something that this comparison needs is not on this machine."""


def build(source: Path, into: Path) -> Path:
    """The reference program, compiled."""
    if not source.is_file():
        raise Missing(f"{source}: not there; name the reference program with --source")
    compiler = shutil.which("g++")
    if compiler is None:
        raise Missing("g++ is not installed")
    program = into / "simgrid_reference"
    command = [compiler, "-O2", "-std=c++17", str(source), "-o", str(program), "-lsimgrid"]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode:
        lines = [line for line in made.stderr.splitlines() if "error" in line]
        reason = lines[0] if lines else f"g++ ended with {made.returncode}"
        raise Missing(f"SimGrid is not installed, or another version (Debian: libsimgrid-dev): {reason}")
    return program


def case(algorithm: str, workers: int, steps: int) -> Any:
    """The scenario of one case."""
    from scenarios.schema import Scenario

    tree = scenario(algorithm, workers, "fair", steps).to_dict()
    tree["cluster"]["tensor_seconds"] = {}
    tree["cluster"]["network"]["inbox"] = "unlimited"
    if algorithm == "aladdin":
        tree["algorithm"]["push"] = "queue"
    return Scenario.from_dict(tree)


def theirs(program: Path, chosen: Any, algorithm: str, full: bool) -> dict[str, float]:
    """SimGrid's end of the run and its wall time, seconds."""
    from scenarios.plan import plan

    cluster = chosen.cluster
    nbytes = 4 * plan(chosen).parameters
    machine = cluster.machines[0]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as times:
        times.write("\n".join(repr(cluster.compute.mean * k) for k in cluster.compute.scale))
        times.flush()
        settings = {
            "alg": algorithm, "n": cluster.workers, "S": 1, "K": chosen.run.steps, "T": f"@{times.name}",
            "G": nbytes, "M": nbytes, "Bup": machine.up, "Bdn": machine.down, "PSup": machine.up,
            "PSdn": machine.down, "L": repr(machine.latency), "rec": 0,
        }  # fmt: skip
        command = [str(program), *(f"{key}={value}" for key, value in settings.items()), *FLAGS]
        command += ["--cfg=network/optim:Full"] if full else []
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {"end": found["makespan"], "seconds": found["run_s"]}


def ours(chosen: Any) -> dict[str, float]:
    """Our end of the run (the last worker's, or the last gradient's delivery) and its wall time, seconds."""
    import sim

    start = time.perf_counter()
    record = sim.simulate(chosen)
    seconds = time.perf_counter() - start
    workers = record.nodes["role"] == "worker"
    end = max(record.nodes["end"][workers].max(), record.gradients["time"].max())
    return {"end": float(end), "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=(8, 64, 512), metavar="N")
    parser.add_argument("--steps", type=int, default=0, metavar="K", help="default: 4000 / N, at least 3")
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, choices=ALGORITHMS)
    parser.add_argument("--source", type=Path, default=SOURCE, help="the reference program's source")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    args = parser.parse_args()
    if min(args.workers) < 1:
        parser.error("--workers takes numbers of at least 1")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            program = build(args.source, Path(folder))
        except Missing as missing:
            print(f"against_simgrid: {missing}", file=sys.stderr)
            return 2
        if not args.json:
            print("algorithm      n   timeouts/step: ours  SimGrid  (Full)    end, s: ours   difference")
        ours(case("asp", 2, 2))  # what is imported on first use is not what is measured
        for workers in args.workers:
            steps = args.steps or max(3, 4000 // workers)
            bare = unit(workers, max(2, steps), time.perf_counter)
            for algorithm in args.algorithms:
                chosen = case(algorithm, workers, steps)
                mine = ours(chosen)
                full, lazy = (theirs(program, chosen, algorithm, way) for way in (True, False))
                costs = [x["seconds"] / (workers * steps) / bare for x in (mine, lazy, full)]
                row = {"algorithm": algorithm, "n": workers, "steps": steps, "end": mine["end"]}
                row |= dict(zip(("ours", "simgrid", "simgrid_full"), costs, strict=True))
                row["difference"] = abs(mine["end"] / full["end"] - 1)
                rows.append(row)
                if not args.json:
                    shown = "  ".join(f"{cost:7.1f}" for cost in costs)
                    print(
                        f"{algorithm:9s} {workers:6d}   {shown:>36s}   "
                        f"{mine['end']:12.4f}   {row['difference']:10.1e}",
                        flush=True,
                    )
    if args.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
