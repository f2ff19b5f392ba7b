"""The run that processes continue after torchrun has restarted them (--max-restarts)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenloom.compute.parallel import is_restarted, join_processes, launch_id
from tokenloom.config import TrainConfig
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunLaunch


def record_launch(run: RunFolder) -> None:
    """Write which torchrun command trains the run; nothing without torchrun."""
    if launch := launch_id():
        run.write_launch(RunLaunch(id=launch))


def run_before_restart(folders: Iterable[Path], train: TrainConfig) -> RunFolder | None:
    """The run among `folders` that the processes of this torchrun command were training before they were restarted.

    None if they were not restarted, or had not begun. Rank 0 searches; every process has to call this.
    """
    if not is_restarted():
        return None

    def find() -> RunFolder | None:
        launch = RunLaunch(id=launch_id() or "")
        runs = [run for folder in folders if (run := RunFolder(folder)).is_run() and run.launch() == launch]
        return max(runs, key=lambda run: run.config_file.stat().st_mtime, default=None)

    world, _ = join_processes(train.device, train.precision)
    return world.on_main(find)
