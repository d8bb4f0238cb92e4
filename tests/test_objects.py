"""Objects as files: which paths are refused, and what is left when a write fails."""

import io
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage.local.files import ObjectFolder, make_private_folder, write_whole
from tts_core.errors import StoreUnavailable

TRICKS = st.sampled_from(
    [
        "..",
        ".",
        "",
        "/",
        "\\",
        "\0",
        "\n",
        " ",
        "~",
        "%2e%2e",
        "..;",
        "C:",
        "ä",
        "\u2024\u2024",
        "\uff0e",
        "\u2215",
        ".x",
    ]
)
WORDS = st.sampled_from(["audio", "voices", "tts-cache", "t1", "a.wav", "a" * 128, "a" * 129, "-", "a..b"])
PATHS = st.lists(st.one_of(TRICKS, WORDS, st.text(max_size=8)), max_size=6).flatmap(
    lambda parts: st.sampled_from(["/".join(parts), "".join(parts), "/" + "/".join(parts)])
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outside") / "objects"


@settings(deadline=None)
@given(path=PATHS)
@example(path="audio/t1/a.wav")
@example(path="voices/t1/v1/v2/latents-1.safetensors")
@example(path="voices/t1/v1/v2/../../../t2/a.wav")
@example(path="voices/t1/a/b/c/d/e")
@example(path="voices/t1/a/b/c/d/e/f")
@example(path="audio/t1/../../../escaped")
@example(path="audio/t1/" + "a" * 128)
def test_a_path_is_refused_or_names_a_file_of_its_own_tenant(root: Path, path: str) -> None:
    objects = ObjectFolder(root)
    try:
        objects.put(path, b"x")
    except ValueError:
        with pytest.raises(ValueError, match="bucket/tenant_id/name"):
            objects.get(path)
    else:
        bucket, tenant_id, *name = path.split("/")
        assert bucket in ("audio", "voices", "tts-cache")
        assert 1 <= len(name) <= 5
        assert (root / path).resolve().relative_to(root.resolve()).parts == (bucket, tenant_id, *name)
        objects.delete(path)
    assert [entry.name for entry in root.parent.iterdir()] in ([], ["objects"])
    assert not [entry for entry in root.rglob("*") if entry.is_file()]


class BreaksOff(io.BytesIO):
    """Gives a part, then fails, as a disk does."""

    def read(self, size: int | None = -1) -> bytes:
        if part := super().read(4):
            return part
        raise OSError("input/output error")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"whole")
    with pytest.raises(OSError, match="input/output error"):
        write_whole(file, BreaksOff(b"half"))
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.wav", b"whole")]


def test_a_disk_that_fails_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "objects").write_bytes(b"a file where the folder should be")
    objects = ObjectFolder(tmp_path / "objects")
    with pytest.raises(StoreUnavailable) as caught:
        objects.put("audio/t1/a.wav", b"x")
    assert isinstance(caught.value.__cause__, OSError)


def test_a_missing_source_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ObjectFolder(tmp_path).put("audio/t1/a.wav", tmp_path / "none.wav")
    assert list(tmp_path.iterdir()) == []


def test_an_absent_object_has_no_url(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        ObjectFolder(tmp_path).url("audio/t1/a.wav")


def test_a_url_is_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "my #1 folder"
    objects = ObjectFolder(folder)
    objects.put("audio/t1/a.wav", b"x")
    assert objects.url("audio/t1/a.wav") == (folder / "audio" / "t1" / "a.wav").as_uri()
    assert "%231" in objects.url("audio/t1/a.wav")


def test_folders_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private_folder(tmp_path)
    make_private_folder(tmp_path / "a" / "b")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")] == [
        0o755,
        0o700,
        0o700,
    ]
