"""The base model against the chain, on questions neither was trained on."""
