"""The display protocol, and the display that shows nothing."""

from tokenloom.metrics import MetricsRecord
from tokenloom.reporting.console import TrainingDisplay
from tokenloom.run_records import RunPlan, RunSummary, SampleRecord
from tokenloom.training.display import Display, QuietDisplay

PLAN = RunPlan(
    run="runs/demo",
    data="python-docs",
    train_tokens=640_000,
    val_tokens=71_000,
    windows=2_500,
    validation_windows=277,
    batch_size=16,
    tokens_per_step=4096,
    max_steps=1200,
    first_step=0,
    parameters=3_412_000,
    flops_per_token=21.4e6,
    memory_bytes=10**9,
    estimated_seconds=120.0,
    budget_seconds=None,
    device="cpu",
    precision="fp32",
    threads=2,
    baselines=None,
)


def report_everything(display: Display) -> None:
    display.started(PLAN)
    display.stepped(1, 1.0, 1.0)
    display.recorded(MetricsRecord(step=1, tokens=4096, epoch=0.1, seconds=1.0, train_loss=1.0))
    display.sampled(SampleRecord(step=1, tokens=4096, seed=1, prompt="a", text="b"))
    display.notice("a notice")
    display.replanned(1000)
    display.finished(RunSummary(run="runs/demo", steps=1000))


def test_a_quiet_display_accepts_every_event_and_prints_nothing(capfd):
    with QuietDisplay() as display:
        report_everything(display)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_the_console_implements_the_protocol(capfd):
    with TrainingDisplay() as display:
        report_everything(display)
    assert "a notice" in capfd.readouterr().err
