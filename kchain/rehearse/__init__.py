"""Any chain on this machine before quota is spent: the same notebooks, with a tiny base model and a little data."""
