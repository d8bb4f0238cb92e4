"""The handler that everybody writes for XTTS: coqui's model, loaded first, then one job at a time. For `start_up`."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main() -> None:
    from tts_core.starting import process_age_ms

    over = {}
    import runpod
    import torch
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.models.xtts import Xtts

    over["imported"] = process_age_ms()
    folder = Path(os.environ["MODEL"])
    config = XttsConfig()
    config.load_json(folder / "config.json")
    model = Xtts.init_from_config(config)
    model.load_checkpoint(config, checkpoint_dir=folder, eval=True)
    if os.environ["DEVICE"] == "cuda" or (os.environ["DEVICE"] == "auto" and torch.cuda.is_available()):
        model.cuda()
    latents, embedding = next(iter(model.speaker_manager.speakers.values())).values()
    over["engine_ready"] = process_age_ms()

    def handler(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        body = job["input"]
        if not isinstance(body.get("speed", 1.0), float):
            yield {"error": "speed: must be a number"}
            return
        for chunk in model.inference_stream(body["text"], body["language"], latents, embedding, top_k=body["top_k"]):
            pcm = (chunk.cpu().clamp(-1, 1) * 32767).short().numpy().tobytes()
            yield {"audio_base64": base64.b64encode(pcm).decode()}

    over["taking_jobs"] = process_age_ms()
    print(json.dumps({"start_ms": over}), flush=True)
    runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})


if __name__ == "__main__":
    main()
