"""A finished chain that answers: loaded as it is exported, prompted as it was trained."""
