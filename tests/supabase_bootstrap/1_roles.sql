-- The roles of a Supabase project; they belong to the cluster, so this runs once, as the superuser supabase_admin.

create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;

-- What the API connects as: it can do nothing until it becomes one of the three above.
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;

create role supabase_auth_admin login noinherit createrole;
create role supabase_storage_admin login noinherit createrole;
create role dashboard_user nologin createdb createrole replication;

-- What migrations run as: powerful, but no superuser.
create role postgres login createdb createrole replication bypassrls;
grant anon, authenticated, service_role, pg_monitor, pg_signal_backend to postgres with admin option;
-- A hosted project lets postgres write policies on storage.objects by an extension of its own; here it is a member.
grant supabase_storage_admin to postgres;

-- The server applies these to a request itself, because `set role` does not.
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role postgres set search_path = '$user', public, extensions;
