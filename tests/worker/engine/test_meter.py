"""What a process may still take, and what is told of what it took."""

import torch

from worker.engine import host
from worker.engine.meter import Meter, Space, find_space
from worker.engine.pool import overlaid

CPU = torch.device("cpu")


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def groups(tmp_path, told):
    write(tmp_path / "proc", cgroup=told)
    return sorted(host.left_by_groups(tmp_path / "proc", tmp_path / "groups"))


def test_limits_of_all_groups_around_a_process_hold(tmp_path):
    root = tmp_path / "groups"
    write(root / "a", memory__max=1000, memory__current=800, memory__stat="anon 700\ninactive_file 50")
    write(root / "a" / "b", memory__max="max", memory__current=100, memory__stat="inactive_file 0")

    assert groups(tmp_path, "0::/a/b") == [250]


def test_groups_of_version_1_are_known(tmp_path):
    stat = "total_inactive_file 5"
    folder = tmp_path / "groups" / "memory" / "a"
    write(folder, memory__limit_in_bytes=100, memory__usage_in_bytes=60, memory__stat=stat)

    assert groups(tmp_path, "4:cpu,memory:/a\n0::/") == [45]


def test_a_container_finds_its_own_limit_at_the_root(tmp_path):
    write(tmp_path / "groups", memory__max=500, memory__current=100, memory__stat="inactive_file 0")

    assert groups(tmp_path, "0::/docker/not/mounted/here") == [400]


def test_a_share_counts_what_others_use():
    assert Space(total_bytes=1000, free_bytes=400).left(0.9) == 300
    assert Space(total_bytes=1000, free_bytes=50).left(0.9) < 0


def test_the_cpu_has_what_this_process_may_take():
    space = find_space(CPU)

    assert 0 < space.free_bytes < space.total_bytes


def test_the_most_that_was_taken_is_told_though_it_was_given_back():
    meter = Meter([CPU])

    peak = meter.peak(lambda: torch.ones(2**26, dtype=torch.uint8).sum())

    assert peak[CPU] > 2**26 * 0.9
    assert meter.peak(lambda: None)[CPU] < peak[CPU] or not host._PROCESS.exists()


def test_lines_that_lie_upon_each_other_take_no_memory():
    pool = overlaid((4, 2, 1000, 16), torch.float32, CPU)
    rows = torch.arange(4)[:, None]

    pool[rows, :, torch.full((4, 1), 999)] = torch.ones(4, 1, 2, 16)

    assert pool.shape == (4, 2, 1000, 16)
    assert pool.untyped_storage().nbytes() < 2**17
    assert pool[3, 1, 999].eq(1).all()
