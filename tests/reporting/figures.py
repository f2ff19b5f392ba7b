"""An invented plan and summary of a run."""

from tokenloom.run_records import Baselines, RunPlan, RunSummary

BASELINES = Baselines(xz_bits_per_byte=1.80, zstd_bits_per_byte=1.92, unigram_bits_per_byte=4.43)
PLAN = RunPlan(
    run="runs/demo",
    data="python-docs",
    train_tokens=640_000,
    val_tokens=71_000,
    windows=2_500,
    validation_windows=277,
    batch_size=16,
    parameters=3_412_000,
    flops_per_token=21.4e6,
    memory_bytes=400_000_000,
    estimated_seconds=118.0,
    device="cpu",
    precision="fp32",
    threads=2,
    max_steps=1200,
    tokens_per_step=4096,
    first_step=0,
    budget_seconds=120,
    baselines=BASELINES,
)
SUMMARY = RunSummary(
    run="runs/demo",
    checkpoint="runs/demo/checkpoints/step-00001200",
    steps=1200,
    tokens=4_915_200,
    seconds=114.2,
    train_loss=2.415,
    val_loss=2.82,
    val_perplexity=16.8,
    val_bits_per_byte=1.70,
    best_step=1200,
    best_val_loss=2.82,
    tokens_per_sec=43012.3,
)
