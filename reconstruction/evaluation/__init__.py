"""How good views or heads are: against truth, against the portrait, against themselves."""
