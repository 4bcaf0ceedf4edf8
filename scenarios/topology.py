"""Topology: racks with up-links, sites joined by WAN links, groups of machines.

Rules this module obeys:

* Either counts (``racks: 32, machines_per_rack: 16``) beside a cluster's layout of equal machines, or
  groups of machines that say where they stand. Racks may be counted or listed in both.
* Counts that are given must multiply out; those that are left out follow from the others.
* All machines of a rack share its up-link: ``up`` leaves the rack, ``down`` enters it. What joins the
  racks of a site (or, without sites, of the cluster) has no limit of its own.
* A topology keeps what was written; ``arrange`` makes the machines, ``scenarios.paths`` the paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

from scenarios.errors import ScenarioError, unknown
from scenarios.fields import amount, build, check, each, integer, number, of_kind, real, sequence, text, whole
from scenarios.machines import MOST, Machine, twin
from scenarios.paths import Paths, Place, Wire

if TYPE_CHECKING:
    from scenarios.cluster import Layout

__all__ = ["MOST_SITES", "Arrangement", "Group", "Rack", "Topology", "Uplink", "Wan", "split"]

MOST_SITES = 256
"""Sites: a link between every two of them are 65 280."""


def _rate(value: Any, name: str) -> float | None:
    """Bytes/s of a link, 0 for one that is down, None where it is not given."""
    return None if value is None else float(real(dimension="bytes/s", low=0.0)(value, name))


def _both(tree: dict[str, Any], one: str, other: str) -> dict[str, Any]:
    """``bandwidth`` stands for both directions."""
    if "bandwidth" in tree:
        rate = _rate(tree.pop("bandwidth"), "bandwidth")
        tree.setdefault(one, rate)
        tree.setdefault(other, rate)
    return tree


@dataclass(frozen=True)
class Uplink:
    """What joins a rack to the rest.

    up, down          bytes/s that leave and enter the rack; 0: it is down
    oversubscription  in their place: the rates of the rack's NICs together over that of the up-link
    latency           seconds that it adds to every path through it, each way
    overhead          seconds per message, in addition to the network's own
    """

    up: float | None = of_kind(None, _rate)
    down: float | None = of_kind(None, _rate)
    oversubscription: float = number(0.0, low=0.0, high=1e6)
    latency: float = amount(0.0, "seconds")
    overhead: float = amount(0.0, "seconds")

    ALSO: ClassVar[tuple[str, ...]] = ("bandwidth",)

    def __post_init__(self) -> None:
        check(self)
        if self.oversubscription and not (self.up is self.down is None):
            raise ScenarioError(
                "oversubscription", self.oversubscription, "nothing where the up-link's rates are given"
            )
        if (self.up is None) != (self.down is None):
            missing = "up" if self.up is None else "down"
            raise ScenarioError(missing, hint="missing: the rate of the other direction is given")

    @property
    def given(self) -> bool:
        """Whether it says how much it carries."""
        return self.up is not None or self.oversubscription > 0

    @staticmethod
    def expand(tree: dict[str, Any]) -> dict[str, Any]:
        """``bandwidth`` stands for both ``up`` and ``down``; refuses an over-subscription of 0."""
        found = tree.get("oversubscription")
        if found == 0 and tree.keys().isdisjoint(("bandwidth", "up", "down")):
            raise ScenarioError("oversubscription", found, "a number above 0, at most 1000000")
        return _both(tree, "up", "down")


@dataclass(frozen=True)
class Rack(Uplink):
    """A rack of its own name, with its up-link; ``site``, where there are sites, says where it stands."""

    name: str = text("")
    site: str = text("")


def _between(value: Any, name: str) -> tuple[str, ...]:
    if value == "all":
        return ()
    names: tuple[str, ...] = sequence(_name)(value, name)
    if names and (len(names) < 2 or len(set(names)) != len(names)):
        raise ScenarioError(name, list(names), "two or more different sites, or all")
    return names


def _name(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ScenarioError(name, value, "a name")
    return value


@dataclass(frozen=True)
class Wan:
    """A link between two sites (or one each between every two of several), full duplex.

    between      the sites' names; empty (or ``all``): every two
    forth, back  bytes/s from the first to the second, and back; 0: down
    latency      seconds that it adds to every message; ``latency_back`` on the way back, if another one
    overhead     seconds per message, in addition to the network's own
    """

    between: tuple[str, ...] = of_kind((), _between)
    forth: float | None = of_kind(None, _rate)
    back: float | None = of_kind(None, _rate)
    latency: float = amount(0.0, "seconds")
    latency_back: float | None = of_kind(
        None, lambda value, name: None if value is None else real(dimension="seconds", low=0.0)(value, name)
    )
    overhead: float = amount(0.0, "seconds")

    ALSO: ClassVar[tuple[str, ...]] = ("bandwidth",)

    def __post_init__(self) -> None:
        check(self)
        for side in ("forth", "back"):
            if getattr(self, side) is None:
                raise ScenarioError(side, hint="missing: the rate of a WAN link; or bandwidth, for both ways")
        if len(self.between) != 2 and (self.forth != self.back or self.latency_back is not None):
            raise ScenarioError(
                "between", list(self.between) or "all", "two sites, where the two ways of a link differ"
            )

    @staticmethod
    def expand(tree: dict[str, Any]) -> dict[str, Any]:
        """``bandwidth`` stands for both ``forth`` and ``back``."""
        return _both(tree, "forth", "back")


@dataclass(frozen=True)
class Group(Machine):
    """Equal machines in one place.

    count    how many; of more than one the names are numbered from 0
    workers  that each of them holds
    rack     that they stand in; site: where they stand if in no rack
    """

    count: int = whole(1, low=1, high=MOST)
    workers: int = whole(0, high=MOST)
    rack: str = text("")
    site: str = text("")


def _racks(value: Any, name: str) -> int | tuple[Rack, ...]:
    if isinstance(value, (list, tuple)):
        racks: tuple[Rack, ...] = each(Rack).metadata["kind"](value, name)
        return racks or 0
    return int(integer(0, MOST)(value, name))


def _groups(value: Any, _: str) -> tuple[Group, ...]:
    """Under the name that they have in a scenario."""
    groups: tuple[Group, ...] = each(Group).metadata["kind"](value, "machines")
    return groups


def _sites(value: Any, name: str) -> int | tuple[str, ...]:
    if isinstance(value, (list, tuple)):
        found: tuple[str, ...] = sequence(_name)(value, name)
        if len(found) > MOST_SITES:
            raise ScenarioError(name, len(found), f"at most {MOST_SITES} sites")
        return found or 0
    return int(integer(0, MOST_SITES)(value, name))


def _uplink(value: Any, name: str) -> Uplink:
    if isinstance(value, Uplink):
        return value
    if isinstance(value, (int, float, str)):
        value = {"bandwidth": value}
    try:
        return build(Uplink, value)
    except ScenarioError as error:
        raise error.under(name) from error.__cause__


def split(total: tuple[str, int], parts: tuple[str, int], each_one: tuple[str, int]) -> int:
    """How many in each part, from what is given (0: not given) of (field, count) pairs.

    Raises ``ScenarioError`` where the counts do not multiply out.
    """
    (whole_name, found), (what, count), (own_name, own) = total, parts, each_one
    if own:
        if found and found != count * own:
            how = f"{what} {count} times {own_name} {own}"
            raise ScenarioError(whole_name, found, f"{count * own}, which is {how}")
        return own
    if found % count:
        raise ScenarioError(whole_name, found, f"a multiple of {count} ({what})")
    return found // count


Vary = Callable[[Sequence[Machine], Sequence[int]], tuple[Machine, ...]]
"""(machines, machine of each worker) -> the machines with rates of their own."""


@dataclass(frozen=True)
class Arrangement:
    """What a topology expands to: machines, machine of each worker, and the paths between machines."""

    machines: tuple[Machine, ...]
    placement: tuple[int, ...]
    paths: Paths


@dataclass(frozen=True)
class Topology:
    """Where machines stand and what joins them. In YAML its fields stand directly under ``cluster``.

    racks              how many (0: none), or one by one
    machines_per_rack  in a layout; racks_per_site, machines_per_site likewise
    uplink             of racks that are counted: a rate, or an ``Uplink``; unless it says otherwise, as
                       much as the NICs of the rack together
    sites              how many (0: none), or their names
    wan                links between sites
    groups             machines, where they are listed
    """

    racks: int | tuple[Rack, ...] = of_kind(0, _racks)
    machines_per_rack: int = whole(0, high=MOST)
    uplink: Uplink = of_kind(Uplink(), _uplink)
    sites: int | tuple[str, ...] = of_kind(0, _sites)
    racks_per_site: int = whole(0, high=MOST)
    machines_per_site: int = whole(0, high=MOST)
    wan: tuple[Wan, ...] = each(Wan)
    groups: tuple[Group, ...] = of_kind((), _groups)

    def __post_init__(self) -> None:
        check(self)
        for name, found in (("racks", self._listed), ("groups", self.groups)):
            _distinct(name if name == "racks" else "machines", [entry.name for entry in found])
        _distinct("sites", list(self.site_names), suffix="")
        for i, name in enumerate(self.site_names):
            if name.split()[-1:] in (["up"], ["down"]):  # so end the names of up-links
                raise ScenarioError(f"sites[{i}]", name, "a name that does not end in up or down")
        for i, rack in enumerate(self._listed):
            if not rack.given:
                hint = (
                    f"missing: the path from rack {rack.name} to the others has no link; or oversubscription"
                )
                raise ScenarioError(f"racks[{i}].bandwidth", hint=hint)
            self._stands(f"racks[{i}]", rack.site)
        if self._listed and self.uplink != Uplink():
            raise ScenarioError("uplink", hint="no such field beside listed racks, which have their own")
        rackless = [name for name in ("machines_per_rack", "racks_per_site") if getattr(self, name)]
        if self.racks_per_site and (self._listed or not self.sites):
            raise ScenarioError(
                "racks_per_site", self.racks_per_site, "nothing but for sites with counted racks"
            )
        if rackless and not (self.racks or (self.racks_per_site and self.sites)):
            raise ScenarioError(rackless[0], getattr(self, rackless[0]), "nothing without racks")
        if self.uplink != Uplink() and not (self.racks or self.racks_per_site):
            raise ScenarioError("uplink", hint="nothing has an up-link: racks are neither counted nor listed")
        if self.wan and not self.sites:
            raise ScenarioError("wan", hint="nothing to join: sites are neither counted nor listed")
        if self.machines_per_site and (self.racks or self.racks_per_site or not self.sites):
            raise ScenarioError(
                "machines_per_site", self.machines_per_site, "nothing but for sites without racks"
            )
        for i, group in enumerate(self.groups):
            if group.rack and group.site:
                raise ScenarioError(
                    f"machines[{i}].site", group.site, "nothing in a rack, which says it itself"
                )
            names = [rack.name for rack in self._listed]
            if group.rack and group.rack not in names:
                raise unknown(f"machines[{i}].rack", group.rack, names)
            if not group.rack:
                self._stands(f"machines[{i}]", group.site)
        if self.groups:
            self._check_groups()
        self._wires()

    def _check_groups(self) -> None:
        for name in ("machines_per_rack", "racks_per_site", "machines_per_site"):
            if getattr(self, name):
                raise ScenarioError(name, getattr(self, name), "nothing beside a list of machines")
        if isinstance(self.racks, int) and self.racks:
            raise ScenarioError("racks", self.racks, "a list of racks, beside a list of machines")
        if not any(group.workers for group in self.groups):
            hint = "say how many workers each machine holds (workers: k, in one entry at least)"
            raise ScenarioError("machines", hint=hint)
        if sum(group.count for group in self.groups) > MOST or self.workers > MOST:
            raise ScenarioError("machines", hint=f"at most {MOST} machines and workers in all")

    def _stands(self, where: str, site: str) -> None:
        """Whoever stands somewhere names a site that there is."""
        names = self.site_names
        if site and site not in names:
            raise unknown(f"{where}.site", site, names)
        if names and not site:
            hint = f"missing: one of {', '.join(names)}; it stands nowhere and cannot be reached"
            raise ScenarioError(f"{where}.site", hint=hint)

    @property
    def _listed(self) -> tuple[Rack, ...]:
        return self.racks if isinstance(self.racks, tuple) else ()

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of the sites; counted ones are ``site0`` and so on."""
        if isinstance(self.sites, tuple):
            return self.sites
        return tuple(f"site{i}" for i in range(self.sites))

    @property
    def joined(self) -> bool:
        """Whether there are links beyond the machines' NICs."""
        return bool(self.racks or self.sites)

    @property
    def workers(self) -> int:
        """Workers that the groups hold."""
        return sum(group.count * group.workers for group in self.groups)

    def counts(self, layout: Layout, workers: int = 0) -> tuple[int, int, int]:
        """(racks, machines per rack or site, workers per machine) of a layout; racks may be 0.

        ``workers`` 0: not given, it follows. Raises ``ScenarioError`` where counts do not multiply out.
        """
        sites = len(self.site_names)
        listed = self._listed
        racks = len(listed) if listed else int(self.racks)  # type: ignore[arg-type]
        if sites and not listed and (racks or self.racks_per_site):
            racks = sites * split(("racks", racks), ("sites", sites), ("racks_per_site", self.racks_per_site))
        spots, what = (racks, "racks") if racks else (sites or 1, "sites")
        own = self.machines_per_rack if racks else self.machines_per_site
        own_name = "machines_per_rack" if racks else "machines_per_site"
        machines = layout.machines
        if not machines and not own:
            if not workers:
                raise ScenarioError(own_name, hint=f"missing: how many machines there are in each of {what}")
            per = layout.workers_per_machine or 1
            machines = split(("workers", workers), ("workers_per_machine", per), ("", 0))
            if machines % spots:
                raise ScenarioError("workers", workers, f"a multiple of {spots * per} ({what} times {per})")
        each_one = split(("machines", machines), (what, spots), (own_name, own))
        if not each_one or spots * each_one > MOST:
            raise ScenarioError(
                "machines", spots * each_one, f"at least one in each of {what}, at most {MOST}"
            )
        per = layout.workers_per_machine or (0 if workers else 1)
        total = ("workers", workers)
        return racks, each_one, split(total, ("machines", spots * each_one), ("workers_per_machine", per))

    def arrange(
        self, layout: Layout | None, workers: int, servers: int, rate: float, vary: Vary
    ) -> Arrangement:
        """The machines and where they stand.

        layout   of equal machines; None where there are groups
        servers  machines of their own for so many servers, spread over the racks, with NICs of ``rate``
                 bytes/s; only with a layout
        vary     gives machines (and the machine of each worker) the rates of their own, where they differ
        """
        if layout is not None:
            return self._counted(layout, workers, servers, rate, vary)
        made = self._grouped(workers)
        return replace(made, machines=vary(made.machines, made.placement))

    def _counted(self, layout: Layout, workers: int, servers: int, rate: float, vary: Vary) -> Arrangement:
        racks, each_one, per = self.counts(layout, workers)
        names = self.site_names
        spots = racks or len(names) or 1
        model = Machine(
            "machine", layout.bandwidth, layout.bandwidth, layout.latency / 2, layout.local_bandwidth,
            layout.local_latency,
        )  # fmt: skip
        placement = tuple(rank // per for rank in range(workers))
        machines = list(vary([twin(model, f"machine{i}") for i in range(spots * each_one)], placement))
        where = [i // each_one for i in range(spots * each_one)]
        racked = [machines[i : i + each_one] for i in range(0, len(machines), each_one)]
        sums = [(sum(m.up for m in own), sum(m.down for m in own)) for own in racked]
        uplinks = self._listed or tuple(
            Rack(u.up, u.down, u.oversubscription, u.latency, u.overhead, f"rack{i}")
            for u in (self.uplink if self.uplink.given else replace(self.uplink, oversubscription=1.0),)
            for i in range(racks)
        )  # fmt: skip
        places = [
            self._place(rack, i, names.index(rack.site) if rack.site else i * len(names) // racks, sums[i])
            for i, rack in enumerate(uplinks)
        ]
        if not racks:
            places = [Place(name, i) for i, name in enumerate(names or ("",))]
        order = spread(places)
        machines += [twin(model, f"server{i}", rate, rate) for i in range(servers)]
        where += [order[i % len(order)] for i in range(servers)]
        return Arrangement(tuple(machines), placement, Paths(places, where, names, self._wires()))

    def _grouped(self, workers: int) -> Arrangement:
        if workers != self.workers:
            raise ScenarioError("workers", workers, f"{self.workers}, as many as the listed machines hold")
        names, racks = self.site_names, self._listed
        rack_index = {rack.name: i for i, rack in enumerate(racks)}
        machines: list[Machine] = []
        placement: list[int] = []
        where: list[int] = []
        sums = [(0.0, 0.0)] * len(racks)
        for group in self.groups:
            own = {field.name: getattr(group, field.name) for field in fields(Machine)}
            model = Machine(**own)
            index = rack_index[group.rack] if group.rack else len(racks)
            if group.rack:
                up, down = sums[index]
                sums[index] = (up + group.count * group.up, down + group.count * group.down)
            elif names:
                index += names.index(group.site)
            for i in range(group.count):
                placement += [len(machines)] * group.workers
                machines.append(twin(model, group.name if group.count == 1 else f"{group.name}{i}"))
            where += [index] * group.count
        _distinct("machines", [machine.name for machine in machines])
        places = [
            self._place(rack, i, names.index(rack.site) if names else 0, sums[i])
            for i, rack in enumerate(racks)
        ]
        places += [Place(name, i) for i, name in enumerate(names or ("the core",))]
        return Arrangement(tuple(machines), tuple(placement), Paths(places, where, names, self._wires()))

    def _place(self, rack: Rack, index: int, site: int, sums: tuple[float, float]) -> Place:
        field = f"racks[{index}]" if self._listed else "uplink"
        k = rack.oversubscription
        up, down = (s / k for s in sums) if k else (rack.up or 0.0, rack.down or 0.0)
        return Place(
            rack.name, site,
            Wire(f"{rack.name} up", up, rack.latency, rack.overhead, f"{field}.up"),
            Wire(f"{rack.name} down", down, rack.latency, rack.overhead, f"{field}.down"),
        )  # fmt: skip

    def _wires(self) -> list[tuple[int, int, Wire]]:
        """The WAN links, each direction by itself; raises for unknown sites and for twins."""
        names = self.site_names
        index = {name: i for i, name in enumerate(names)}
        found: dict[tuple[int, int], int] = {}
        wires: list[tuple[int, int, Wire]] = []
        for i, wan in enumerate(self.wan):
            for name in wan.between:
                if name not in index:
                    raise unknown(f"wan[{i}].between", name, names)
            for one, other in combinations(wan.between or names, 2):
                a, b = index[one], index[other]
                if (min(a, b), max(a, b)) in found:
                    first = found[min(a, b), max(a, b)]
                    raise ScenarioError(
                        f"wan[{i}].between",
                        [one, other],
                        f"two sites that wan[{first}] does not join already",
                    )
                found[min(a, b), max(a, b)] = i
                back = wan.latency if wan.latency_back is None else wan.latency_back
                forth = (wan.forth or 0.0, wan.latency, wan.overhead, f"wan[{i}].forth")
                wires.append((a, b, Wire(f"{one} > {other}", *forth)))
                wires.append(
                    (b, a, Wire(f"{other} > {one}", wan.back or 0.0, back, wan.overhead, f"wan[{i}].back"))
                )
        return wires


def spread(places: Sequence[Place]) -> list[int]:
    """Indices of ``places``, those of different sites in turn."""
    seen: dict[int, int] = {}
    order = []
    for index, place in enumerate(places):
        nth = seen[place.site] = seen.get(place.site, -1) + 1
        order.append((nth, place.site, index))
    return [index for _, _, index in sorted(order)]


def _distinct(field: str, names: list[str], suffix: str = ".name") -> None:
    """Raise where a name is empty or stands twice."""
    seen: set[str] = set()
    for i, name in enumerate(names):
        if not name or name in seen:
            raise ScenarioError(f"{field}[{i}]{suffix}", name, "a name that nothing else of its kind has")
        seen.add(name)
