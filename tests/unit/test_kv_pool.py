"""The account of the KV pool, and the cache of finished sequences in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.continuous_batching.kv_pool import KvPool
from models.continuous_batching.prefix_cache import Match, PrefixCache, common_prefix


class Memory:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def copy(self, source: int, target: int, length: int) -> None:
        self.calls.append(("copy", source, target, length))

    def remove(self, slot: int) -> None:
        self.calls.append(("remove", slot))


def tokens(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def pool_of(cells: int = 20, slots: int = 4) -> KvPool:
    return KvPool(Memory(), cells=cells, slots=slots)


def filled(pool: KvPool, count: int) -> int:
    slot = pool.take_slot()
    pool.grow(slot, count)
    return slot


def test_growing_and_releasing() -> None:
    pool = pool_of()
    slot = filled(pool, 7)
    assert (pool.used, pool.free) == (7, 13)
    pool.release(slot)
    assert (pool.used, pool.free) == (0, 20)


def test_shared_cells_are_counted_once_and_live_as_long_as_someone_holds_them() -> None:
    pool = pool_of()
    first = filled(pool, 8)
    second = pool.take_slot()
    pool.share(first, second, 5)
    pool.grow(second, 2)
    assert pool.used == 10
    pool.release(first)
    assert pool.used == 7
    pool.release(second)
    assert pool.used == 0


def test_the_native_side_is_told() -> None:
    memory = Memory()
    pool = KvPool(memory, cells=20, slots=4)
    first = filled(pool, 8)
    second = pool.take_slot()
    pool.share(first, second, 5)
    pool.release(first)
    assert memory.calls == [("copy", first, second, 5), ("remove", first)]


def test_more_than_there_is() -> None:
    pool = pool_of(cells=4, slots=1)
    slot = pool.take_slot()
    with pytest.raises(ValueError, match="fewer"):
        pool.grow(slot, 5)
    assert not pool.has_free_slot
    with pytest.raises(IndexError):
        pool.take_slot()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9)), max_size=60))
def test_nothing_is_lost_whatever_happens(actions: list[tuple[int, int, int]]) -> None:
    pool = pool_of(cells=1000, slots=8)
    held: dict[int, int] = {}
    for action, size, pick in actions:
        if action == 0 and pool.has_free_slot:
            held[filled(pool, size)] = size
        elif action == 1 and held and pool.has_free_slot:
            source = sorted(held)[pick % len(held)]
            target = pool.take_slot()
            pool.share(source, target, min(size, held[source]))
            held[target] = min(size, held[source])
        elif action == 2 and held:
            pool.release(sorted(held)[pick % len(held)])
            del held[sorted(held)[pick % len(held)]]
    for slot in held:
        pool.release(slot)
    assert pool.used == 0


# --- prefix cache -------------------------------------------------------------------------------


def cache_of(pool: KvPool, max_used: int = 1000) -> PrefixCache:
    return PrefixCache(pool, max_used_cells=max_used)


def keep(cache: PrefixCache, pool: KvPool, *values: int) -> int:
    slot = filled(pool, len(values))
    cache.keep(slot, tokens(*values))
    return slot


def test_common_prefix() -> None:
    assert common_prefix(tokens(1, 2, 3), tokens(1, 2, 4)) == 2
    assert common_prefix(tokens(1, 2), tokens(1, 2, 3)) == 2
    assert common_prefix(tokens(2), tokens(1)) == 0
    assert common_prefix(tokens(), tokens(1)) == 0


def test_the_longest_prefix_wins() -> None:
    pool = pool_of()
    cache = cache_of(pool)
    keep(cache, pool, 1, 2, 9)
    better = keep(cache, pool, 1, 2, 3, 9)
    assert cache.longest(tokens(1, 2, 3, 4)) == Match(better, 3)
    assert cache.longest(tokens(7)).length == 0


def test_a_sequence_that_is_known_already_is_not_kept_twice() -> None:
    pool = pool_of()
    cache = cache_of(pool)
    keep(cache, pool, 1, 2, 3)
    keep(cache, pool, 1, 2)
    assert (len(cache), pool.used) == (1, 3)
    keep(cache, pool, 1, 2, 3, 4)
    assert (len(cache), pool.used) == (1, 4)


def test_the_least_recently_used_goes_first() -> None:
    pool = pool_of()
    cache = cache_of(pool)
    old = keep(cache, pool, 1, 1)
    new = keep(cache, pool, 2, 2)
    cache.touch(old)
    assert cache.evict()
    assert cache.longest(tokens(1, 1)) == Match(old, 2)
    assert not cache.evict(spare=old)
    assert new != old


def test_the_cache_leaves_room() -> None:
    pool = pool_of(cells=20)
    cache = cache_of(pool, max_used=8)
    for first in range(4):
        keep(cache, pool, first, 0, 0)
    assert pool.used <= 8
    assert cache.longest(tokens(3, 0, 0)).length == 3


def test_a_disabled_cache_keeps_nothing() -> None:
    pool = pool_of()
    cache = PrefixCache(pool, max_used_cells=1000, enabled=False)
    keep(cache, pool, 1, 2)
    assert (len(cache), pool.used) == (0, 0)


def test_clearing() -> None:
    pool = pool_of()
    cache = cache_of(pool)
    keep(cache, pool, 1, 2)
    keep(cache, pool, 3, 4)
    cache.clear()
    assert (len(cache), pool.used) == (0, 0)
