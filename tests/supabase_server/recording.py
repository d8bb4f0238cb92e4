"""Asks of a server what was once asked of the real Storage server, and compares the answers.

`golden_storage.json` has 43 requests and answers, in their order. Not in it: bytes that were sent or received, what
came after the first 700 characters of a body, and one upload.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from tests.supabase_server.app import SupabaseServer

Entry: TypeAlias = dict[str, Any]

ENTRIES: list[Entry] = json.loads((Path(__file__).parent.parent / "golden_storage.json").read_text())
CUT_OFF_AT = 700
BY_A_STRANGER = (38, 39)
"""Two requests were of somebody whom no policy lets see anything; the others were the service's."""

FORM = {"content-type": "multipart/form-data"}
UPLOAD_BEFORE = {30: {"method": "POST", "path": "/storage/v1/object/pub/x.mp3", "req": FORM, "body": None}}
N_BYTES = {"t1/a.wav": 20_000, "t1/big.wav": 1_048_577, "t1/empty.wav": 0, "t1/m.wav": 3, "t1/ls.wav": 1}
MIME_TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".bin": "application/octet-stream", ".txt": "text/plain"}
SENT_AS_TEXT = "t1/b.wav"
GOOD_TOKEN = next(entry["path"] for entry in ENTRIES if "?token=" in entry["path"]).partition("?token=")[2]

SAME_HEADERS = ("content-type", "cache-control", "accept-ranges", "content-range")
PRESENT_HEADERS = ("etag", "expires")
DIFFERENT_EACH_TIME = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}": "<uuid>",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z": "<moment>",
    r"eyJ[\w-]+\.[\w-]+\.[\w-]+": "<token>",
    r"\b[0-9a-f]{32}\b": "<md5>",
}


@dataclass
class Replay:
    """audio and pub are what the two buckets of the recording are called here."""

    server: SupabaseServer
    http: httpx.AsyncClient
    audio: str
    pub: str
    token: str = ""
    etag: str = ""

    async def ask(self, nth: int) -> httpx.Response:
        """The nth request of the recording, with our names, bytes, token and etag."""
        if nth in UPLOAD_BEFORE:
            (await self._send(UPLOAD_BEFORE[nth], key=self.server.service_key)).raise_for_status()
        key = self.server.anon_key if nth in BY_A_STRANGER else self.server.service_key
        answer = await self._send(ENTRIES[nth], key=key)
        if "signedURL" in answer.text:
            self.token = answer.json()["signedURL"].partition("?token=")[2]
        self.etag = answer.headers.get("etag", self.etag)
        return answer

    def differences(self, nth: int, answer: httpx.Response) -> dict[str, tuple[object, object]]:
        """What is not the same -> (recorded, here)."""
        entry = ENTRIES[nth]
        recorded, body = entry["resp_headers"], entry["resp"]
        pairs: dict[str, tuple[object, object]] = {"status": (entry["status"], answer.status_code)}
        pairs |= {name: (recorded.get(name), answer.headers.get(name)) for name in SAME_HEADERS}
        pairs |= {name: (name in recorded, name in answer.headers) for name in PRESENT_HEADERS}
        if body is not None:
            was, now = shape(self._renamed(body)), shape(answer.text)
            n_known = was.rindex(",") if len(body) == CUT_OFF_AT else None
            pairs["body"] = (was[:n_known], now[:n_known])
        return {name: (was, now) for name, (was, now) in pairs.items() if was != now}

    async def _send(self, entry: Entry, *, key: str) -> httpx.Response:
        headers = {name: value for name, value in entry["req"].items() if "multipart" not in value}
        if "if-none-match" in headers:
            headers["if-none-match"] = self.etag
        if not (entry["method"] == "GET" and re.search("/object/(sign|public)/", entry["path"])):
            headers["apikey"] = key
        is_form = "multipart" in entry["req"].get("content-type", "")
        sent = _form(entry["path"]) if is_form else {"content": self._renamed(entry["body"] or "")}
        url = self.server.url + self._path(entry["path"])
        return await self.http.request(entry["method"], url, headers=headers, **sent)

    def _path(self, path: str) -> str:
        """With our token where the recording has one: good, with other last characters, or over."""
        path, _, recorded = self._renamed(path).partition("?token=")
        if not recorded:
            return path
        if recorded.split(".")[1] != GOOD_TOKEN.split(".")[1]:
            url = path.removeprefix("/storage/v1/object/sign/")
            return f"{path}?token={self.server.token('', lives_s=-1, url=url, scope='download')}"
        return f"{path}?token={self.token if recorded == GOOD_TOKEN else self.token[:-4] + recorded[-4:]}"

    def _renamed(self, text: str) -> str:
        return re.sub(r"\bpub\b", self.pub, re.sub(r"\baudio\b(?!/(wav|mpeg))", self.audio, text))


def shape(text: str) -> str:
    for pattern, name in DIFFERENT_EACH_TIME.items():
        text = re.sub(pattern, name, text)
    return text


def _form(path: str) -> dict[str, Any]:
    """An upload as the client sends it; bytes of any kind, as many as there were where an answer tells."""
    name = path.removeprefix("/storage/v1/object/").partition("/")[2]
    mime_type = "text/plain" if name == SENT_AS_TEXT else MIME_TYPES[f".{name.rpartition('.')[2]}"]
    data = {"cacheControl": "60" if name == "x.mp3" else "3600"}
    data |= {"metadata": '{"sha": "abc"}'} if name == "t1/m.wav" else {}
    return {"files": {"file": (name, os.urandom(N_BYTES.get(name, 100)), mime_type)}, "data": data}
