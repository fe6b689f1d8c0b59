"""Things worn on the head that are not hair, skin or cloth."""
