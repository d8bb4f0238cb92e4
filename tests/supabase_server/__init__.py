"""What supabase-py needs of a Supabase project, over a real Postgres: a backend for tests.

This is neither PostgREST nor Supabase Storage. It speaks the part of their protocols that the ordinary calls of
supabase-py use, and answers 501 to the rest. Postgres does the work: each request is one transaction of the role
`authenticator`, which becomes the caller's role, so grants, policies, constraints, functions, timeouts and SQLSTATEs
are the real ones, and Postgres reads and writes the JSON. Objects have their rows in the real `storage` tables, under
the caller's policies, and their bytes in a folder.

    with postgres.database(Path("supabase/migrations")) as database, SupabaseServer(database, tmp_path) as server:
        headers = {"apikey": server.service_key, "Authorization": f"Bearer {server.service_key}"}
        db = AsyncPostgrestClient(f"{server.url}/rest/v1", headers=headers, ...)
"""

from tests.supabase_server.app import SupabaseServer
from tests.supabase_server.faults import Kind

__all__ = ["Kind", "SupabaseServer"]
