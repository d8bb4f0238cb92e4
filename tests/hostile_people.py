"""What may be wrong with jobs about users, personas and messages."""

from collections.abc import Iterable

from tests.hostile_values import LONG, NOT_TEXT, NULL, SURROGATE, VOICE_IDS, Codes, Values, codes, words

Wrong = dict[str, tuple[Iterable[object], Codes]]
"""By field: values (with their names, or without), and the codes that fit."""

INVALID = codes("invalid_input")
NO_VOICE = codes("voice_not_found", "invalid_input")
NO_USER = codes("user_not_found", "invalid_input")
NO_PERSONA = codes("persona_not_found", "invalid_input")

ROW_IDS = (
    *words("nobody * % null __proto__ .. ../../etc/passwd %2e%2e%2f C:\\users 1.or.1 eq.x id=eq.x (select) {{7*7}}"),
    *words("' \" \\ '; -- ,) \u0661 n\u043eva 00000000-0000-0000-0000-000000000000"),
    *("", " ", "a b", "\0", "a\0b", "\n", "' OR '1'='1", SURROGATE, LONG),
)
"""Of users, personas and messages that are not there."""

EXTERNAL_IDS = ("", "\0", "auth0|\0", "a\nb", "\x1b[2J", "\x7f", SURROGATE, LONG)

EMAILS = (
    "",
    "a",
    "@",
    "a@",
    "@b",
    "a@b@c",
    "a b@c",
    "a@b\n",
    "a\0@b",
    SURROGATE + "@b",
    "a" * 300 + "@b",
    "<a@b>, c@d",
)

AUTH_USER_IDS = (
    "",
    "x",
    "0" * 36,
    "00000000-0000-0000-0000-00000000000",
    "{00000000-0000-0000-0000-000000000000}",
    "A" * 36,
)

PROSE: Values = {
    "a NUL": "a\0b",
    "a surrogate": f"a {SURROGATE}",
    "20,001 characters": "x" * 20_001,
    "20,001 emoji": "\U0001f600" * 20_001,
}

CURSORS = (
    *(
        "",
        " ",
        "x",
        "=",
        "AAAA",
        "bnVsbA==",
        "W10=",
        "e30=",
        "WzFd",
        "dHJ1ZQ==",
        "LTE=",
        "MWUz",
        "InNxbCI=",
        "WyIyMDI2Il0=",
    ),
    *(
        "WyIyMDI2LTAxLTAxIiwgIngiXQ==",
        "WyI5OTk5LTk5LTk5VDk5Ojk5Ojk5LjAwMDAwMCswMDowMCIsICJ4Il0=",
        "MTAwMDAwMDAwMDAwMDAwMDAwMDAw",
    ),
    *("W1tbW1tbW1tbW1tbW1tbW1tb" * 30, "TmFO", "-_-_", "\0", SURROGATE, LONG),
)
"""Not told by any list; some are base64 of JSON of another shape."""

PAGE_SIZES: tuple[object, ...] = (0, -1, 201, 10**9, 2**63, 1.5, "1", True, [1], {})


def bad_people() -> dict[str, tuple[Values, Wrong]]:
    """By action: what a good request has, and what may be wrong with it."""
    no_text, of_user, of_persona = (NOT_TEXT | NULL, INVALID), (ROW_IDS, NO_USER), (ROW_IDS, NO_PERSONA)
    pages: Wrong = {"cursor": (CURSORS, INVALID), "limit": (PAGE_SIZES, INVALID)}
    said: Values = {"persona_id": "nobody", "role": "user", "content": "Hello."}
    return {
        "users.put": (
            {"external_id": "auth0|1"},
            {
                "external_id": (EXTERNAL_IDS, INVALID),
                "email": (EMAILS, INVALID),
                "auth_user_id": (AUTH_USER_IDS, INVALID),
            },
        ),
        "users.get": ({"user_id": "nobody"}, {"user_id": of_user, "external_id": (["e"], INVALID)}),
        "users.list": ({}, pages),
        "users.delete": ({"user_id": "nobody"}, {"user_id": of_user}),
        "personas.create": (
            {"user_id": "nobody", "name": "Echo"},
            {
                "user_id": of_user,
                "name": no_text,
                "persona_prompt": (PROSE, INVALID),
                "voice_id": (VOICE_IDS, NO_VOICE),
            },
        ),
        "personas.get": ({"persona_id": "nobody"}, {"persona_id": of_persona}),
        "personas.list": ({}, pages | {"user_id": of_user}),
        "personas.update": (
            {"persona_id": "nobody", "name": "Echo"},
            {"persona_id": of_persona, "name": no_text, "persona_prompt": (PROSE, INVALID)},
        ),
        "personas.delete": ({"persona_id": "nobody"}, {"persona_id": of_persona}),
        "messages.add": (
            said,
            {
                "persona_id": of_persona,
                "role": (["", "User", "tool", "developer", SURROGATE], INVALID),
                "content": (PROSE | {"empty": ""}, INVALID),
                "message_id": (["", " ", "a b", "\0", SURROGATE, "x" * 201], INVALID),
            },
        ),
        "messages.list": ({"persona_id": "nobody"}, pages | {"persona_id": of_persona}),
        "messages.delete": (
            {"persona_id": "nobody", "message_id": "m"},
            {"persona_id": of_persona, "all": ([True, "true", 1], INVALID), "message_id": (NULL, INVALID)},
        ),
    }
