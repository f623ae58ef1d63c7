"""What is known: the append-only journal, the state derived from it, and the lock of its one driver."""
