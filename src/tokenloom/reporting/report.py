"""The report of a run: one HTML file with charts, samples, results and configuration, readable offline."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tokenloom.reporting.formatting import visible
from tokenloom.reporting.history import read_history
from tokenloom.reporting.matplotlib_plots import plot_losses
from tokenloom.reporting.report_page import ReportPage
from tokenloom.storage import write_text

PACKAGE = "tokenloom.reporting"


def write_report(path: Path) -> Path:
    """Write the report and the loss plots into a run folder, each file atomically; returns the path of the report."""
    history = read_history(path)
    page = ReportPage.of(history)
    plot_losses(history.metrics, history.run.loss_plots, baselines=history.baselines, title=page.name)
    write_text(history.run.report_file, _render(page))
    return history.run.report_file


def _render(page: ReportPage) -> str:
    style, script = _asset("theme.css") + _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = _templates().get_template("page.html.j2")
    return template.render(page=page, style=style, script=script, script_digest=digest)


@functools.cache  # it keeps the compiled templates
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_controls,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _without_controls(value: object) -> object:
    """Applied by the templates to every value: text of a run never carries control characters into the page."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> Markup:
    """A style sheet or script of the page, which is inserted unescaped."""
    text = resources.files(PACKAGE).joinpath("page", name).read_text(encoding="utf-8")
    return Markup("\n" + text)
