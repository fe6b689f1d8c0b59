"""What the head stands on: neck and shoulders."""
