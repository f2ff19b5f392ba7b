"""Parameters that several commands share: each is declared once, with its type, help text and group."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Group, Parameter

from tokenloom.config import DataConfig, Precision, TrainConfig

# The panels of --help, in their order.
ARGUMENTS = Group("Arguments", sort_key=1)
RUN = Group("Run", sort_key=2)
SEARCH = Group("Search", sort_key=1.5)
DATA = Group("Data", sort_key=3)
MODEL = Group("Model", sort_key=4)
TRAINING = Group("Training", sort_key=5)
EVALUATION = Group("Evaluation", sort_key=6)
CHECKPOINTS = Group("Evaluation and checkpoints", sort_key=7)
SAMPLING = Group("Sampling", sort_key=8)
SAMPLES = Group("Samples", sort_key=9)
HARDWARE = Group("Hardware", sort_key=10)
OUTPUT = Group("Output", sort_key=11)

MODEL_HELP = (
    "A run (RUN, RUN@best, RUN@first, RUN@step-1000), a checkpoint, a folder in Hugging Face or OpenAI format, a .gguf "
    "or .pth file, or a name such as gpt2 or openai:124M."
)
TEXT_SOURCES_HELP = "Files, folders, globs, - (stdin), hf:NAME, or a named corpus."
TRAINING_SOURCES_HELP = DataConfig.model_fields["sources"].description

ModelArgument = Annotated[str, Parameter(group=ARGUMENTS, help=MODEL_HELP)]
TextFile = Annotated[str | None, Parameter(group=ARGUMENTS, help="Text file, or - to read the text from stdin.")]
Text = Annotated[str | None, Parameter(group=DATA, help="The text itself, instead of a file.")]
Trust = Annotated[
    bool,
    Parameter(
        group=MODEL,
        negative="",
        show_default=False,
        help="Load .pth files that contain more than tensors and can execute arbitrary code. Only for trusted files.",
    ),
]
Context = Annotated[
    int | None, Parameter(group=EVALUATION, help="Context length in tokens. Defaults to the block size of the model.")
]
Stride = Annotated[
    int | None,
    Parameter(
        group=EVALUATION,
        help="Tokens between the starts of consecutive windows; fewer give each token more context but take longer. "
        "Defaults to the context length.",
    ),
]
Refresh = Annotated[
    bool,
    Parameter(
        group=DATA,
        negative="",
        show_default=False,
        help="Prepare the text again, and replace token shards that were prepared before. Files are known by size and "
        "times, hf:NAME by its name: needed if a dataset on the Hugging Face hub has changed.",
    ),
]
Device = Annotated[str, Parameter(group=HARDWARE, help=TrainConfig.model_fields["device"].description)]
InferencePrecision = Annotated[
    Precision,
    Parameter(group=HARDWARE, help="Precision of matrix products; auto selects bf16 if it is fast on the device."),
]
Json = Annotated[
    bool,
    Parameter(
        group=OUTPUT,
        negative="",
        show_default=False,
        help="Print the result as one JSON object on stdout, with null for numbers that are not finite; progress and "
        "notices go to stderr.",
    ),
]
