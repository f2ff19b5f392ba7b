"""How processes divide a batch, and the sizes that an error names."""

import pytest

from tokenloom.config import Config, TrainConfig
from tokenloom.errors import TrainingError
from tokenloom.training.batch_shares import batch_shares


@pytest.mark.parametrize(
    ("batch_size", "micro_batch_size", "processes", "shares"),
    [(8, None, 1, (8, 8, 1)), (8, 2, 2, (4, 2, 2)), (1024, 4, 1024, (1, 1, 1)), (12, 3, 3, (4, 3, 2))],
)
def test_every_process_has_as_many_sequences(batch_size, micro_batch_size, processes, shares):
    divided = batch_shares(TrainConfig(batch_size=batch_size, micro_batch_size=micro_batch_size), processes)
    assert (divided.per_process, divided.micro_batch, divided.accumulation) == shares


@pytest.mark.parametrize(
    ("batch_size", "micro_batch_size", "processes", "named"),
    [(8, None, 3, [6, 9]), (8, 4, 3, [12]), (30, 5, 4, [20, 40]), (8, None, 1000, [1000])],
)
def test_sizes_that_an_error_names_can_be_divided(batch_size, micro_batch_size, processes, named):
    train = {"batch_size": batch_size, "micro_batch_size": micro_batch_size}
    with pytest.raises(TrainingError, match=f"--train.batch-size {' or '.join(map(str, named))}, or "):
        batch_shares(TrainConfig.model_validate(train), processes)
    for size in named:
        batch_shares(Config.of({"train": {**train, "batch_size": size}}).train, processes)


def test_larger_sizes_are_those_that_the_micro_batch_divides_as_well():
    shares = batch_shares(TrainConfig(batch_size=12, micro_batch_size=4), 6)
    assert shares.nearest(3) == [12, 24, 36]
