"""The style of matplotlib plots, and files whose bytes depend on the data only."""
# matplotlib leaves **kwargs and the type of rc_context unannotated.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenloom.storage import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = "#e4e4e4"
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "axes.axisbelow": True,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "text.color": "#222222",
    "text.parse_math": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "tokenloom",
}
# Without the metadata that depend on time and version, the same records give the same bytes.
_METADATA = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None, "Creator": None}}


@contextmanager
def plot_style() -> Generator[None]:
    """A context with the style, independent of the user's matplotlibrc."""
    from matplotlib import rc_context, rcdefaults, rcParams

    with rc_context(), warnings.catch_warnings():
        rcdefaults()  # The output must not depend on the user's matplotlibrc.
        rcParams.update(_STYLE)
        # A title may have characters that the font lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def save_figure(figure: Figure, path: Path) -> None:
    """Replace a .png, .pdf or .svg file atomically; the same figure gives the same bytes."""
    content = BytesIO()
    figure.savefig(content, format=path.suffix[1:], metadata=_METADATA.get(path.suffix, {}))
    write_bytes(path, content.getvalue())
