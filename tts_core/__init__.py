"""Text and a voice reference in, speech out. Start reading at `handler.py`, then `service/`, then `synthesizer.py`."""
