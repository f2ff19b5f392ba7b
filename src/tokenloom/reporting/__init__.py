"""Terminal output, charts, and the report of a run."""
