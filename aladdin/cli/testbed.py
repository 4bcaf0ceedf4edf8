"""``aladdin testbed``: namespaces with links shaped by the kernel."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aladdin.cli import common
from aladdin.cli.common import Algorithm, Json, Out, Set, Spans

if TYPE_CHECKING:
    from real.testbed import Nic

__all__ = ["ACTIONS", "command", "rates"]

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SCENARIO] [-- COMMAND...]",
        help="A scenario to train; with a COMMAND, its machines are built and COMMAND runs on each of them.",
    ),
]

Nodes = Annotated[
    int | None, typer.Option("--nodes", "-n", metavar="N", help="So many nodes, without a scenario.")
]

Rate = Annotated[
    list[str] | None,
    typer.Option(
        "--rate", "-r", metavar="[NODE[:up|:down]=]RATE",
        help="Rate of all links, of one node's or of one direction. May be repeated; later ones win.",
    ),
]  # fmt: skip

Fair = Annotated[
    bool,
    typer.Option("--fair", metavar="", help="Share links fairly among peers, not first come first served."),
]


def command() -> None:
    """Put nodes into network namespaces whose links are held to their rates by the kernel.

    On Linux, with root. Every node has a link of its own, each direction with a rate of its own;
    nothing of this machine's network is touched, and all of it is removed in the end. What a killed
    test-bed leaves is removed by the next one.

    Example: train the demo over links shaped to 200 Mbit/s:

        aladdin testbed run demo --set cluster.bandwidth='200 Mbit/s'
    """


def run(
    words: Words = None,
    nodes: Nodes = None,
    rate: Rate = None,
    fair: Fair = False,
    algorithm: Algorithm = "",
    set_: Set = None,
    out: Out = None,
    spans: Spans = False,
    json: Json = False,
) -> None:
    """Train a scenario, or run a command on every node, over shaped links.

    COMMAND runs once in every node's namespace. ALADDIN_NODE tells it who it is, ALADDIN_ADDRESSES where
    all are; RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set for torch.distributed. Without root
    a scenario is trained over paced links on loopback; a command is refused.

    Examples:

        aladdin testbed run demo --algorithm asp,bsp

        aladdin testbed run --nodes 4 --rate '1 Gbit/s' --rate '3:up=200 Mbit/s' -- python3 train.py
    """
    from scenarios.errors import ScenarioError

    given = [*(words or [])]
    if nodes is not None:
        training = {"--algorithm": algorithm, "--set": set_, "--out": out, "--spans": spans, "--json": json}
        _refuse(training, "nothing where a command runs on --nodes")
        if not given:
            raise ScenarioError("COMMAND", "", "a command after --, to be run on every node")
        _run_command(given, rates(nodes, rate or []), fair)
        return
    if not given:
        raise ScenarioError("SCENARIO", "", "a scenario, or --nodes N and a command after --")
    _refuse(
        {"--rate": rate, "--fair": fair}, "nothing where a scenario says it: --set cluster.bandwidth=RATE"
    )
    if len(given) == 1:
        _train(given[0], algorithm, set_, spans=spans, as_json=json, out=out, into=None if out else "runs")
        return
    _refuse({"--out": out, "--spans": spans, "--json": json}, "nothing where a command runs")
    from aladdin import api
    from real.shaped import nics_of
    from scenarios.overrides import parse
    from scenarios.plan import plan

    made = plan(api.load(given[0], algorithm=algorithm or None, overrides=parse(set_ or [])))
    _run_command(given[1:], nics_of(made), made.scenario.cluster.network.admission == "fair")


def _refuse(options: dict[str, Any], valid: str) -> None:
    """Raise for the first option that is given."""
    from scenarios.errors import ScenarioError

    for name, value in options.items():
        if value:
            raise ScenarioError(name, value if isinstance(value, (list, bool)) else str(value), valid)


def _run_command(words: list[str], nics: list[Nic], fair: bool) -> None:
    from real.testbed import Testbed, unavailable
    from real.testbed.commands import run_commands
    from scenarios.errors import ScenarioError

    if shutil.which(words[0]) is None:
        raise ScenarioError("COMMAND", words[0], "a program that can be found and run")
    _must_be_possible(unavailable())
    with Testbed(nics, fair=fair) as bed:
        run_commands(bed, words)


def _must_be_possible(missing: str | None) -> None:
    from scenarios.errors import ScenarioError

    if missing is not None:
        raise ScenarioError(
            f"there can be no test-bed here: {missing}. Scenarios run on loopback as well, where senders "
            f"keep the rates: aladdin train SCENARIO --set run.links=paced"
        )


def _train(scenario: str, algorithm: str, sets: list[str] | None, **options: Any) -> None:
    """Train over shaped links; where there can be no test-bed, over paced ones, and say so."""
    from aladdin.cli.running import run as run_driver
    from real.testbed import unavailable

    common.check(scenario, sets, options["out"])
    missing = unavailable()
    changed = ["run.links=shaped"]
    if missing is not None:
        changed = [
            "run.links=paced", "cluster.network.collective=messages", "cluster.network.admission=fifo",
        ]  # fmt: skip
        common.say(
            "warning",
            f"there can be no test-bed here: {missing}. Training on loopback instead, where senders keep "
            f"the rates ({', '.join(changed)})",
        )
    run_driver("real", scenario, algorithm, [*(sets or []), *changed], **options)


def rates(nodes: int, texts: list[str]) -> list[Nic]:
    """The links of ``nodes`` nodes; ``texts`` such as ``1 Gbit/s``, ``2=200 Mbit/s``, ``2:up=1 MB/s``."""
    from real.testbed import HIGHEST, LOWEST, MOST, Nic
    from scenarios.errors import ScenarioError
    from scenarios.units import quantity

    if not 1 <= nodes <= MOST:
        raise ScenarioError("--nodes", nodes, f"1 to {MOST} nodes in a test-bed")
    found = [{"up": 125e6, "down": 125e6} for _ in range(nodes)]
    for text in texts:
        where, equals, value = text.rpartition("=")
        node, colon, direction = where.partition(":")
        if equals and not (node.isdecimal() and int(node) < nodes):
            raise ScenarioError(
                "--rate", text, f"RATE, NODE=RATE or NODE:up=RATE with a node from 0 to {nodes - 1}"
            )
        if colon and direction not in ("up", "down"):
            raise ScenarioError("--rate", text, "up or down after the node")
        bytes_per_second = quantity(value, "bytes/s", "--rate")
        if not LOWEST <= bytes_per_second <= HIGHEST:
            raise ScenarioError("--rate", text, "a rate from 1 Mbit/s to 32 Gbit/s")
        for one in [found[int(node)]] if equals else found:
            one.update({direction: bytes_per_second} if colon else dict.fromkeys(one, bytes_per_second))
    return [Nic(**one) for one in found]


def check(
    rate: Annotated[str, typer.Option("--rate", "-r", metavar="RATE", help="Of the link.")] = "1 Gbit/s",
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="Per direction.", min=0.1, max=60.0)
    ] = 2.0,
    json: Json = False,
) -> None:
    """Say whether there can be a test-bed here, and what a shaped link carries.

    Builds one link, sends over it in both directions, and compares the payload that arrives with what
    the link's rate leaves after the headers.

    Example:

        aladdin testbed check --rate '200 Mbit/s'
    """
    from real.testbed import GOODPUT, Testbed, unavailable
    from real.testbed.goodput import goodput

    nics = rates(2, [rate])
    _must_be_possible(unavailable())
    with common.spinner("measuring"), Testbed(nics) as bed:
        first, second = bed.places
        found = {
            "up": goodput(first, second, seconds),
            "down": goodput(second, first, seconds),
        }
    nominal = nics[0].up * GOODPUT
    rows: list[dict[str, Any]] = [
        {"direction": name, "nominal": nominal, "measured": value, "error": value / nominal - 1}
        for name, value in found.items()
    ]
    if json:
        common.emit({"available": True, "rate": nics[0].up, "links": rows})
        return
    console = common.console()
    console.print("there can be a test-bed here")
    for row in rows:
        console.print(
            f"{row['direction']:>5}: {row['measured'] * 8e-6:,.1f} Mbit/s of payload, expected "
            f"{row['nominal'] * 8e-6:,.1f} ({row['error']:+.2%})",
        )  # fmt: skip


def clean() -> None:
    """Remove what test-beds left whose process is gone.

    Only namespaces with names that this program gives, and whose owner, told by its process id and
    starting time, has certainly ended. Every test-bed does this before it is built.

    Example:

        aladdin testbed clean
    """
    from real.testbed import clean as remove
    from real.testbed import forbidden

    _must_be_possible(forbidden())
    removed = remove()
    console = common.console()
    for name in removed:
        console.print(f"removed {name}", soft_wrap=True)
    console.print(f"{len(removed)} namespaces removed" if removed else "nothing to remove")


ACTIONS = {"run": run, "check": check, "clean": clean}
"""By the word after ``aladdin testbed``."""
