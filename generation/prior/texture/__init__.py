"""The prior's colours: what the portrait shows, its mirror image, and a completion of the rest."""
