"""The real SDK loop against the fake platform under load and faults; `python -m benchmarks.load --help`."""
