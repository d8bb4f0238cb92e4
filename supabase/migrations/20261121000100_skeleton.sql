-- Tenants and their keys, requests, usage, and the buckets of objects.
--
-- public   what the API shows. RLS is on everywhere; the worker comes as service_role and names the tenant in every
--          query; a tenant's own users, linked by tenant_members, may read their tenant's rows.
-- private  what the API does not show: helpers, and the partitions of usage_logs.
--
-- Ids are the text of a uuid without dashes, as in the local store. A function takes its arguments as one jsonb `p`,
-- and `p_now` only from a test that has a clock of its own. Domain errors are raised as XT4xx with the code of
-- tts_core/errors.py as message and the words for the caller as detail.

create schema if not exists private;
revoke all on schema private from public;
grant usage on schema private to authenticated, service_role;


-- Tenants

create table public.tenants (
    id text primary key check (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    name text not null,
    attested_consent boolean not null default false,
    created_at timestamptz not null default now()
);

create table public.tenant_members (
    tenant_id text not null references public.tenants (id) on delete cascade,
    auth_user_id uuid not null references auth.users (id) on delete cascade,
    created_at timestamptz not null default now(),
    primary key (tenant_id, auth_user_id)
);
create index tenant_members_of_user on public.tenant_members (auth_user_id);

create table public.api_keys (
    sha256 bytea primary key check (length(sha256) = 32),
    prefix text not null,
    tenant_id text not null references public.tenants (id) on delete cascade,
    scopes text[] not null check (
        scopes <@ array['synthesize', 'voices', 'personas', 'cache', 'usage', 'admin']
    ),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
create index api_keys_of_tenant on public.api_keys (tenant_id);

-- Definer, because a user may not read other users' memberships; unexposed, so that only policies call it.
create function private.my_tenant_ids() returns setof text
language sql stable security definer set search_path = '' as $$
    select tenant_id from public.tenant_members where auth_user_id = (select auth.uid());
$$;


-- Requests. From settled_at on: how the last attempt ended; null while it runs.

create table public.requests (
    request_id text primary key,
    tenant_id text not null references public.tenants (id) on delete cascade,
    identity text not null,
    fingerprint text not null,
    holder text not null,
    action text not null,
    input_chars integer not null,
    streaming boolean not null,
    voice_id text,
    user_id text,
    status text not null check (status in ('running', 'success', 'failed', 'cancelled', 'abandoned')),
    fence integer not null check (fence >= 1),
    lease_expires_at timestamptz not null,
    created_at timestamptz not null,
    settled_at timestamptz,
    latency_ms integer,
    audio_seconds double precision,
    audio_bytes bigint,
    spoken_voice_id text,
    error text,
    cached boolean,
    result text,
    audio_path text,
    metadata text,
    unique (tenant_id, identity),
    check ((status = 'running') = (settled_at is null))
) with (fillfactor = 80);
create index requests_running on public.requests (lease_expires_at) where status = 'running';


-- Usage: one row per ended attempt, in a partition per month.

create table public.usage_logs (
    tenant_id text not null,
    request_id text not null,
    fence integer not null,
    action text not null,
    input_chars integer not null,
    audio_seconds double precision not null,
    audio_bytes bigint not null,
    latency_ms integer not null,
    streaming boolean not null,
    voice_id text,
    user_id text,
    status text not null check (status in ('success', 'failed', 'cancelled', 'abandoned')),
    error text,
    cached boolean not null,
    metadata text not null,
    created_at timestamptz not null,
    primary key (request_id, fence, created_at)
) partition by range (created_at);
create index usage_logs_of_tenant on public.usage_logs (tenant_id, created_at);
-- Without autosummarize, blocks written since the last vacuum are read in full by every query.
create index usage_logs_by_time on public.usage_logs using brin (created_at) with (autosummarize = on);

-- Meant to stay empty: it takes what no month was made for.
create table private.usage_logs_default partition of public.usage_logs default;
alter table private.usage_logs_default enable row level security;

-- Makes the partitions of this month and of those that follow; gives how many it made. Definer, because only the
-- owner of a table attaches partitions to it. Rows that had to wait in the default partition move to their own.
create function private.ensure_usage_partitions(p_months integer, p_now timestamptz default null) returns integer
language plpgsql volatile security definer set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_this_month constant timestamp := date_trunc('month', v_now at time zone 'UTC');
    v_from timestamptz;
    v_to timestamptz;
    v_name text;
    v_made integer := 0;
begin
    for v_month in 0..least(greatest(p_months, 0), 24) loop
        v_from := (v_this_month + make_interval(months => v_month)) at time zone 'UTC';
        v_to := (v_this_month + make_interval(months => v_month + 1)) at time zone 'UTC';
        v_name := 'usage_logs_' || to_char(v_from at time zone 'UTC', 'YYYY_MM');
        continue when to_regclass('private.' || v_name) is not null;
        lock table private.usage_logs_default in access exclusive mode;
        continue when to_regclass('private.' || v_name) is not null;
        execute format(
            'create table private.%I (like public.usage_logs including defaults including constraints)', v_name
        );
        execute format('alter table private.%I enable row level security', v_name);
        execute format(
            'with moved as ('
            '    delete from private.usage_logs_default where created_at >= %L and created_at < %L returning *'
            ') insert into private.%I select * from moved',
            v_from, v_to, v_name
        );
        execute format(
            'alter table public.usage_logs attach partition private.%I for values from (%L) to (%L)',
            v_name, v_from, v_to
        );
        v_made := v_made + 1;
    end loop;
    return v_made;
end;
$$;

create function public.ensure_usage_partitions(p jsonb, p_now timestamptz default null) returns integer
language sql volatile security invoker set search_path = '' as $$
    select private.ensure_usage_partitions((p ->> 'months')::integer, p_now);
$$;

select private.ensure_usage_partitions(3);


-- Who may see what

alter table public.tenants enable row level security;
alter table public.tenant_members enable row level security;
alter table public.api_keys enable row level security;
alter table public.requests enable row level security;
alter table public.usage_logs enable row level security;

revoke all on
    public.tenants, public.tenant_members, public.api_keys, public.requests, public.usage_logs
    from public, anon, authenticated, service_role;
grant select, insert, update, delete on
    public.tenants, public.tenant_members, public.api_keys, public.requests, public.usage_logs
    to service_role;
grant select on
    public.tenants, public.tenant_members, public.requests, public.usage_logs
    to authenticated;

create policy own_tenant on public.tenants for select to authenticated
    using (id in (select private.my_tenant_ids()));
create policy own_memberships on public.tenant_members for select to authenticated
    using (auth_user_id = (select auth.uid()));
create policy own_requests on public.requests for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));
create policy own_usage on public.usage_logs for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));


