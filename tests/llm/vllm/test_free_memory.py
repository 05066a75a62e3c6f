"""Free memory is what the kernel can give, not what lies idle."""

import pytest

from multicsr.llm.vllm.free_memory import free_memory_gib

GIB = 2**30
MEMINFO = "MemTotal: 25165824 kB\nMemFree: 943718 kB\nMemAvailable: 20971520 kB\nHugePages_Total:       0\n"


@pytest.fixture
def machine(tmp_path):
    """Make a machine with 20 GiB available, of which 0.9 GiB lie idle and the rest cache files."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    return tmp_path


def group_v2(root, limit, usage, cached):
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\nfile 7\ninactive_file {cached}\n")


def test_cached_files_count_as_free(machine):
    assert free_memory_gib(machine) == 20.0


def test_a_container_has_what_its_limit_leaves(machine):
    group_v2(machine, 6 * GIB, 5 * GIB, 2 * GIB)
    assert free_memory_gib(machine) == 3.0


def test_a_limit_above_the_memory_of_the_machine_gives_none(machine):
    group_v2(machine, 64 * GIB, 0, 0)
    assert free_memory_gib(machine) == 20.0


def test_a_container_without_a_limit(machine):
    group_v2(machine, "max", 5 * GIB, 2 * GIB)
    assert free_memory_gib(machine) == 20.0


def test_version_1_of_control_groups(machine):
    folder = machine / "sys/fs/cgroup/memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(6 * GIB))
    (folder / "memory.usage_in_bytes").write_text(str(5 * GIB))
    (folder / "memory.stat").write_text(f"cache 1\ntotal_inactive_file {GIB}\n")
    assert free_memory_gib(machine) == 2.0


def test_a_system_that_reports_nothing(tmp_path):
    assert free_memory_gib(tmp_path) is None
