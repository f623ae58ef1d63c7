"""What is done next: observe, decide (pure), act."""
