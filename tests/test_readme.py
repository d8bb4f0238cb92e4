"""The README's promises that can be compared with the code are."""

import re
from collections.abc import Iterator
from pathlib import Path

from tts_core.errors import TTSError
from tts_core.jobs import ACTIONS, Synthesize
from tts_core.settings import FOREIGN_NAMES, FOREIGN_ONLY, Settings

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def leaves(error: type[TTSError] = TTSError) -> Iterator[type[TTSError]]:
    """Every error that is raised itself: those without children, and the root, which is `internal`."""
    if error is TTSError or not error.__subclasses__():
        yield error
    for child in error.__subclasses__():
        yield from leaves(child)


def error_table() -> list[str]:
    """One row per error, in the order of the tree, said as the class says it."""
    rows = []
    for error in leaves():
        assert error.__doc__
        sentence = " ".join(error.__doc__.strip().split("\n\n")[0].split())
        rows.append(f"| `{error.code}` | {'yes' if error.retryable else 'no'} | {sentence} |")
    return rows


def test_codes_are_unique() -> None:
    codes = [error.code for error in leaves()]
    assert len(set(codes)) == len(codes)


def test_every_error_is_in_the_readme_as_the_code_has_it() -> None:
    table = README.split("<!-- errors")[1].split("##")[0]
    assert [line for line in table.splitlines() if line.startswith("| `")] == error_table()


def test_every_setting_is_in_the_readme() -> None:
    foreign = {field: name for name, field in FOREIGN_NAMES.items()}
    names = {foreign[f] if f in FOREIGN_ONLY else f"XTTS_{f.upper()}" for f in Settings.model_fields}
    missing = {name for name in names if name not in README}
    assert missing <= {"RUNPOD_WEBHOOK_GET_JOB"}  # RunPod's own, nothing to set
    assert set(re.findall(r"XTTS_[A-Z0-9_]+[A-Z0-9]", README)) <= names | {"XTTS_"}


def test_every_field_and_action_is_in_the_readme() -> None:
    assert [name for name in (*Synthesize.model_fields, *ACTIONS) if f"`{name}`" not in README] == []
