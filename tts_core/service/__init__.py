"""What the product does with a request: who may, how it is spoken, what is kept and what is told.

service     takes a job's input, finds or starts its run
run         one request from reservation to settlement, and who listens to it
synthesis   speaks a text; take (what is heard), alignments, delivery (how it leaves), references (who speaks)
actions     what the other areas offer; voices: the voices a tenant saves
"""

from tts_core.service.references import FetchClip, References
from tts_core.service.service import Service

__all__ = ["FetchClip", "References", "Service"]
