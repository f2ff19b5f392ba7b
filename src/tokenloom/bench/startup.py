"""How long a command takes to begin: --help and info, beside importing torch alone."""

from __future__ import annotations

import sys

from tokenloom.bench.harness import Contender

CONTENDERS = [
    Contender("import torch", command=(sys.executable, "-c", "import torch")),
    Contender("python alone", command=(sys.executable, "-c", "pass")),
    Contender("tokenloom --help", command=(sys.executable, "-m", "tokenloom", "--help")),
    Contender("tokenloom info", command=(sys.executable, "-m", "tokenloom", "info")),
    Contender("import tokenloom.api", command=(sys.executable, "-c", "import tokenloom.api")),
]
