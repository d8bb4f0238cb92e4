"""Values that would start and then fail job by job."""

import pytest

from tts_core.errors import StartupError
from tts_core.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("XTTS_CACHE_MAX_AGE_DAYS", "inf"),
        ("XTTS_CACHE_MAX_AGE_DAYS", "1000000"),
        ("XTTS_PRICE_PER_AUDIO_HOUR", "inf"),
        ("XTTS_PRICE_PER_AUDIO_HOUR", "nan"),
        ("XTTS_JOB_DEADLINE_S", "inf"),
        ("XTTS_FETCH_TIMEOUT_S", "nan"),
        ("SUPABASE_URL", "http://host:99999999"),
        ("SUPABASE_URL", "http://[bad"),
        ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_\u201cx\u201d"),
        ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_x\n"),
    ],
)
def test_a_value_that_no_job_could_be_done_with_does_not_start(name: str, value: str) -> None:
    with pytest.raises(StartupError, match=name):
        Settings.from_env({name: value})
