"""Files that are no voice reference, a few kilobytes each. Made here, byte by byte where FFmpeg would refuse to."""

import io
import struct
import zipfile
from collections.abc import Mapping
from functools import cache

import numpy as np

from tests.clips import clipped, encoded, flac_bomb, noise, speech

SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n"
HLS_FILE = HLS.replace(b"http://127.0.0.1:1/a.ts", b"file:///etc/passwd")
FFCONCAT = b"ffconcat version 1.0\nfile '/etc/passwd'\nduration 10\n"
DASH = b'<?xml version="1.0"?><MPD><Period><BaseURL>http://127.0.0.1:1/</BaseURL></Period></MPD>'
XXE = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><svg>&e;</svg>'


@cache
def good_clip() -> bytes:
    """Six seconds that a reasonable worker takes."""
    return encoded(speech(6.0), "opus")


@cache
def not_audio() -> Mapping[str, bytes]:
    """No sound can be had from these, or next to none."""
    return (
        {
            "random bytes": np.random.default_rng(0).bytes(4096),
            "zeros": bytes(4096),
            "one byte": b"\0",
            "a text": b"This is not audio. " * 50,
            "json": b'{"audio": "none"}',
            "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
            "xml with an entity": XXE,
            "an SDP file": SDP,
            "an HLS playlist": HLS,
            "an HLS playlist of files": HLS_FILE,
            "an ffconcat list": FFCONCAT,
            "a DASH manifest": DASH,
            "an m3u of files": b"#EXTM3U\n/etc/passwd\n",
            "a pls playlist": b"[playlist]\nFile1=http://127.0.0.1:1/a.mp3\nNumberOfEntries=1\n",
            "a png header": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\2\0\0\0",
            "a gif": b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\4\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
            "a pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
            "a zip": _zipped(good_clip()),
            "an elf header": b"\x7fELF\2\1\1" + bytes(57),
            "a midi file": b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0",
            "an mp4 without a track": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x08free",
            "a webm header": b"\x1a\x45\xdf\xa3\x84webm" + bytes(64),
            "an ogg page of nothing": b"OggS\0\2" + bytes(21),
            "a flac marker": b"fLaC" + bytes(38),
            "an id3 tag alone": b"ID3\4\0\0\0\0\0\x10" + bytes(16),
            "riff alone": b"RIFF",
        }
        | _truncated()
        | _lying_wavs()
    )


@cache
def bad_sound() -> Mapping[str, tuple[bytes, tuple[str, ...]]]:
    """Decodable, each with the codes that fit it."""
    flat, any_fault = np.zeros(6 * 24_000, np.float32), ("silent", "clipped", "noisy", "not_audio", "too_short")
    return {
        "silence": (encoded(flat, "flac"), ("silent", "too_short")),
        "silence with one click": (encoded(_with_click(flat), "flac"), ("silent", "too_short", "noisy", "clipped")),
        "a constant offset": (encoded(flat + np.float32(0.5), "flac"), any_fault),
        "0.2 s of speech": (encoded(speech(0.2)), ("too_short",)),
        "0.2 s of speech in 6 s": (encoded(np.concatenate([speech(0.2), flat]), "flac"), ("silent", "too_short")),
        "clipped speech": (encoded(clipped(4.0), "flac"), ("clipped",)),
        "white noise": (encoded(noise(6 * 8_000, level_dbfs=-20), "wav", rate_hz=8_000), ("noisy",)),
        "an hour of silence as flac": (flac_bomb(1.0), ("too_long", "too_large", "silent", "too_short")),
        "not a number": (_wav(_floats(np.nan), tag=3, bits=32), any_fault),
        "infinity": (_wav(_floats(np.inf), tag=3, bits=32), any_fault),
        "1e38": (_wav(_floats(1e38), tag=3, bits=32), any_fault),
        "half an hour at 10 Hz": (_wav(np.random.default_rng(1).bytes(36_000), rate_hz=10), (*any_fault, "too_long")),
    }


def _truncated() -> dict[str, bytes]:
    lengths = {"wav": (8, 20, 36), "flac": (20, 60), "opus": (20, 60), "mp3": (3, 40), "aac": (5, 16)}
    whole = {format: encoded(speech(0.5), format) for format in ("wav", "flac", "opus", "mp3", "aac")}
    return {f"{n} bytes of {format}": whole[format][:n] for format, cuts in lengths.items() for n in cuts}


def _lying_wavs() -> dict[str, bytes]:
    """At most 0.05 s is in them, whatever they claim."""
    short = encoded(speech(0.05, rate_hz=16_000), "pcm", rate_hz=16_000)
    return {
        "a wav without samples": _wav(b""),
        "a wav of one sample": _wav(b"\0\1"),
        "a wav that claims 4 GB": _wav(short, claimed_bytes=0xFFFFFFF0),
        "a wav that claims 10 s": _wav(short, claimed_bytes=320_000),
        "a wav without channels": _wav(short, channels=0),
        "a wav of 65535 channels": _wav(short, channels=65_535),
        "a wav at 0 Hz": _wav(short, rate_hz=0),
        "a wav at 4 GHz": _wav(short, rate_hz=0xFFFFFFFF),
        "a wav of 0 bits": _wav(short, bits=0),
        "a wav of an unknown codec": _wav(short, tag=0x7777),
    }


def _wav(
    data: bytes,
    *,
    tag: int = 1,
    channels: int = 1,
    rate_hz: int = 16_000,
    bits: int = 16,
    claimed_bytes: int | None = None,
) -> bytes:
    """A RIFF file whose header says what it is told to."""
    align = channels * bits // 8 % 65_536
    form = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * align % 2**32, align, bits)
    size = len(data) if claimed_bytes is None else claimed_bytes
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(size + 36, 0xFFFFFFFF)) + b"WAVE" + chunks


def _floats(value: float) -> bytes:
    return np.full(4 * 16_000, value, "<f4").tobytes()


def _with_click(samples: np.ndarray) -> np.ndarray:
    return np.concatenate([samples, np.ones(4, np.float32)])


def _zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("clip.wav"), data[:1000])  # a fixed date, unlike writestr by name
    return file.getvalue()
