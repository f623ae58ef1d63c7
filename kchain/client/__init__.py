"""Kaggle's API as one user speaks it; decides nothing. The door is `connect.connect(target)`."""
