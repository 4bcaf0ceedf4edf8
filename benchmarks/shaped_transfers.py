"""Transfers over links shaped by the kernel, held against max-min fair sharing.

    sudo python benchmarks/shaped_transfers.py [--repeat N] [--megabytes M]

In a test-bed whose links are shared fairly all flows of a case start at once; their ends are compared with
those that the simulator's network gives, with every link at its rate's payload (nothing is fitted). A flow's
end is the median of N runs, the last end the latest of those. Without root: a clear word and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from real.testbed import GOODPUT, Nic, Testbed, unavailable  # noqa: E402
from real.testbed.goodput import timed  # noqa: E402
from sim.direct import transfers  # noqa: E402
from sim.oracle import NetCase  # noqa: E402

SLOW, FAST = Nic(25e6, 25e6), Nic(125e6, 125e6)
MIXED = [Nic(125e6, 125e6), Nic(25e6, 125e6), Nic(125e6, 12.5e6), Nic(50e6, 25e6)]
FLOWS = {
    "one": [(0, 1)],
    "both ways": [(0, 1), (1, 0)],
    "three to one": [(1, 0), (2, 0), (3, 0)],
    "one to three": [(0, 1), (0, 2), (0, 3)],
    "ring": [(0, 1), (1, 2), (2, 3), (3, 0)],
    "everyone with everyone": [(i, j) for i in range(4) for j in range(4) if i != j],
}
CASES = {
    **{f"200 Mbit/s, {name}": ([SLOW] * 4, flows) for name, flows in FLOWS.items()},
    **{f"1 Gbit/s, {name}": ([FAST] * 4, flows) for name, flows in FLOWS.items()},
    **{f"mixed, {name}": (MIXED, flows) for name, flows in FLOWS.items()},
}


def predicted(nics: list[Nic], flows: list[tuple[int, int, int]]) -> list[float]:
    """When each flow ends, seconds, under max-min fair sharing."""
    case = NetCase(
        name="", up=tuple(n.up * GOODPUT for n in nics), down=tuple(n.down * GOODPUT for n in nics),
        latency=(0.0,) * len(nics), flows=tuple((i, j, float(size), 0.0) for i, j, size in flows),
        completion=(),
    )  # fmt: skip
    return transfers(case)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeat", type=int, default=3, help="how often each case is run; medians are printed"
    )
    parser.add_argument("--megabytes", type=float, default=20.0, help="size of every flow")
    given = parser.parse_args()
    missing = unavailable()
    if missing is not None:
        print(f"error: there can be no test-bed here: {missing}", file=sys.stderr)
        return 2
    size = int(given.megabytes * 1e6)
    print(f"| {given.megabytes:g} MB per flow | predicted, last end | measured | error | worst flow |")
    print("|---|---|---|---|---|")
    for name, (nics, pairs) in CASES.items():
        expected = predicted(nics, [(i, j, size) for i, j in pairs])
        with Testbed(nics, fair=True) as bed:
            flows = [(bed.places[i], bed.places[j], size) for i, j in pairs]
            runs = [timed(flows) for _ in range(given.repeat)]
        found = [median(ends) for ends in zip(*runs, strict=True)]
        last, worst = (
            max(found) / max(expected) - 1,
            max((f / e - 1 for f, e in zip(found, expected, strict=True)), key=abs),
        )
        print(
            f"| {name} | {max(expected):.3f} s | {max(found):.3f} s | {last:+.1%} | {worst:+.1%} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
