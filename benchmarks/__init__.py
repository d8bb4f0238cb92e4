"""One question per file; LOG.md has the results and the ideas that failed."""
