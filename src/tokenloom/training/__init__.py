"""Training: the loop, the training step, schedules, optimizers, time budgets and logs."""
