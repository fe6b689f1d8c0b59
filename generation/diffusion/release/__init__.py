"""What belongs to the official release: its sampler tables, checkpoints and folder layout."""
