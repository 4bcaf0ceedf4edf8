"""Shards cover the vector without gap or overlap; whole layers are spread as evenly as order allows."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import OptionError
from core.sharding import partition
from scenarios.schema import Workload
from scenarios.workloads.layers import layer_sizes

layers = st.lists(st.integers(1, 30), min_size=1, max_size=8)


@given(layers, st.data(), st.sampled_from(["memory", "layer"]))
def test_shards_cover_the_vector(sizes: list[int], data: st.DataObject, how: str) -> None:
    most = len(sizes) if how == "layer" else sum(sizes)
    count = data.draw(st.integers(1, min(most, 6)))
    shards = partition(sizes, range(10, 10 + count), how)
    assert [(shard.index, shard.server) for shard in shards] == [(i, 10 + i) for i in range(count)]
    assert (shards[0].start, shards[-1].stop) == (0, sum(sizes))
    assert all(a.stop == b.start for a, b in pairwise(shards))
    assert all(shard.size > 0 for shard in shards)
    if how == "memory":
        assert max(s.size for s in shards) - min(s.size for s in shards) <= 1


@given(layers, st.data())
def test_the_largest_group_of_layers_is_as_small_as_can_be(sizes: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(sizes)))
    edges = {sum(sizes[:i]) for i in range(len(sizes) + 1)}
    shards = partition(sizes, range(count), "layer")
    assert {shard.stop for shard in shards} <= edges
    best = min(
        max(sum(sizes[a:b]) for a, b in pairwise((0, *cuts, len(sizes))))
        for cuts in combinations(range(1, len(sizes)), count - 1)
    )
    assert max(shard.size for shard in shards) == best


@pytest.mark.parametrize(
    ("count", "how", "says"), [(3, "layer", "between 1 and 2, the number of layers"), (8, "memory", "and 7"),
                               (0, "memory", "between 1"), (1, "rows", "memory or layer")],
)  # fmt: skip
def test_empty_shards_are_refused(count: int, how: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        partition([3, 4], range(count), how)


def test_no_layer_wise_shard_is_smaller_than_the_largest_layer_but_memory_wise_ones_are() -> None:
    """ALADDIN, section 3.3, on the real sizes: fc6 is 74 % of VGG-16; ResNet-50 has no such layer."""
    largest = {}
    for model, classes in (("vgg16", 1000), ("resnet50", 1000)):
        sizes = layer_sizes(Workload(model=model, data="synthetic", image_size=224, classes=classes))
        for how in ("layer", "memory"):
            shards = partition(sizes, range(16), how)
            largest[model, how] = max(shard.size for shard in shards) / sum(sizes)
    assert largest["vgg16", "layer"] == 102_764_544 / 138_357_544
    assert largest["resnet50", "layer"] < 0.11
    assert largest["vgg16", "memory"] == pytest.approx(1 / 16)
    assert largest["resnet50", "memory"] == pytest.approx(1 / 16)
