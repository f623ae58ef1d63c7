"""Whether what came back counts: result, adapter, checkpoint, gates; and what to do when it does not."""
