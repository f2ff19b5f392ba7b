"""Checkpoints of a run: which are kept, and what they contain."""

from dataclasses import asdict

from tokenloom.training.display import QuietDisplay
from tokenloom.training.saving import save, save_best
from tokenloom.training.step import train_step
from tokenloom.weights.checkpoint import Checkpoint, list_checkpoints, open_checkpoint


class Notices(QuietDisplay):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def test_the_newest_checkpoints_are_kept_and_announced(state_of):
    state, display = state_of(train={"keep_checkpoints": 2}), Notices()
    for step in (1, 2, 3):
        state.counters.step = step
        save(state, display)
    kept = list_checkpoints(state.run.checkpoints)
    assert [path.name for path in kept] == ["step-00000002", "step-00000003"]
    assert display.texts[-1] == f"saved {kept[-1]}"


def test_a_checkpoint_has_the_counters_and_the_optimizer_state(state):
    train_step(state, 0)
    state.counters.step, state.counters.tokens = 1, state.tokens_per_step
    save(state, QuietDisplay())
    checkpoint = open_checkpoint(state.run.checkpoints / "step-00000001")
    assert asdict(state.counters).items() <= checkpoint.state().items()
    assert checkpoint.optimizer_tensors().keys() == state.optimizer.state_tensors().keys()


def test_the_weights_of_the_best_and_of_the_first_evaluation_are_kept_without_optimizer_state(state):
    for step, loss in ((1, 2.0), (2, 1.75), (3, 1.5)):
        state.counters.step, state.counters.best_val_loss = step, loss
        save_best(state)
    first, best = list_checkpoints(state.run.checkpoints, "best")
    assert (Checkpoint(first).step, Checkpoint(best).step) == (1, 3)
    assert open_checkpoint(best).state()["val_loss"] == 1.5
    assert open_checkpoint(first).optimizer_tensors() == open_checkpoint(best).optimizer_tensors() == {}


def test_the_best_checkpoint_replaces_a_later_one_of_an_interrupted_session(state):
    for step, loss in ((10, 2.0), (30, 1.75), (20, 1.5)):  # resumed after step 30 from an earlier checkpoint
        state.counters.step, state.counters.best_val_loss = step, loss
        save_best(state)
    assert [Checkpoint(path).step for path in list_checkpoints(state.run.checkpoints, "best")] == [10, 20]
