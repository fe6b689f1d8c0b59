"""What each pixel of the portrait is: skin, hair, headgear, cloth, background."""
