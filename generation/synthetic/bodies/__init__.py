"""Bodies and heads to compose from: parametric shapes, scanned busts, toon characters."""
