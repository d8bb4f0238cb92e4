"""The characters users talk to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from tts_core.store.pages import Place
from tts_core.store.users import Removal

PersonaChanges: TypeAlias = Mapping[Literal["name", "persona_prompt", "voice_id"], str | None]
"""What is not named stays as it is. Only `voice_id` may become None."""


@dataclass(frozen=True, slots=True)
class PersonaRow:
    """A persona of a user. Its voice may be built in, the tenant's or shared with it, and may be gone by now."""

    id: str
    tenant_id: str
    user_id: str
    name: str
    persona_prompt: str
    voice_id: str | None
    created_at: str


class Personas(Protocol):
    async def create_persona(self, persona: PersonaRow) -> PersonaRow:
        """The persona of this id, which is made if there is none. raises UserNotFound"""

    async def get_persona(self, tenant_id: str, persona_id: str) -> PersonaRow:
        """raises PersonaNotFound"""

    async def list_personas(
        self, tenant_id: str, *, user_id: str | None = None, after: Place | None = None, limit: int
    ) -> Sequence[PersonaRow]:
        """Of one user or of all, oldest first. No row of a user who is not there."""

    async def update_persona(self, tenant_id: str, persona_id: str, changes: PersonaChanges) -> PersonaRow:
        """raises PersonaNotFound"""

    async def delete_persona(self, tenant_id: str, persona_id: str, *, request_id: str) -> Removal:
        """The persona and its messages; the same answer to the same `request_id`. raises PersonaNotFound"""
