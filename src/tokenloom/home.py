"""Paths that begin with "~", the home folder."""

from __future__ import annotations

import os
from pathlib import Path

from tokenloom.errors import UsageError


def expand_home(path: str | Path) -> Path:
    """The path with "~" or "~user" at its start replaced by that home folder.

    Raises `UsageError` if there is no such folder; a file whose name begins with "~" is written "./~name".
    """
    expanded = os.path.expanduser(path)  # not Path.expanduser, which takes ./~name for ~name
    if str(expanded).startswith("~"):
        user = Path(path).parts[0]
        raise UsageError(
            f"{path}: the home folder {user} cannot be determined. Write the full path, or ./{user} for that name."
        )
    return Path(expanded)
