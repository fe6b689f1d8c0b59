"""The light of a portrait, and the portrait without it."""
