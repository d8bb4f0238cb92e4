"""Three hundred hostile inputs and more, through the real SDK loop: each gets its code, none takes the worker down."""

import json
import sys
from pathlib import Path

from storage.local import open_local
from tests.fake_platform import FakePlatform, worker
from tests.hostile import good_jobs, hostile_jobs

TIMEOUT_S = 240.0


async def test_each_hostile_input_gets_its_code_and_none_takes_the_worker_down(tmp_path: Path) -> None:
    store = await open_local(tmp_path)
    key = (await store.create_tenant("acme", scopes=("synthesize", "voices", "personas", "usage"))).secret
    await store.close()
    env = {
        "XTTS_STORE": "local",
        "XTTS_ENGINE": "espeak",
        "XTTS_DATA_DIR": str(tmp_path),
        "XTTS_CONCURRENCY": "64",  # the SDK sleeps a second whenever it is full
    }
    async with FakePlatform() as platform, worker(platform, [sys.executable, "handler.py"], env=env) as running:
        jobs = {platform.submit(job.input): job for job in hostile_jobs(tenant_key=key)}
        assert len(jobs) >= 300
        wrong = []
        for job_id, job in jobs.items():
            result = await platform.result(job_id, timeout_s=TIMEOUT_S)
            error = json.loads(result.error) if result.error else {"code": None}
            if error["code"] not in job.codes:
                wrong.append((job.name, error["code"], sorted(job.codes)))
        assert wrong == []
        for body in good_jobs(tenant_key=key).values():
            assert (await platform.result(platform.submit(body), timeout_s=TIMEOUT_S)).error is None
        assert platform.ledger.faults == []
        assert running.process.returncode is None
        log = running.log()
    assert key not in log
    assert "Traceback" not in log
