"""Head fields of composed heads: drawn recipes, exact truth, simulated portraits of it, files and sheets of them."""
