"""Startup time of commands, next to that of importing torch."""

from __future__ import annotations

import sys

from tokenloom.bench.harness import Implementation

IMPLEMENTATIONS = (
    Implementation("import torch", command=(sys.executable, "-c", "import torch")),
    Implementation("python alone", command=(sys.executable, "-c", "pass")),
    Implementation("tokenloom --help", command=(sys.executable, "-m", "tokenloom", "--help")),
    Implementation("tokenloom info", command=(sys.executable, "-m", "tokenloom", "info")),
    Implementation("import tokenloom.api", command=(sys.executable, "-c", "import tokenloom.api")),
)
