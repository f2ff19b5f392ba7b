"""Training in a notebook: one output, renewed in place."""

import sys
import types
from dataclasses import replace

from figures import PLAN, SUMMARY
from screens import Clock

from tokenloom import api
from tokenloom.metrics import MetricsRecord
from tokenloom.reporting.console import TrainingDisplay
from tokenloom.reporting.notebook_display import NotebookDisplay
from tokenloom.reporting.terminal import in_notebook
from tokenloom.run_records import SampleRecord

SAMPLE = SampleRecord(step=100, tokens=1, prompt="def f", text="(x): <script>\x1b", seed=1)


class Output:
    """What a notebook shows, and how often it was renewed."""

    def __init__(self):
        self.html, self.shown, self.renewed = "", 0, 0

    def show(self, html):
        self.html, self.shown = html, self.shown + 1
        return self.renew

    def renew(self, html):
        self.html, self.renewed = html, self.renewed + 1


def play(output, steps=200, finish=True):
    clock = Clock()
    with NotebookDisplay(output.show, clock=clock) as display:
        display.started(PLAN)
        for step in range(1, steps + 1):
            clock.now += 0.1
            display.stepped(step, 8 - step / 50, 43_000.0)
            position = MetricsRecord(step=step, tokens=step * 4096, epoch=step / 156, seconds=clock.now)
            if step % 50 == 0:
                display.recorded(replace(position, train_loss=8 - step / 50, lr=1e-3, tokens_per_sec=43e3))
            if step % 100 == 0:
                display.recorded(replace(position, val_loss=8 - step / 60, val_bits_per_byte=4 - step / 100))
                display.sampled(SAMPLE)
        if finish:
            display.finished(SUMMARY)


def test_there_is_one_output_which_is_renewed_at_most_twice_a_second():
    output = Output()
    play(output)
    assert output.shown == 1
    assert 30 <= output.renewed <= 45  # 20 seconds


def test_it_shows_plan_progress_losses_and_the_newest_sample():
    output = Output()
    play(output, finish=False)
    assert "3.4M parameters" in output.html
    assert 'aria-valuenow="17"' in output.html
    assert "step 200/1,200  train 4.000  val 4.667" in output.html
    assert "1:40 left" in output.html
    assert output.html.count("<polyline") == 2
    assert "<b>def f</b>(x): &lt;script&gt;␛" in output.html


def test_at_the_end_it_shows_the_summary():
    output = Output()
    play(output)
    assert "Next steps:" in output.html
    assert "1.70 bits/byte" in output.html


def test_the_final_evaluation_shows_its_progress_until_the_summary():
    output, clock = Output(), Clock()
    with NotebookDisplay(output.show, clock=clock) as display:
        display.started(PLAN)
        clock.now += 1.0
        display.evaluated(1_000, 4_000)
        assert "evaluating on the whole validation text: 1,000 of 4,000 windows" in output.html
        display.finished(SUMMARY)
    assert "evaluating" not in output.html


def test_notices_before_the_start_are_kept_and_of_later_ones_the_newest():
    output = Output()
    with NotebookDisplay(output.show) as display:
        display.notice("<b>first</b>")
        display.started(PLAN)
        for step in range(100, 1000, 100):
            display.notice(f"saved step {step}")
    assert output.html.index("&lt;b&gt;first&lt;/b&gt;") < output.html.index("3.4M parameters")
    assert output.html.index("3.4M parameters") < output.html.index("saved step 900")
    assert output.html.count("saved step") == 5


def test_only_the_kernel_of_a_notebook_is_taken_for_a_notebook(monkeypatch):
    def shell(**attributes):
        module = types.ModuleType("IPython")
        module.get_ipython = lambda: types.SimpleNamespace(**attributes) if attributes else None
        monkeypatch.setitem(sys.modules, "IPython", module)

    shell(kernel=object())
    assert in_notebook()
    assert isinstance(api._display(quiet=False), NotebookDisplay)
    shell(terminal=object())
    assert not in_notebook()
    shell()
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()
    assert isinstance(api._display(quiet=False), TrainingDisplay)
