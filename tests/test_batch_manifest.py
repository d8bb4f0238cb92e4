"""What survives a crash: the journal in every state a kill can leave it in, and audio that is whole or not there."""

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.processes import room_for
from tts_core.batch.manifest import NAME, Entry, Manifest, ManifestUnusable, folded, parsed
from tts_core.batch.part import Part, Whole, is_whole

STATES = st.sampled_from(["submitted", "retrying", "done", "failed", "renewed"])
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"key": st.sampled_from("abc"), "state": STATES},
        optional={"job_id": st.text(), "renewals": st.integers(0, 5), "execution_ms": st.integers(0, 10**6)},
    )
)


def written(records: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in [{"batch": "b", "version": 1}, *records]).encode()


@given(RECORDS, st.data())
def test_a_journal_cut_anywhere_holds_all_its_whole_lines(
    records: list[dict[str, object]], data: st.DataObject
) -> None:
    whole = written(records)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    read, whole_bytes = parsed(cut)
    assert len(read) == cut.count(b"\n")
    assert cut[:whole_bytes].endswith(b"\n") or not whole_bytes
    assert b"\n" not in cut[whole_bytes:]
    assert b"\n" not in cut[whole_bytes:]
    assert read[1:] == records[: max(0, len(read) - 1)]


@given(RECORDS)
def test_nothing_that_was_billed_is_forgotten(records: list[dict[str, Any]]) -> None:
    entries = folded(records)
    assert sum(entry.execution_ms for entry in entries.values()) == sum(r.get("execution_ms", 0) for r in records)
    assert all(entries[r["key"]].state == r["state"] for r in {r["key"]: r for r in records}.values())


def test_the_next_run_reads_what_this_one_noted(tmp_path: Path) -> None:
    with closing(Manifest.open(tmp_path)) as first:
        first.note("k", "submitted", job_id="j").result()
        assert first["k"].job_id == "j"
        first.note("k", "renewed", renewals=1).result()
        first.note(
            "k", "done", file="a.wav", size_bytes=3, sha256="s", audio_seconds=1.5, execution_ms=7, line=1
        ).result()
        batch_id = first.batch_id
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"key": "k", "sta')  # killed in the middle
    with closing(Manifest.open(tmp_path)) as second:
        assert second.batch_id == batch_id
        assert second["k"] == Entry("done", 1, None, "a.wav", 3, "s", 1.5, 7)
        assert second["other"] == Entry()
        second.note("l", "failed", code="x").result()
    assert parsed((tmp_path / NAME).read_bytes())[0][-1]["code"] == "x"


def test_what_the_system_writes_in_pieces_is_whole_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    with closing(Manifest.open(tmp_path)) as manifest:
        manifest.note("k", "done", file="a.wav").result()
    with closing(Manifest.open(tmp_path)) as again:
        assert (again.batch_id, again["k"].file) == (manifest.batch_id, "a.wav")


def test_a_full_disk_is_told_and_spoils_no_other_line(tmp_path: Path) -> None:
    with closing(Manifest.open(tmp_path)) as manifest:
        with room_for(bytes=(tmp_path / NAME).stat().st_size + 10), pytest.raises(OSError, match="File too large"):
            manifest.note("k", "done", file="a.wav").result()
        manifest.note("l", "done", file="b.wav").result()
        assert manifest["k"] == Entry()
    with closing(Manifest.open(tmp_path)) as again:
        assert (again["k"].state, again["l"].file) == ("new", "b.wav")


def test_a_new_folder_is_a_new_batch(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with closing(Manifest.open(tmp_path)) as one, closing(Manifest.open(tmp_path / "other")) as other:
        assert one.batch_id != other.batch_id


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    with closing(Manifest.open(tmp_path)), pytest.raises(ManifestUnusable, match="another batch"):
        Manifest.open(tmp_path)
    Manifest.open(tmp_path).close()


@pytest.mark.parametrize("text", ["nonsense\n", "[]\n", '{"key": "k"}\n', '{"batch": "b", "version": 2}\n'])
def test_a_foreign_manifest_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(ManifestUnusable):
        Manifest.open(tmp_path)
    assert (tmp_path / NAME).read_text() == text


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "a.pcm"
    with Part(target) as part:
        part.write(b"abc")
        assert not target.exists()
        whole = part.finish("pcm")
    assert (target.read_bytes(), is_whole(target, whole)) == (b"abc", True)
    assert [path.name for path in target.parent.iterdir()] == ["a.pcm"]
    assert not is_whole(target, Whole(3, "another"))
    target.write_bytes(b"abd")
    assert not is_whole(target, whole)
    target.unlink()
    assert not is_whole(target, whole)


def test_what_was_begun_and_broken_off_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.pcm"
    target.write_bytes(b"before")
    with pytest.raises(KeyError), Part(target) as part:
        part.write(b"half")
        raise KeyError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.pcm", b"before")]
