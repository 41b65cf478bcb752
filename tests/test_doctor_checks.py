"""Each check of `a2video doctor` on machines that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from a2video.data.limits import GIB
from a2video.doctor_checks import (
    CHECKS,
    Plan,
    bf16_on_cpu,
    check_machine,
    compiler,
    cores,
    cudnn,
    cudnn_name,
    decoders,
    disk,
    file_systems,
    gpus,
    packages,
    shared_memory,
    sync_batchnorm,
    torchvision,
)
from a2video.machine import (
    MODULES,
    Gpu,
    Machine,
    existing,
    file_system_of,
    usable_cores,
    usable_memory,
    write_error,
)

GOOD = Machine(
    system="Linux 6 (x86_64)",
    python="3.11.7",
    num_cores=16,
    memory=64 * GIB,
    gpus=(Gpu("H200", 139 * GIB, True),),
    cuda="12.8",
    cudnn=91501,
    modules=dict.fromkeys(MODULES, "1.0"),
    codecs="libavcodec 62",
    compiler="/usr/bin/g++",
    shared_memory=8 * GIB,
    folder="runs/x",
    disk_free=100 * GIB,
    write_error="",
    file_systems={"runs/x": "ext4"},
    bf16_is_wrong=False,
)
PLAN = Plan(16, 4, 8, 1, 20 * 2**20, 12, on_gpu=True, precision="bf16-mixed", compiles=False, shares_statistics=True)
BROKEN = RuntimeError("operator torchvision::nms does not exist\nand more")


def with_module(name: str, found: str | Exception | None) -> Machine:
    return replace(GOOD, modules={**GOOD.modules, name: found})


def test_a_good_machine() -> None:
    assert {finding.level for finding in check_machine(GOOD, PLAN)} == {"ok"}
    assert len(check_machine(GOOD, PLAN)) == len(CHECKS) - 1  # two say nothing, and the first line is of no check


@pytest.mark.parametrize(
    ("check", "machine", "plan", "level", "says"),
    [
        (packages, with_module("lightning", None), None, "error", "lightning is not installed"),
        (packages, with_module("torchmetrics", BROKEN), None, "error", "torchmetrics does not import: operator"),
        (torchvision, with_module("torchvision", BROKEN), None, "error", "torchvision::nms does not exist"),
        (torchvision, with_module("torchvision", None), None, "ok", "not needed"),
        (decoders, with_module("av", None), None, "error", "PyAV, the default decoder, is not installed"),
        (decoders, with_module("torchcodec", OSError("libavutil.so: no")), None, "note", "libavutil.so: no"),
        (gpus, replace(GOOD, gpus=()), None, "note", "no GPU"),
        (gpus, replace(GOOD, gpus=(Gpu("V100", 32 * GIB, False),)), None, "note", "no bf16"),
        (cudnn, replace(GOOD, cudnn=91002), None, "warning", "cuDNN 9.10.2"),
        (cudnn, replace(GOOD, cudnn=90701), None, "ok", "9.7.1"),
        (cudnn, replace(GOOD, cudnn=None), None, "ok", "not used"),
        (bf16_on_cpu, GOOD, replace(PLAN, on_gpu=False), "warning", "bf16-mixed on a CPU"),
        (bf16_on_cpu, replace(GOOD, bf16_is_wrong=True), replace(PLAN, on_gpu=False), "warning", "over two frames"),
        (sync_batchnorm, GOOD, replace(PLAN, on_gpu=False), "error", "needs GPUs"),
        (cores, replace(GOOD, num_cores=2), PLAN, "warning", "4 workers want to decode"),
        (cores, GOOD, replace(PLAN, num_workers=3, num_devices=8), "warning", "24 workers"),
        (cores, GOOD, replace(PLAN, num_threads=16, on_gpu=False), "warning", "16 threads of torch and 4 workers"),
        (cores, GOOD, replace(PLAN, num_threads=16), "ok", "16 CPU cores, 64 GiB"),
        (shared_memory, replace(GOOD, shared_memory=64 * 2**20), None, "warning", "64 MiB free"),
        (shared_memory, replace(GOOD, shared_memory=230 * 2**20), PLAN, "error", "240 MiB of batches"),
        (shared_memory, replace(GOOD, shared_memory=250 * 2**20), PLAN, "ok", "240 MiB of batches"),
        (disk, replace(GOOD, disk_free=GIB), None, "warning", "1.0 GiB free for runs/x"),
        (disk, replace(GOOD, write_error="Not a directory"), PLAN, "error", "runs/x cannot be written to (Not a dir"),
        (disk, replace(GOOD, write_error="Not a directory"), None, "note", "runs/x cannot be written to"),
        (file_systems, replace(GOOD, file_systems={"/data/x.csv": "nfs4"}), None, "note", "/data/x.csv (nfs4)"),
        (compiler, replace(GOOD, compiler=None), PLAN, "note", "no C++ compiler"),
        (compiler, replace(GOOD, compiler=None), replace(PLAN, compiles=True), "error", "no C++ compiler"),
    ],
)
def test_what_is_found(check, machine: Machine, plan: Plan | None, level: str, says: str) -> None:
    finding = check(machine, plan)
    assert finding.level == level
    assert says in finding.text
    assert (finding.level == "ok") == (finding.advice == "")


@pytest.mark.parametrize("name", MODULES)
def test_each_module_that_is_imported_is_looked_at(name: str) -> None:
    assert check_machine(with_module(name, BROKEN)) != check_machine(GOOD)


def test_advice_has_the_numbers() -> None:
    on_cpu = replace(PLAN, on_gpu=False, num_threads=16)
    assert cores(GOOD, on_cpu).advice == "Set num_threads to 12."
    two, full = replace(GOOD, num_cores=2), replace(on_cpu, num_workers=2)
    assert cores(two, replace(full, num_threads=1)).advice == "Set data.num_workers to 1."
    assert cores(two, replace(full, num_threads=2)).advice == "Set num_threads to 1 and data.num_workers to 1."
    assert cores(replace(GOOD, num_cores=1), replace(on_cpu, num_workers=1, num_threads=1)).level == "ok"
    assert cores(GOOD, replace(PLAN, num_devices=8)).advice == "Set data.num_workers to at most 2."
    assert [cudnn_name(number) for number in (91002, 8902, 92100)] == ["9.10.2", "8.9.2", "9.21.0"]


def test_limits_of_a_container(tmp_path: Path) -> None:
    cores_here, memory_here = usable_cores(tmp_path), usable_memory(tmp_path)
    assert cores_here >= 1
    assert memory_here > 2**28
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text("268435456\n")
    assert usable_cores(tmp_path) == 1
    assert usable_memory(tmp_path) == 2**28
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert usable_cores(tmp_path) == cores_here
    assert usable_memory(tmp_path) == memory_here
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == 1


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert write_error(existing(tmp_path / "file/out")) == "Not a directory"
    assert write_error(existing(tmp_path / "new/out")) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_file_systems_by_the_longest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\ntmpfs {tmp_path}/fast tmpfs rw 0 0\n")
    assert file_system_of(tmp_path / "videos", mounts) == "nfs4"
    assert file_system_of(tmp_path / "fast/videos", mounts) == "tmpfs"
    assert file_system_of(Path("/"), mounts) == "ext4"
    assert existing(tmp_path / "not/there") == tmp_path
    assert existing(f"{tmp_path}/mounts#val") == mounts
