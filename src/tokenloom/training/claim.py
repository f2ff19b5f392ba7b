"""The folder of a run, claimed by one process: rank 0 creates and locks it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tokenloom.compute.parallel import World
from tokenloom.errors import CheckpointError, TokenloomError, UsageError
from tokenloom.reporting.messages import resume_command
from tokenloom.run_folder import RunFolder


def refuse_if_used(run: RunFolder) -> None:
    """Raise `UsageError` if the folder of a new run has files, or is being trained."""
    if not run.is_unused():
        run.refuse_if_locked()
        raise UsageError(f"{run.path} exists already. Choose another --out, or resume it: {resume_command(run.path)}")


def refuse_unwritable(out: Path) -> None:
    """Raise `UsageError` if no run can be created at `out`, before time is spent on preparing its text."""
    folder = out if out.is_dir() else out.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(dir=folder, prefix=".writable-"))
    except OSError as error:
        raise UsageError(f"cannot write a run to {folder}: {error.strerror}. Choose another --out.") from None


@contextmanager
def claimed_run(run: Callable[[], RunFolder], world: World, *, is_new: bool) -> Generator[RunFolder]:
    """The folder that `run` returns on rank 0, in every process; it is locked while the context is active.

    Raises `CheckpointError`, in every process, if another run holds the lock or has used a new folder meanwhile.
    """
    with ExitStack() as stack:
        claim: RunFolder | TokenloomError | None = None
        if world.is_main:
            try:
                claim = run()
                stack.enter_context(claim.locked())
                if is_new and claim.is_run():
                    raise CheckpointError(f"{claim.path} was used by another run meanwhile. Choose another --out.")
            except TokenloomError as error:
                claim = error  # raised by every process below; otherwise the others would wait for rank 0
        claim = world.broadcast(claim)
        if isinstance(claim, TokenloomError):
            raise claim
        assert claim is not None  # rank 0 has a folder or an error
        yield claim
