"""Hair and beards of composed heads: strands, ribbons, and where the hair truly ends."""
