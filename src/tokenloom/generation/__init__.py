"""From a model to new text: choosing tokens, continuing many sequences at once, and turning ids into characters."""
