"""What the product does with a request: who may, how it is spoken, what is kept and what is told.

service     takes a job's input, finds or starts its run
run         one request from reservation to settlement, and who listens to it
synthesis   answers a text; references (who speaks), listening and delivery (how it leaves), alignments
answers     where the sound comes from: the cache, or the engine; flight (a take, many listeners), take (what is heard)
cache       its layers; cache_counts, cache_actions, seeding
actions     what the other areas offer
users       with personas (and whose voice speaks for them) and messages; pages: long lists, each page within an event
voices      the voices a tenant saves: voice_clips (what they were made from), voice_pages (how they are told), latents
"""

from tts_core.service.references import FetchClip, References
from tts_core.service.service import Service

__all__ = ["FetchClip", "References", "Service"]