-- Tenants: functions

create function public.create_tenant(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
begin
    insert into public.tenants (id, name, created_at) values (p ->> 'id', p ->> 'name', v_now)
    on conflict (id) do nothing;
    insert into public.api_keys (sha256, prefix, tenant_id, scopes, created_at) values (
        decode(p ->> 'key_sha256', 'hex'), p ->> 'key_prefix', p ->> 'id',
        array(select jsonb_array_elements_text(p -> 'scopes')), v_now
    ) on conflict (sha256) do nothing;
    return (select to_jsonb(t) from public.tenants as t where t.id = p ->> 'id');
end;
$$;

-- The tenant of a key: every kind of bad key is refused in the same words.
create function private.authenticate(p_key_sha256 text, p_scope text, p_now timestamptz) returns public.tenants
language plpgsql stable security invoker set search_path = '' as $$
declare
    v_key public.api_keys;
    v_tenant public.tenants;
begin
    select * into v_key from public.api_keys
    where sha256 = decode(p_key_sha256, 'hex') and revoked_at is null and (expires_at is null or expires_at > p_now);
    if not found then
        raise exception using errcode = 'XT401', message = 'unauthorized',
            detail = 'tenant_key is missing, unknown, or no longer valid';
    end if;
    if not v_key.scopes && array[p_scope, 'admin'] then
        raise exception using errcode = 'XT403', message = 'forbidden',
            detail = format('this key lacks the scope ''%s''', p_scope);
    end if;
    select * into strict v_tenant from public.tenants where id = v_key.tenant_id;
    return v_tenant;
end;
$$;


-- Requests: functions. Only start_attempt and close_attempt write these rows and those of usage_logs, hence: of a
-- request at most one attempt runs, a later one has a greater fence; one that has ended has one row of usage.

-- The running attempt, or nulls where the request runs, has succeeded, or belongs to another body already.
create function private.start_attempt(p_tenant_id text, p jsonb, p_now timestamptz) returns public.requests
language sql volatile security invoker set search_path = '' as $$
    insert into public.requests as r (
        request_id, tenant_id, identity, fingerprint, holder, action, input_chars, streaming, voice_id,
        status, fence, lease_expires_at, created_at
    ) values (
        replace(gen_random_uuid()::text, '-', ''), p_tenant_id, p ->> 'identity', p ->> 'fingerprint', p ->> 'holder',
        p ->> 'action', (p ->> 'input_chars')::integer, (p ->> 'streaming')::boolean, p ->> 'voice_id',
        'running', 1, p_now + make_interval(secs => (p ->> 'lease_s')::double precision), p_now
    ) on conflict (tenant_id, identity) do update set
        holder = excluded.holder, action = excluded.action, input_chars = excluded.input_chars,
        streaming = excluded.streaming, voice_id = excluded.voice_id, status = 'running', fence = r.fence + 1,
        lease_expires_at = excluded.lease_expires_at, settled_at = null, latency_ms = null, audio_seconds = null,
        audio_bytes = null, spoken_voice_id = null, user_id = null, error = null, cached = null, result = null,
        audio_path = null, metadata = null
    where r.fingerprint = excluded.fingerprint and r.status in ('failed', 'cancelled', 'abandoned')
    returning *;
$$;

-- The usage row of an attempt that has just been closed.
create function private.record_usage(r public.requests) returns void
language sql volatile security invoker set search_path = '' as $$
    insert into public.usage_logs (
        tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming,
        voice_id, user_id, status, error, cached, metadata, created_at
    ) values (
        r.tenant_id, r.request_id, r.fence, r.action, r.input_chars, r.audio_seconds, r.audio_bytes, r.latency_ms,
        r.streaming, coalesce(r.spoken_voice_id, r.voice_id), r.user_id, r.status, r.error, r.cached, r.metadata,
        r.settled_at
    ) on conflict do nothing;
$$;

-- False, and nothing is written, if the attempt does not run any more.
create function private.close_attempt(
    p_tenant_id text, p_request_id text, p_fence integer, p_ended jsonb, p_now timestamptz
) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
declare
    r public.requests;
begin
    update public.requests set
        status = p_ended ->> 'status', settled_at = p_now, latency_ms = (p_ended ->> 'latency_ms')::integer,
        audio_seconds = (p_ended ->> 'audio_seconds')::double precision,
        audio_bytes = (p_ended ->> 'audio_bytes')::bigint, spoken_voice_id = p_ended ->> 'voice_id',
        user_id = p_ended ->> 'user_id', error = p_ended ->> 'error', cached = (p_ended ->> 'cached')::boolean,
        result = p_ended ->> 'result', audio_path = p_ended ->> 'audio_path', metadata = p_ended ->> 'metadata'
    where tenant_id = p_tenant_id and request_id = p_request_id and fence = p_fence and status = 'running'
    returning * into r;
    if not found then
        return false;
    end if;
    perform private.record_usage(r);
    return true;
end;
$$;

-- Nothing more was heard of this attempt: nothing is charged for it.
create function private.abandon_attempt(p_attempt public.requests, p_now timestamptz) returns boolean
language sql volatile security invoker set search_path = '' as $$
    select private.close_attempt(
        p_attempt.tenant_id, p_attempt.request_id, p_attempt.fence,
        '{"status": "abandoned", "latency_ms": 0, "audio_seconds": 0, "audio_bytes": 0, "cached": false,
          "metadata": "{}"}',
        p_now
    );
