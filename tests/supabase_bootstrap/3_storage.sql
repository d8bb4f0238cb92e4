-- The tables the Storage service keeps; runs in each base database as supabase_admin.

create schema storage authorization supabase_storage_admin;
set role supabase_storage_admin;

create table storage.buckets (
    id text primary key,
    name text not null unique,
    owner uuid,
    owner_id text,
    public boolean not null default false,
    avif_autodetection boolean not null default false,
    file_size_limit bigint,
    allowed_mime_types text[],
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table storage.objects (
    id uuid primary key default gen_random_uuid(),
    bucket_id text not null references storage.buckets,
    name text not null,
    owner uuid,
    owner_id text,
    version text,
    metadata jsonb,
    user_metadata jsonb,
    path_tokens text[] generated always as (string_to_array(name, '/')) stored,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_accessed_at timestamptz not null default now(),
    unique (bucket_id, name)
);

alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;

create function storage.foldername(name text) returns text[] language sql immutable
return trim_array(string_to_array(name, '/'), 1);

create function storage.filename(name text) returns text language sql immutable
return split_part(name, '/', -1);

create function storage.extension(name text) returns text language sql immutable
return split_part(storage.filename(name), '.', -1);

create function storage.operation() returns text language sql stable
return current_setting('storage.operation', true);

-- A row deleted by SQL would leave its bytes behind: only the Storage API may delete.
create function storage.protect_delete() returns trigger language plpgsql as $$
begin
    if current_setting('storage.allow_delete_query', true) is distinct from 'true' then
        raise insufficient_privilege using
            message = 'Direct deletion from storage tables is not allowed. Use the Storage API instead.';
    end if;
    return null;
end $$;
create trigger protect_delete before delete on storage.buckets
    for each statement execute function storage.protect_delete();
create trigger protect_delete before delete on storage.objects
    for each statement execute function storage.protect_delete();

grant usage on schema storage to postgres, anon, authenticated, service_role;
grant all on storage.buckets, storage.objects to postgres, anon, authenticated, service_role;
reset role;
