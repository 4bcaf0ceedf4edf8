"""The double binary tree: two complementary trees, half of the tensor each, pipelined in chunks.

Rules this module obeys:

* Every member is an inner node of one tree and a leaf of the other (but for the roots, and one more
  where n is odd), so all links carry about as much: nobody sends or receives more than 2 tensors.
* Chunks go up a tree, are scaled at its root, and go down again; the two trees, up and down, are four
  lanes that do not wait for each other.

Sanders, Speck and Traeff 2009 ("Two-tree algorithms for full bandwidth broadcast, reduction and scan");
the trees are those that NCCL builds (``src/graph/trees.cc``).
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf
from typing import NamedTuple

from core.collectives.schedules import ADD, SCALE, SEND, TAKE, Op, Phase, Schedule, Step

__all__ = ["Family", "chunks_of", "double_tree", "families", "height"]


class Family(NamedTuple):
    """A member's place in a tree; the root's ``parent`` is -1."""

    parent: int
    children: tuple[int, ...]


def _family(members: int, place: int) -> Family:
    """The binary tree whose leaves are the odd places: who is above and below ``place``."""
    if place == 0:
        top = 1
        while top < members:
            top <<= 1
        return Family(-1, (top >> 1,) if members > 1 else ())
    bit = place & -place
    parent = (place ^ bit) | bit << 1
    if parent >= members:
        parent = place ^ bit
    low = bit >> 1
    if not low:
        return Family(parent, ())
    children = [place - low]
    while low and place + low >= members:
        low >>= 1
    if low:
        children.append(place + low)
    return Family(parent, tuple(children))


def families(members: int) -> tuple[list[Family], list[Family]]:
    """Both trees, by place: the second is the first reversed, or where n is odd shifted by one."""
    first = [_family(members, place) for place in range(members)]

    def turned(place: int) -> int:
        if place < 0:
            return -1
        return (place + 1) % members if members % 2 else members - 1 - place

    second = [Family(-1, ())] * members
    for place, (parent, children) in enumerate(first):
        second[turned(place)] = Family(turned(parent), tuple(turned(child) for child in children))
    return first, second


def height(tree: list[Family]) -> int:
    """Edges between the root and the deepest leaf."""
    depth = [0] * len(tree)
    row = [place for place, (parent, _) in enumerate(tree) if parent < 0]
    while row:
        below = [(child, place) for place in row for child in tree[place].children]
        for child, place in below:
            depth[child] = depth[place] + 1
        row = [child for child, _ in below]
    return max(depth)


def chunks_of(nbytes: float, chunk: float) -> int:
    """Chunks of about ``chunk`` bytes in each tree's half of a tensor of ``nbytes``; at least 1."""
    return max(1, ceil(nbytes / 2 / chunk))


def double_tree(members: int, chunks: int) -> Schedule:
    """Both trees, ``chunks`` pieces in each; lanes are first up, first down, second up, second down."""

    def up(tree: list[Family], offset: int, lane: int) -> Callable[[int, int], Step]:
        def step(place: int, i: int) -> Step:
            parent, children = tree[place]
            parts = offset + i, offset + i + 1
            added = tuple(Op(ADD, child, *parts, lane) for child in children)
            if parent >= 0:
                return (*added, Op(SEND, parent, *parts, lane))
            return (*added, Op(SCALE, place, *parts), *_down(children, parts, lane + 1))

        return step

    def down(tree: list[Family], offset: int, lane: int) -> Callable[[int, int], Step]:
        def step(place: int, i: int) -> Step:
            parent, children = tree[place]
            if parent < 0:
                return ()
            parts = offset + i, offset + i + 1
            return (Op(TAKE, parent, *parts, lane), *_down(children, parts, lane))

        return step

    lanes: list[tuple[Phase, ...]] = []
    for number, tree in enumerate(families(members) if members > 1 else ()):
        offset, lane = number * chunks, 2 * number
        lanes.append((Phase(chunks, up(tree, offset, lane)),))
        lanes.append((Phase(chunks, down(tree, offset, lane + 1)),))
    return Schedule(members, 2 * chunks, tuple(lanes), inf)


def _down(children: tuple[int, ...], parts: tuple[int, int], lane: int) -> Step:
    return tuple(Op(SEND, child, *parts, lane) for child in children)
