"""The batch client: a file of lines becomes a folder of audio, by a RunPod endpoint or by this machine.

options reading lines     what was asked for: flags, the file, every line checked against the wire before one is sent
manifest part             what survives a crash: the journal of DIR, and audio that is whole or not there
endpoint remote local     who speaks: RunPod's API over HTTP, or the handler in this process
events failures           what comes back: numbered audio or a failure, whichever way it came
retry pace                decisions, without clock or network: try again, wait, give up, stop everything
runner progress command   the lines, so many at a time; what is shown; exit status

`python -m tts_core.batch` speaks through an endpoint. With `--local` it becomes `python -m handler batch …`: what
composes a worker is `handler.main` alone, which nothing in here imports, so the process is replaced, not called.
Signals and the exit status are then the handler's own, with nothing between.
"""
