"""Model weights on disk: checkpoints, and the formats of other projects."""
