"""Learned steps of the prior, one network per module; weights ship in `generation/weights`."""
