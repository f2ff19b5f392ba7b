"""The run that processes continue after torchrun has restarted them (--max-restarts)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tokenloom.compute.parallel import World, can_restart, join_processes, launch_id, process_id
from tokenloom.config import TrainConfig
from tokenloom.errors import CheckpointError
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunLaunch, RunSummary


def record_launch(run: RunFolder) -> None:
    """Write which torchrun command trains the run; nothing without torchrun."""
    if can_restart():
        run.write_launch(RunLaunch(id=launch_id(), process=process_id()))


def run_before_restart(folders: Iterable[Path], train: TrainConfig) -> RunFolder | None:
    """The run among `folders` that this torchrun command was training before it restarted its processes.

    None if there is none. Rank 0 searches; every process has to call this.
    """
    if not can_restart():
        return None

    def find() -> RunFolder | None:
        launch = launch_id()
        runs = [run for folder in folders if _was_trained_before(run := RunFolder(folder), launch) and run.is_run()]
        return max(runs, key=lambda run: run.config_file.stat().st_mtime, default=None)

    world, _ = join_processes(train.device, train.precision)
    return world.on_main(find)


def summary_before_restart(run: Callable[[], RunFolder], world: World) -> RunSummary | None:
    """The summary of a run that this torchrun command had finished before it restarted its processes.

    None if it had not. Rank 0 calls `run`; every process has to call this.
    """
    if not can_restart():
        return None

    def find() -> RunSummary | None:
        folder = run()
        return folder.summary() if _was_trained_before(folder, launch_id()) and folder.is_finished() else None

    return world.on_main(find)


def _was_trained_before(run: RunFolder, launch: str) -> bool:
    """Whether an earlier process of this torchrun command has trained the run."""
    try:
        saved = run.launch()
    except CheckpointError:  # not written by this command, which would have written it whole
        return False
    return saved is not None and saved.id == launch and saved.process != process_id()
