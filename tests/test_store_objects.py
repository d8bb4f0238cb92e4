"""No spelling of a path leads out of its tenant's folder, on any body of the Store."""

import posixpath
from collections.abc import Awaitable, Callable

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.stores import Place
from tests.test_objects import PATHS
from tts_core.store import Store

OWN, FOREIGN = "audio/t1/a.wav", "audio/t2/a.wav"
WAYS_OUT = st.sampled_from(
    [
        "..",
        "%2e%2e",
        "%2E%2E%2F",
        "..%2f",
        "..%5c",
        "．．",
        "\u2024\u2024",
        "..\u200b",
        "\u202e..",
        ".",
        "",
        "\0",
        "*",
        "t2",
    ]
)
ESCAPES = st.lists(WAYS_OUT, min_size=1, max_size=3).map(lambda parts: "/".join(["audio/t1", *parts, "t2", "a.wav"]))
LOOKALIKES = st.sampled_from(
    ["ｔ2", "t2\u200b", "t\u0032\u0301", "T2", "t2.", "t2 ", " t2", "%742", "t2%00", "t2\\", "./t2", "t1/../t2", "t２"]
).map(lambda tenant: f"audio/{tenant}/a.wav")
ABSOLUTE = st.sampled_from(["/", "//", "file:///", "\\\\", "C:\\", "~/"]).map(lambda root: root + FOREIGN)
PREFIXED = st.sampled_from(["audio/", "audio/t1/", "voices/../", "./", "x/../"]).map(lambda start: start + FOREIGN)


async def refused(store: Store, path: str) -> list[str]:
    """The calls that refuse the path as such."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "put": lambda: store.put_object(path, b"new", content_type="audio/wav"),
        "get": lambda: store.get_object(path),
        "url": lambda: store.object_url(path),
        "delete": lambda: store.delete_object(path),
    }
    names = []
    for name, call in calls.items():
        try:
            await call()
        except ValueError:
            names.append(name)
        except KeyError:
            assert name != "put"
    return names


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.one_of(ESCAPES, LOOKALIKES, ABSOLUTE, PREFIXED, PATHS))
@example(path="audio/t1/../t2/a.wav")
@example(path="audio/t1/..%2ft2%2fa.wav")
@example(path="audio//t2/a.wav")
@example(path="audio/t1/b.wav")
@example(path="tts-cache/t1/a.wav")
async def test_a_path_is_refused_by_every_call_or_stays_with_its_tenant(store: Store, place: Place, path: str) -> None:
    for kept, data in ((OWN, b"own"), (FOREIGN, b"foreign")):
        await store.put_object(kept, data, content_type="audio/wav")
    names = await refused(store, path)
    if names:
        assert names == ["put", "get", "url", "delete"]
    else:
        bucket, tenant_id, *_ = path.split("/")
        assert bucket in ("audio", "voices", "tts-cache")
        assert posixpath.normpath(path) == path
        assert path.isascii()
        assert "%" not in tenant_id
    for kept, data in ((OWN, b"own"), (FOREIGN, b"foreign")):
        if names or path != kept:
            assert await store.get_object(kept) == data
