"""How weights are found: one visible loop, its schedule, its optimizers, its budget of time and its records."""
