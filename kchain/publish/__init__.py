"""A finished chain as a private Kaggle Model."""