$$;

-- Settles a few expired attempts, whoever's they are. Skips what is locked, so it may follow any other lock.
create function private.reap_requests(p_now timestamptz) returns void
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_expired public.requests;
begin
    for v_expired in
        select * from public.requests where status = 'running' and lease_expires_at <= p_now
        order by lease_expires_at limit 20 for update skip locked
    loop
        perform private.abandon_attempt(v_expired, p_now);
    end loop;
end;
$$;

create function private.reserved(p_tenant public.tenants, p_attempt public.requests) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object(
        'tenant', to_jsonb(p_tenant),
        'request_id', p_attempt.request_id,
        'fence', p_attempt.fence,
        'outcome', case when p_attempt.status = 'success' then jsonb_build_object(
            'status', p_attempt.status, 'latency_ms', p_attempt.latency_ms,
            'audio_seconds', p_attempt.audio_seconds, 'audio_bytes', p_attempt.audio_bytes,
            'voice_id', p_attempt.spoken_voice_id, 'user_id', p_attempt.user_id, 'error', p_attempt.error,
            'cached', p_attempt.cached, 'result', p_attempt.result, 'audio_path', p_attempt.audio_path, 'metadata', p_attempt.metadata
        ) end
    );
$$;

-- The attempt that `p` runs, or the outcome. The same holder again is the same call, whose answer was lost: it gets
-- the attempt it has. The row of the request is locked first, then whatever else an attempt takes.
create function public.reserve_request(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_tenant constant public.tenants := private.authenticate(p ->> 'key_sha256', p ->> 'scope', v_now);
    r public.requests;
begin
    loop
        select * into r from public.requests where tenant_id = v_tenant.id and identity = p ->> 'identity' for update;
        if r.fingerprint <> p ->> 'fingerprint' then
            raise exception using errcode = 'XT409', message = 'idempotency_conflict',
                detail = 'this idempotency_key or job id was used before with another body; send a new one';
        end if;
        exit when r.status = 'success';
        if r.status = 'running' and r.holder = p ->> 'holder' then
            update public.requests set lease_expires_at = greatest(
                lease_expires_at, v_now + make_interval(secs => (p ->> 'lease_s')::double precision)
            ) where request_id = r.request_id;
            exit;
        end if;
        if r.holder = p ->> 'holder' or (r.status = 'running' and r.lease_expires_at > v_now) then
            raise exception using errcode = 'XT409', message = 'request_running',
                detail = format('request ''%s'' is being worked on; ask again later', r.request_id);
        end if;
        if r.status = 'running' then
            perform private.abandon_attempt(r, v_now);
        end if;
        r := private.start_attempt(v_tenant.id, p, v_now);
        exit when r.request_id is not null;
        -- Another call has inserted the row since it was looked for: look again.
    end loop;
    perform private.reap_requests(v_now);
    return private.reserved(v_tenant, r);
end;
$$;

-- A renewal that arrives late does not shorten the lease.
create function public.renew_request(p jsonb, p_now timestamptz default null) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
begin
    update public.requests set lease_expires_at = greatest(
        lease_expires_at, v_now + make_interval(secs => (p ->> 'lease_s')::double precision)
    )
    where tenant_id = p ->> 'tenant_id' and request_id = p ->> 'request_id' and fence = (p ->> 'fence')::integer
        and status = 'running';
    return found;
end;
$$;

-- True also when this attempt has ended so before: then the first answer was lost.
create function public.settle_request(p jsonb, p_now timestamptz default null) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
begin
    return private.close_attempt(
        p ->> 'tenant_id', p ->> 'request_id', (p ->> 'fence')::integer, p, coalesce(p_now, clock_timestamp())
    ) or exists (
        select from public.usage_logs
        where tenant_id = p ->> 'tenant_id' and request_id = p ->> 'request_id'
            and fence = (p ->> 'fence')::integer and status = p ->> 'status'
    );
end;
$$;


-- Who may call what. Postgres lets everybody call a new function.

revoke all on function
    private.my_tenant_ids(),
    private.ensure_usage_partitions(integer, timestamptz),
    private.authenticate(text, text, timestamptz),
    private.start_attempt(text, jsonb, timestamptz),
    private.record_usage(public.requests),
    private.close_attempt(text, text, integer, jsonb, timestamptz),
    private.abandon_attempt(public.requests, timestamptz),
    private.reap_requests(timestamptz),
    private.reserved(public.tenants, public.requests),
    public.ensure_usage_partitions(jsonb, timestamptz),
    public.create_tenant(jsonb, timestamptz),
    public.reserve_request(jsonb, timestamptz),
    public.renew_request(jsonb, timestamptz),
    public.settle_request(jsonb, timestamptz)
    from public, anon, authenticated;
grant execute on function private.my_tenant_ids() to authenticated, service_role;
grant execute on function
    private.ensure_usage_partitions(integer, timestamptz),
    private.authenticate(text, text, timestamptz),
    private.start_attempt(text, jsonb, timestamptz),
    private.record_usage(public.requests),
    private.close_attempt(text, text, integer, jsonb, timestamptz),
    private.abandon_attempt(public.requests, timestamptz),
    private.reap_requests(timestamptz),
    private.reserved(public.tenants, public.requests),
    public.ensure_usage_partitions(jsonb, timestamptz),
    public.create_tenant(jsonb, timestamptz),
    public.reserve_request(jsonb, timestamptz),
    public.renew_request(jsonb, timestamptz),
    public.settle_request(jsonb, timestamptz)
    to service_role;


-- Buckets: private, and without policies, as only the worker reads and writes them.

insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types) values
    ('voices', 'voices', false, 104857600, array['audio/*', 'video/*', 'application/json', 'application/octet-stream']),
    ('audio', 'audio', false, 524288000, array['audio/*', 'application/json']),
    ('tts-cache', 'tts-cache', false, 524288000, array['audio/*', 'application/json'])
on conflict (id) do update set
    public = excluded.public, file_size_limit = excluded.file_size_limit,
    allowed_mime_types = excluded.allowed_mime_types;
