"""The training loop and its safety: knows no method, no task and no data set."""
