"""Two implementations are timed in turn."""

import pytest
from compiled_steps import times_in_turn, training_step


def test_the_ratio_is_that_of_neighboring_calls():
    now, slowdown = [0.0], [1.0]

    def work(seconds):
        now[0] += seconds * slowdown[0]

    def second():
        work(1.0)
        slowdown[0] *= 2  # the machine becomes slower after each pair

    first_time, second_time, ratio = times_in_turn(lambda: work(1.5), second, 60.0, clock=lambda: now[0])
    assert ratio == pytest.approx(1.5)
    assert first_time == pytest.approx(1.5 * second_time)


def test_a_step_trains_without_being_compiled():
    training_step(1, 1, 8, compile=False)()
