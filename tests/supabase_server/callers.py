"""Who is asking: from the two headers of a request to a Postgres role and its claims."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import jwt
from starlette.datastructures import Headers

from tests.supabase_server.errors import RestError


@dataclass(frozen=True)
class Caller:
    """role is what the transaction becomes, claims is what auth.jwt() shows"""

    role: str
    claims: dict[str, Any]


SERVICE = Caller("service_role", {"role": "service_role"})


@dataclass(frozen=True)
class Keys:
    """The keys of one project; a key is either opaque or a token (HS256) with a role in it."""

    secret: str = field(default_factory=lambda: uuid.uuid4().hex + uuid.uuid4().hex)
    service: str = field(default_factory=lambda: f"sb_secret_{uuid.uuid4().hex}")
    anon: str = field(default_factory=lambda: f"sb_publishable_{uuid.uuid4().hex}")

    def token(self, claims: dict[str, Any], *, lives_s: int = 3600) -> str:
        now_s = int(time.time())
        return self.sign(claims | {"iat": now_s, "exp": now_s + lives_s})

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.secret, algorithm="HS256", headers={"typ": None})

    def read(self, token: str) -> dict[str, Any]:
        """raises jwt.InvalidTokenError"""
        claims: dict[str, Any] = jwt.decode(token, self.secret, algorithms=["HS256"], options={"verify_aud": False})
        return claims

    def identify(self, headers: Headers) -> Caller:
        """As the hosted gateway: `apikey` opens the door, the bearer, if it is another one, says who comes in.

        raises  RestError 401
        """
        if (apikey := headers.get("apikey")) is None:
            raise RestError(401, "401", "No API key found in request")
        caller = self._caller(apikey)
        if caller.role not in ("anon", "service_role"):
            raise RestError(401, "401", "Invalid API key")
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        return caller if bearer in ("", apikey) else self._caller(bearer)

    def _caller(self, key: str) -> Caller:
        opaque = {self.service: "service_role", self.anon: "anon"}
        claims = {"role": opaque[key]} if key in opaque else self._claims(key)
        return Caller(str(claims.get("role", "anon")), claims)

    def _claims(self, token: str) -> dict[str, Any]:
        if (parts := token.count(".") + 1) != 3:
            raise RestError(401, "PGRST301", f"Expected 3 parts in JWT; got {parts}")
        try:
            return self.read(token)
        except jwt.ExpiredSignatureError as error:
            raise RestError(401, "PGRST303", "JWT expired") from error
        except jwt.InvalidTokenError as error:
            raise RestError(401, "PGRST301", "No suitable key or wrong key type") from error
