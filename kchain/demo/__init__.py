"""A whole chain on this machine: a tiny Qwen-shaped base model, sample data, and the run that ties them together."""
