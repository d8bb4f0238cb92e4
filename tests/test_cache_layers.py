"""The layers of one worker's cache: what they hold, what they let go, and what a disk may do to them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_store_cache import an_entry
from tts_core.cache import FolderLayer, Kept, MemoryLayer, Size
from tts_core.cache.memory import weight


def a_take(n: int = 0, *, pool: str = "t1", size_bytes: int = 100) -> Kept:
    return Kept(replace(an_entry(pool, n), audio_file_size=size_bytes), bytes([n]) * size_bytes)


def same(found: Kept | None, take: Kept) -> bool:
    return found is not None and (found.entry, found.audio) == (take.entry, take.audio)


class TestMemory:
    def test_it_gives_what_it_was_given(self) -> None:
        memory = MemoryLayer(max_bytes=100_000)
        memory.put(a_take())
        assert same(memory.get(a_take().place), a_take())
        assert memory.get(a_take(1).place) is None
        assert memory.get(a_take(pool="t2").place) is None

    def test_it_holds_no_more_bytes_than_it_may_and_lets_go_what_was_heard_longest_ago(self) -> None:
        takes = [a_take(n, size_bytes=20_000) for n in range(6)]
        memory = MemoryLayer(max_bytes=4 * weight(takes[0]) + 1)
        for take in takes[:4]:
            memory.put(take)
        assert memory.get(takes[0].place)
        memory.put(takes[4])
        assert [memory.get(take.place) is not None for take in takes] == [True, False, True, True, True, False]
        assert memory.size("t1") == Size(4, 80_000)

    def test_a_take_put_twice_counts_once(self) -> None:
        memory = MemoryLayer(max_bytes=100_000)
        for size_bytes in (100, 200):
            memory.put(a_take(size_bytes=size_bytes))
        assert memory.size("t1") == Size(1, 200)
        memory.drop(a_take().place)
        memory.drop(a_take().place)
        assert memory.size("t1") == Size(0, 0)

    def test_one_large_take_does_not_push_out_all_others(self) -> None:
        memory = MemoryLayer(max_bytes=100_000)
        memory.put(a_take(1))
        memory.put(a_take(2, size_bytes=90_000))
        assert memory.size("t1") == Size(1, 100)

    def test_without_room_it_holds_nothing(self) -> None:
        memory = MemoryLayer(max_bytes=0)
        memory.put(a_take(size_bytes=0))
        assert memory.get(a_take().place) is None

    def test_pools_are_counted_apart(self) -> None:
        memory = MemoryLayer(max_bytes=100_000)
        memory.put(a_take(1))
        memory.put(a_take(1, pool="t2", size_bytes=5))
        assert (memory.size("t1"), memory.size("t2"), memory.size("t3")) == (Size(1, 100), Size(1, 5), Size(0, 0))


class TestFolder:
    async def test_it_gives_what_it_was_given_to_later_processes_too(self, tmp_path: Path) -> None:
        await FolderLayer(tmp_path, max_bytes=100_000).put(a_take())
        later = FolderLayer(tmp_path, max_bytes=100_000)
        assert same(await later.get(a_take().place), a_take())
        assert await later.get(a_take(1).place) is None
        assert await later.get(a_take(pool="t2").place) is None
        assert (await later.size("t1")).entries == 1
        assert (await later.size("t2")).entries == 0

    async def test_it_holds_no_more_bytes_than_it_may(self, tmp_path: Path) -> None:
        folder = FolderLayer(tmp_path, max_bytes=50_000)
        for n in range(6):
            await folder.put(a_take(n, size_bytes=10_000))
            assert await folder.get(a_take(0).place)
        held = [n for n in range(6) if await folder.get(a_take(n).place)]
        assert held == [0, 3, 4, 5]
        assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= 50_000

    async def test_a_later_process_lets_go_what_was_heard_longest_ago(self, tmp_path: Path) -> None:
        before = FolderLayer(tmp_path, max_bytes=50_000)
        for n in range(4):
            await before.put(a_take(n, size_bytes=10_000))
        for age_s, file in enumerate(sorted(file for file in tmp_path.rglob("*") if file.is_file())):
            os.utime(file, (1_000_000 - age_s, 1_000_000 - age_s))  # the last one is the oldest
        later = FolderLayer(tmp_path, max_bytes=50_000)
        await later.put(a_take(4, size_bytes=10_000))
        assert [n for n in range(5) if await later.get(a_take(n).place)] == [0, 1, 2, 4]

    @pytest.mark.parametrize("damage", [b"", b"{", b"[]\nabc", b'{"pool": "t1"}\nabc', b"\xff\n", b"\0" * 100])
    async def test_a_damaged_file_is_a_miss_and_is_replaced(self, tmp_path: Path, damage: bytes) -> None:
        folder = FolderLayer(tmp_path, max_bytes=100_000)
        await folder.put(a_take())
        (file,) = [file for file in tmp_path.rglob("*") if file.is_file()]
        file.write_bytes(damage)
        assert await folder.get(a_take().place) is None
        await folder.put(a_take())
        assert same(await folder.get(a_take().place), a_take())

    async def test_half_a_file_is_a_miss(self, tmp_path: Path) -> None:
        folder = FolderLayer(tmp_path, max_bytes=100_000)
        await folder.put(a_take())
        (file,) = [file for file in tmp_path.rglob("*") if file.is_file()]
        file.write_bytes(file.read_bytes()[:-1])
        assert await folder.get(a_take().place) is None

    async def test_a_file_in_anothers_place_is_a_miss(self, tmp_path: Path) -> None:
        folder = FolderLayer(tmp_path, max_bytes=100_000)
        for pool in ("t1", "t2"):
            await folder.put(a_take(pool=pool))
        mine, theirs = [file for file in tmp_path.rglob("*") if file.is_file()]
        mine.write_bytes(theirs.read_bytes())
        found = [await folder.get(a_take(pool=pool).place) for pool in ("t1", "t2")]
        assert [kept is None for kept in found].count(True) == 1

    async def test_a_disk_that_takes_nothing_costs_only_the_layer(self, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file where the folder should be")
        folder = FolderLayer(tmp_path / "cache", max_bytes=100_000)
        await folder.put(a_take())
        await folder.drop(a_take().place)
        assert await folder.get(a_take().place) is None
        assert await folder.size("t1") == Size(0, 0)

    async def test_what_was_dropped_is_gone_from_the_disk(self, tmp_path: Path) -> None:
        folder = FolderLayer(tmp_path, max_bytes=100_000)
        await folder.put(a_take())
        await folder.drop(a_take().place)
        assert await folder.get(a_take().place) is None
        assert [file for file in tmp_path.rglob("*") if file.is_file()] == []

    async def test_nobody_else_may_look_into_it(self, tmp_path: Path) -> None:
        await FolderLayer(tmp_path / "data" / "cache", max_bytes=100_000).put(a_take())
        made = list((tmp_path / "data").rglob("*"))
        assert {file.stat().st_mode & 0o077 for file in [tmp_path / "data", *made]} == {0}
        assert len(made) == 3

    async def test_no_pool_leads_out_of_the_folder(self, tmp_path: Path) -> None:
        folder = FolderLayer(tmp_path / "cache", max_bytes=100_000)
        for pool in ("../up", "/root", "", "..", "a/b", "\0"):
            await folder.put(a_take(pool=pool))
            assert same(await folder.get(a_take(pool=pool).place), a_take(pool=pool))
        assert [entry.name for entry in tmp_path.iterdir()] == ["cache"]
        assert all(len(folder.name) == 32 for folder in (tmp_path / "cache").iterdir())


async def test_all_of_a_pool_goes_at_once_and_nothing_of_another(tmp_path: Path) -> None:
    memory, folder = MemoryLayer(max_bytes=100_000), FolderLayer(tmp_path, max_bytes=100_000)
    takes = [a_take(n, pool=pool) for pool in ("t1", "t2") for n in range(3)]
    for take in takes:
        memory.put(take)
        await folder.put(take)
    memory.drop_pool("t1")
    await folder.drop_pool("t1")
    for take in takes:
        is_left = take.entry.pool == "t2"
        assert (memory.get(take.place) is not None, await folder.get(take.place) is not None) == (is_left, is_left)
    assert (memory.size("t1"), await folder.size("t1")) == (Size(0, 0), Size(0, 0))
    assert len(list(tmp_path.iterdir())) == 1
