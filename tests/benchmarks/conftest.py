"""The scripts in benchmarks/ are not part of the package; they are imported by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
