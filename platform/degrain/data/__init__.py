"""From a corpus of photo pairs to batches: corpus, catalog, patch set, loader."""
