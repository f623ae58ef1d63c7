"""A folder that trains what is dropped into it: each JSONL file becomes a run of one phase, once."""
