"""What a process may still take, and what is told of what it took."""

import mmap
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from worker.engine import host
from worker.engine.failure import is_out_of_memory
from worker.engine.meter import Meter, Space, find_space
from worker.engine.pool import overlaid

CPU = torch.device("cpu")


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def limits(tmp_path, told):
    write(tmp_path / "proc", cgroup=told)
    return sorted(host.group_limits(tmp_path / "proc", tmp_path / "groups"))


def test_limits_of_all_groups_around_a_process_hold(tmp_path):
    root = tmp_path / "groups"
    write(root, memory__max=3000)
    write(root / "a", memory__max=1000)
    write(root / "a" / "b", memory__max="max")

    assert limits(tmp_path, "0::/a/b") == [1000, 3000]


def test_groups_of_version_1_are_known(tmp_path):
    write(tmp_path / "groups" / "memory" / "a", memory__limit_in_bytes=100)

    assert limits(tmp_path, "4:cpu,memory:/a\n0::/") == [100]


def test_a_container_finds_its_own_limit_at_the_root(tmp_path):
    write(tmp_path / "groups", memory__max=500)

    assert limits(tmp_path, "0::/docker/not/mounted/here") == [500]


def test_a_share_counts_what_others_use():
    assert Space(total_bytes=1000, free_bytes=400).left(0.9) == 300
    assert Space(total_bytes=1000, free_bytes=50).left(0.9) < 0


def test_the_cpu_has_what_this_process_may_take():
    space = find_space(CPU)

    assert 0 < space.free_bytes < space.total_bytes


def test_what_other_processes_have_changes_nothing(monkeypatch):
    before = find_space(CPU)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=before.total_bytes, available=0))

    assert find_space(CPU).total_bytes == before.total_bytes
    assert abs(find_space(CPU).free_bytes - before.free_bytes) < 2**24


def test_the_most_that_was_taken_is_told_though_it_was_given_back():
    meter = Meter([CPU])

    total, peak = meter.peak(lambda: int(torch.ones(2**26, dtype=torch.uint8).sum()))

    assert total == 2**26
    assert peak[CPU] > 2**26 * 0.9
    assert meter.peak(lambda: None)[1][CPU] < peak[CPU] or not host._PROCESS.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows such a limit")
def test_an_allocation_that_goes_beyond_its_bound_fails_and_the_process_lives():
    with pytest.raises(RuntimeError) as refused, host.bounded(2**24):
        torch.empty(2**32, dtype=torch.uint8)  # no place that other tests have freed is as large
    with pytest.raises(OSError, match="memory"), host.bounded(2**24):
        mmap.mmap(-1, 2**26, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # which never lies in such a place

    assert is_out_of_memory(refused.value)
    assert torch.ones(2**26, dtype=torch.uint8).sum() == 2**26


def test_lines_that_lie_upon_each_other_take_no_memory():
    pool = overlaid((4, 2, 1000, 16), torch.float32, CPU)
    rows = torch.arange(4)[:, None]

    pool[rows, :, torch.full((4, 1), 999)] = torch.ones(4, 1, 2, 16)

    assert pool.shape == (4, 2, 1000, 16)
    assert pool.untyped_storage().nbytes() < 2**17
    assert pool[3, 1, 999].eq(1).all()
