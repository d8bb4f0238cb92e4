-- What a tenant may use (requests per minute and hour, minutes of audio per period), its keys, its end.
--
-- Rates are token buckets, each as deep as its rate. What was spoken is counted for every kind of period, so that
-- another quota period holds at once. What is held is no counter: it is the sum over the attempts whose leases are
-- alive, so it cannot drift. Locks are taken in this order: the request's row, its buckets (by name), its quota rows
-- (by name), its key.

alter table public.tenants
    add column requests_per_minute integer check (requests_per_minute >= 1),
    add column requests_per_hour integer check (requests_per_hour >= 1),
    add column quota_minutes double precision check (quota_minutes >= 0),
    add column quota_period text not null default 'month' check (quota_period in ('day', 'month', 'total')),
    add column disabled_at timestamptz,
    add column is_operator boolean not null default false;

-- made_by: the request that asked for the key; attempted again, its key takes the place of the one that nobody was
-- told. replaces: prefix of the key it was made for, which then is still meant, valid or not.
alter table public.api_keys
    add column last_used_at timestamptz,
    add column made_by text,
    add column replaces text;
drop index public.api_keys_of_tenant;
create unique index api_keys_of_tenant on public.api_keys (tenant_id, prefix);
create unique index api_keys_made_by on public.api_keys (tenant_id, made_by);

-- held_s: seconds of audio that the attempt may become; counts while its lease is alive.
alter table public.requests add column held_s double precision not null default 0 check (held_s >= 0);
create index requests_of_tenant_running on public.requests (tenant_id) where status = 'running';

-- Not in the log: a crash of the server merely fills the buckets.
create unlogged table public.rate_buckets (
    tenant_id text not null references public.tenants (id) on delete cascade,
    per text not null check (per in ('minute', 'hour')),
    tokens double precision not null,
    refilled_at timestamptz not null,
    primary key (tenant_id, per)
) with (fillfactor = 50);

create table public.quota_used (
    tenant_id text not null references public.tenants (id) on delete cascade,
    period text not null check (period in ('day', 'month', 'total')),
    started_at timestamptz not null,
    used_s double precision not null check (used_s >= 0),
    primary key (tenant_id, period)
) with (fillfactor = 50);

-- What remains of a deleted tenant: no name, no key, nothing that was said.
create table public.deleted_tenants (
    tenant_id text primary key,
    deleted_at timestamptz not null,
    rows jsonb not null,
    objects integer not null check (objects >= 0)
);

alter table public.rate_buckets enable row level security;
alter table public.quota_used enable row level security;
alter table public.deleted_tenants enable row level security;
revoke all on public.rate_buckets, public.quota_used, public.deleted_tenants
    from public, anon, authenticated, service_role;
grant select, insert, update, delete on public.rate_buckets, public.quota_used, public.deleted_tenants to service_role;
grant select on public.quota_used to authenticated;
create policy own_quota on public.quota_used for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));


-- Rates and quota

create function private.period_start(p_period text, p_now timestamptz) returns timestamptz
language sql immutable security invoker set search_path = '' as $$
    select case p_period
        when 'total' then timestamptz '1970-01-01 00:00:00+00'
        else date_trunc(p_period, p_now at time zone 'UTC') at time zone 'UTC'
    end;
$$;

-- One request from each of the tenant's rates, or none from any.
create function private.take_request(p_tenant public.tenants, p_now timestamptz) returns void
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now timestamptz;
    v_wait_s double precision;
begin
    if p_tenant.requests_per_minute is null and p_tenant.requests_per_hour is null then
        return;
    end if;
    insert into public.rate_buckets (tenant_id, per, tokens, refilled_at)
    select p_tenant.id, rate.per, rate.n, coalesce(p_now, clock_timestamp())
    from (values ('hour', p_tenant.requests_per_hour), ('minute', p_tenant.requests_per_minute)) as rate (per, n)
    where rate.n is not null
    on conflict (tenant_id, per) do nothing;
    perform from public.rate_buckets where tenant_id = p_tenant.id order by per for update;
    v_now := coalesce(p_now, clock_timestamp());  -- not before: who waited for the lock has rested as long
    -- refilled_at never goes back, or a clock that was set back would have the same rest counted twice.
    update public.rate_buckets as b set
        refilled_at = greatest(b.refilled_at, v_now),
        tokens = least(rate.n, b.tokens + rate.n / rate.window_s
            * greatest(extract(epoch from v_now - b.refilled_at)::double precision, 0)) - 1
    from (values
        ('hour', p_tenant.requests_per_hour::double precision, 3600),
        ('minute', p_tenant.requests_per_minute::double precision, 60)
    ) as rate (per, n, window_s)
    where b.tenant_id = p_tenant.id and b.per = rate.per and rate.n is not null;
    select max(-b.tokens * rate.window_s / rate.n) into v_wait_s
    from public.rate_buckets as b
    join (values
        ('hour', p_tenant.requests_per_hour, 3600), ('minute', p_tenant.requests_per_minute, 60)
    ) as rate (per, n, window_s) on rate.per = b.per and rate.n is not null
    where b.tenant_id = p_tenant.id;
    if v_wait_s > 1e-6 then
        raise exception using errcode = 'XT429', message = 'rate_limited',
            detail = format('too many requests: the next is accepted in %s s', ceil(v_wait_s * 1000) / 1000),
            hint = jsonb_build_object('retry_after_s', ceil(v_wait_s * 1000) / 1000)::text;
    end if;
end;
$$;

-- p_except: the attempt that asks
create function private.standing(p_tenant public.tenants, p_except text, p_now timestamptz) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object(
        'used_s', coalesce((
            select used_s from public.quota_used
            where tenant_id = p_tenant.id and period = p_tenant.quota_period
                and started_at >= private.period_start(p_tenant.quota_period, p_now)
        ), 0),
        'held_s', coalesce((
            select sum(held_s) from public.requests
            where tenant_id = p_tenant.id and status = 'running' and lease_expires_at > p_now
                and request_id is distinct from p_except
        ), 0),
        'started_at', case when p_tenant.quota_period <> 'total'
            then private.period_start(p_tenant.quota_period, p_now) end,
        'resets_at', case when p_tenant.quota_period <> 'total' then (
            private.period_start(p_tenant.quota_period, p_now) at time zone 'UTC'
            + ('1 ' || p_tenant.quota_period)::interval
        ) at time zone 'UTC' end
    );
$$;

-- Seconds of its quota that an attempt may use; null without a quota. Refused if it may need more, never if it needs
-- nothing. Its row is there already, so that whoever asks next finds what it holds.
create function private.hold(p_tenant public.tenants, p_attempt public.requests, p_now timestamptz)
returns double precision
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now timestamptz;
    v_standing jsonb;
    v_left_s double precision;
    v_resets_at text;
begin
    if p_tenant.quota_minutes is null then
        return null;
    end if;
    insert into public.quota_used (tenant_id, period, started_at, used_s)
    values (p_tenant.id, p_tenant.quota_period, '-infinity', 0) on conflict (tenant_id, period) do nothing;
    perform from public.quota_used
    where tenant_id = p_tenant.id and period = p_tenant.quota_period for update;
    v_now := coalesce(p_now, clock_timestamp());
    v_standing := private.standing(p_tenant, p_attempt.request_id, v_now);
    v_left_s := p_tenant.quota_minutes * 60 - (v_standing ->> 'used_s')::double precision
        - (v_standing ->> 'held_s')::double precision;
    if p_attempt.held_s > 0 and v_left_s < p_attempt.held_s then
        v_resets_at := to_char(
            (v_standing ->> 'resets_at')::timestamptz at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
        );
        raise exception using errcode = 'XT429', message = 'quota_exceeded',
            detail = format(
                'this may take %s s of audio and %s s are left %s', round(p_attempt.held_s::numeric, 1),
                round(v_left_s::numeric, 1), coalesce('until ' || v_resets_at, 'of this tenant''s quota')
            ),
            hint = jsonb_build_object('left_s', round(v_left_s::numeric, 3), 'resets_at', v_resets_at)::text;
    end if;
    return v_left_s;
end;
$$;

-- Counts what was spoken in the periods that run now, rows in one order.
create function private.charge(p_tenant_id text, p_audio_seconds double precision, p_now timestamptz) returns void
language sql volatile security invoker set search_path = '' as $$
    insert into public.quota_used as q (tenant_id, period, started_at, used_s)
    select p_tenant_id, kind.period, private.period_start(kind.period, p_now), p_audio_seconds
    from (values ('day'), ('month'), ('total')) as kind (period)
    order by kind.period
    on conflict (tenant_id, period) do update set
        used_s = excluded.used_s + case when q.started_at < excluded.started_at then 0 else q.used_s end,
        started_at = greatest(q.started_at, excluded.started_at);
$$;


-- Requests: as in the skeleton, with what they cost

create or replace function private.authenticate(p_key_sha256 text, p_scope text, p_now timestamptz)
returns public.tenants
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
    select * into strict v_tenant from public.tenants where id = v_key.tenant_id;
    if v_tenant.disabled_at is not null then
        raise exception using errcode = 'XT403', message = 'forbidden',
            detail = 'this tenant is disabled; whoever runs this installation can enable it again';
    end if;
    if not v_key.scopes && array[p_scope, 'admin'] then
        raise exception using errcode = 'XT403', message = 'forbidden',
            detail = format('this key lacks the scope ''%s''', p_scope);
    end if;
    return v_tenant;
end;
$$;

-- Whose key the worker found to be that of its own settings.
create function private.operator_tenant(p_now timestamptz) returns public.tenants
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_tenant public.tenants;
begin
    insert into public.tenants (id, name, created_at, is_operator) values ('operator', 'operator', p_now, true)
    on conflict (id) do nothing;
    select * into strict v_tenant from public.tenants where id = 'operator';
    return v_tenant;
end;
$$;

create or replace function private.start_attempt(p_tenant_id text, p jsonb, p_now timestamptz)
returns public.requests
language sql volatile security invoker set search_path = '' as $$
    insert into public.requests as r (
        request_id, tenant_id, identity, fingerprint, holder, action, input_chars, held_s, streaming, voice_id,
        status, fence, lease_expires_at, created_at
    ) values (
        replace(gen_random_uuid()::text, '-', ''), p_tenant_id, p ->> 'identity', p ->> 'fingerprint', p ->> 'holder',
        p ->> 'action', (p ->> 'input_chars')::integer, (p ->> 'estimate_s')::double precision,
        (p ->> 'streaming')::boolean, p ->> 'voice_id',
        'running', 1, p_now + make_interval(secs => (p ->> 'lease_s')::double precision), p_now
    ) on conflict (tenant_id, identity) do update set
        holder = excluded.holder, action = excluded.action, input_chars = excluded.input_chars,
        held_s = excluded.held_s, streaming = excluded.streaming, voice_id = excluded.voice_id, status = 'running',
        fence = r.fence + 1, lease_expires_at = excluded.lease_expires_at, settled_at = null, latency_ms = null,
        audio_seconds = null, audio_bytes = null, spoken_voice_id = null, error = null, cached = null, result = null,
        audio_path = null, metadata = null
    where r.fingerprint = excluded.fingerprint and r.status in ('failed', 'cancelled', 'abandoned')
    returning *;
$$;

-- An attempt that takes over from a worker that died takes nothing from the rates: that one did.
create or replace function public.reserve_request(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_tenant public.tenants;
    v_left_s double precision;
    v_is_paid boolean;
    v_took_over boolean := false;
    r public.requests;
begin
    if (p ->> 'is_operator')::boolean then
        v_tenant := private.operator_tenant(v_now);
    else
        v_tenant := private.authenticate(p ->> 'key_sha256', p ->> 'scope', v_now);
    end if;
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
            ) where request_id = r.request_id returning * into r;
            v_is_paid := true;
            exit;
        end if;
        if r.holder = p ->> 'holder' or (r.status = 'running' and r.lease_expires_at > v_now) then
            raise exception using errcode = 'XT409', message = 'request_running',
                detail = format('request ''%s'' is being worked on; ask again later', r.request_id);
        end if;
        v_is_paid := coalesce(r.status in ('running', 'abandoned'), false);
        if r.status = 'running' then
            perform private.reap_requests(v_now, r.request_id);
            v_took_over := true;
        end if;
        r := private.start_attempt(v_tenant.id, p, v_now);
        exit when r.request_id is not null;
        -- Another call has inserted the row since it was looked for: look again.
    end loop;
    if r.status = 'running' then
        if not v_is_paid then
            perform private.take_request(v_tenant, p_now);
        end if;
        v_left_s := private.hold(v_tenant, r, p_now);
    end if;
    if not v_took_over then
        perform private.reap_requests(v_now);
    end if;
    -- At most once a minute: most requests write nothing.
    update public.api_keys set last_used_at = v_now
    where sha256 = decode(p ->> 'key_sha256', 'hex')
        and (last_used_at is null or last_used_at <= v_now - interval '1 minute');
    return private.reserved(v_tenant, r) || jsonb_build_object('left_s', v_left_s);
end;
$$;

create or replace function public.settle_request(p jsonb, p_now timestamptz default null) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_closed constant boolean := private.close_attempt(
        p ->> 'tenant_id', p ->> 'request_id', (p ->> 'fence')::integer, p, v_now
    );
    v_audio_seconds constant double precision := (p ->> 'audio_seconds')::double precision;
begin
    if v_closed and v_audio_seconds > 0 and not (p ->> 'cached')::boolean then
        perform private.charge(p ->> 'tenant_id', v_audio_seconds, v_now);
    end if;
    return v_closed or exists (
        select from public.usage_logs
        where tenant_id = p ->> 'tenant_id' and request_id = p ->> 'request_id'
            and fence = (p ->> 'fence')::integer and status = p ->> 'status'
    );
end;
$$;


-- Tenants and keys

create function private.tenant(p_id text) returns public.tenants
language plpgsql stable security invoker set search_path = '' as $$
declare
    v_tenant public.tenants;
begin
    select * into v_tenant from public.tenants where id = p_id;
    if not found then
        raise exception using errcode = 'XT404', message = 'tenant_not_found', detail = format('no tenant ''%s''', p_id);
    end if;
    return v_tenant;
end;
$$;

create function private.api_key(p_tenant_id text, p_prefix text) returns public.api_keys
language plpgsql stable security invoker set search_path = '' as $$
declare
    v_key public.api_keys;
begin
    select * into v_key from public.api_keys where tenant_id = p_tenant_id and prefix = p_prefix;
    if not found then
        raise exception using errcode = 'XT404', message = 'key_not_found',
            detail = format('this tenant has no key ''%s''', p_prefix);
    end if;
    return v_key;
end;
$$;

-- What may be told of a key.
create function private.told(p_key public.api_keys) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object(
        'prefix', p_key.prefix, 'scopes', p_key.scopes, 'created_at', p_key.created_at,
        'expires_at', p_key.expires_at, 'revoked_at', p_key.revoked_at, 'last_used_at', p_key.last_used_at
    );
$$;

-- p: key_sha256, key_prefix, made_by. The key that the same request has made before, which nobody was told, goes.
create function private.add_key(
    p_tenant_id text, p jsonb, p_scopes text[], p_expires_at timestamptz, p_now timestamptz
) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_sha256 constant bytea := decode(p ->> 'key_sha256', 'hex');
    v_key public.api_keys;
begin
    delete from public.api_keys
    where tenant_id = p_tenant_id and made_by = p ->> 'made_by' and sha256 <> v_sha256;
    insert into public.api_keys (sha256, prefix, tenant_id, scopes, created_at, expires_at, made_by)
    values (v_sha256, p ->> 'key_prefix', p_tenant_id, p_scopes, p_now, p_expires_at, p ->> 'made_by')
    on conflict (sha256) do nothing;
    select * into strict v_key from public.api_keys where sha256 = v_sha256;
    return private.told(v_key);
end;
$$;

create or replace function public.create_tenant(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_key jsonb;
begin
    insert into public.tenants (
        id, name, attested_consent, requests_per_minute, requests_per_hour, quota_minutes, quota_period, created_at
    ) values (
        p ->> 'id', p ->> 'name', (p ->> 'attested_consent')::boolean, (p ->> 'requests_per_minute')::integer,
        (p ->> 'requests_per_hour')::integer, (p ->> 'quota_minutes')::double precision, p ->> 'quota_period', v_now
    ) on conflict (id) do nothing;
    v_key := private.add_key(
        p ->> 'id', p, array(select jsonb_array_elements_text(p -> 'scopes')), null, v_now
    );
    return jsonb_build_object('tenant', to_jsonb(private.tenant(p ->> 'id')), 'key', v_key);
end;
$$;

create function public.update_tenant(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_tenant public.tenants := private.tenant(p ->> 'id');
    v_change constant jsonb := p -> 'change';
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
begin
    if v_tenant.is_operator and (v_change ->> 'disabled')::boolean then
        raise exception using errcode = 'XT403', message = 'forbidden',
            detail = 'the tenant of the operator cannot be disabled';
    end if;
    update public.tenants as t set
        name = coalesce(v_change ->> 'name', t.name),
        attested_consent = coalesce((v_change ->> 'attested_consent')::boolean, t.attested_consent),
        requests_per_minute = case when v_change ? 'requests_per_minute'
            then (v_change ->> 'requests_per_minute')::integer else t.requests_per_minute end,
        requests_per_hour = case when v_change ? 'requests_per_hour'
            then (v_change ->> 'requests_per_hour')::integer else t.requests_per_hour end,
        quota_minutes = case when v_change ? 'quota_minutes'
            then (v_change ->> 'quota_minutes')::double precision else t.quota_minutes end,
        quota_period = coalesce(v_change ->> 'quota_period', t.quota_period),
        disabled_at = case (v_change ->> 'disabled')::boolean
            when true then coalesce(t.disabled_at, v_now) when false then null else t.disabled_at end
    where t.id = v_tenant.id returning * into v_tenant;
    return to_jsonb(v_tenant);
end;
$$;

create function public.create_key(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_tenant constant public.tenants := private.tenant(p ->> 'tenant_id');
begin
    return jsonb_build_object('tenant', to_jsonb(v_tenant), 'key', private.add_key(
        v_tenant.id, p, array(select jsonb_array_elements_text(p -> 'scopes')),
        (p ->> 'expires_at')::timestamptz, coalesce(p_now, clock_timestamp())
    ));
end;
$$;

-- The prefix of the only key that is valid.
create function private.only_valid_key(p_tenant_id text, p_now timestamptz) returns text
language plpgsql stable security invoker set search_path = '' as $$
declare
    v_prefixes constant text[] := array(
        select prefix from public.api_keys
        where tenant_id = p_tenant_id and revoked_at is null and (expires_at is null or expires_at > p_now)
        order by created_at, prefix
    );
begin
    if cardinality(v_prefixes) = 0 then
        raise exception using errcode = 'XT404', message = 'key_not_found', detail = 'this tenant has no valid key';
    elsif cardinality(v_prefixes) > 1 then
        raise exception using errcode = 'XT400', message = 'invalid_input',
            detail = 'prefix: say which of this tenant''s valid keys: ' || array_to_string(v_prefixes, ', ');
    end if;
    return v_prefixes[1];
end;
$$;

create function public.rotate_key(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_tenant constant public.tenants := private.tenant(p ->> 'tenant_id');
    v_replaced constant text := (
        select replaces from public.api_keys where tenant_id = v_tenant.id and made_by = p ->> 'made_by'
    );
    v_old constant public.api_keys := private.api_key(v_tenant.id, coalesce(
        v_replaced, p ->> 'prefix', private.only_valid_key(v_tenant.id, v_now)
    ));
    v_key jsonb;
begin
    if v_replaced is null and (v_old.revoked_at is not null or v_old.expires_at <= v_now) then
        raise exception using errcode = 'XT404', message = 'key_not_found',
            detail = format('the key ''%s'' is no longer valid', v_old.prefix);
    end if;
    update public.api_keys set expires_at = least(
        expires_at, v_now + make_interval(secs => (p ->> 'overlap_s')::double precision)
    ) where sha256 = v_old.sha256;
    v_key := private.add_key(v_tenant.id, p, v_old.scopes, null, v_now);
    update public.api_keys set replaces = v_old.prefix where sha256 = decode(p ->> 'key_sha256', 'hex');
    return jsonb_build_object('tenant', to_jsonb(v_tenant), 'key', v_key);
end;
$$;

-- A key that was revoked before stays as it is.
create function public.revoke_key(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_tenant constant public.tenants := private.tenant(p ->> 'tenant_id');
    v_key public.api_keys := private.api_key(v_tenant.id, p ->> 'prefix');
begin
    update public.api_keys set revoked_at = coalesce(revoked_at, p_now, clock_timestamp())
    where sha256 = v_key.sha256 returning * into v_key;
    return private.told(v_key);
end;
$$;

create function public.tenant_standing(p jsonb, p_now timestamptz default null) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select private.standing(private.tenant(p ->> 'tenant_id'), null, coalesce(p_now, clock_timestamp()));
$$;


-- The end of a tenant: it is closed, then its objects go (by the worker), then its rows.

-- Lets no request of it begin any more; tells whether some still run, or what was removed when it was deleted before.
create function public.close_tenant(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_receipt jsonb;
    v_tenant public.tenants;
begin
    select to_jsonb(d) into v_receipt from public.deleted_tenants as d where d.tenant_id = p ->> 'tenant_id';
    if v_receipt is not null then
        return jsonb_build_object('receipt', v_receipt);
    end if;
    v_tenant := private.tenant(p ->> 'tenant_id');
    if v_tenant.is_operator then
        raise exception using errcode = 'XT403', message = 'forbidden',
            detail = 'the tenant of the operator cannot be deleted';
    end if;
    update public.tenants set disabled_at = v_now where id = v_tenant.id and disabled_at is null;
    return jsonb_build_object('is_running', exists (
        select from public.requests
        where tenant_id = v_tenant.id and status = 'running' and lease_expires_at > v_now
    ));
end;
$$;

-- Every table that says whose a row is, those of later migrations too. Rows are counted first, as they go with the
-- tenant's own where a key says so; where none does (usage_logs), they go by name.
create function public.delete_tenant(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_id constant text := p ->> 'tenant_id';
    v_rows jsonb := jsonb_build_object('tenants', 1);
    v_of_tenant constant text[] := array(
        select format('from public.%I where %I = $1', c.relname, a.attname)
        from pg_catalog.pg_class as c
        join pg_catalog.pg_attribute as a on a.attrelid = c.oid and not a.attisdropped
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and c.relname <> 'deleted_tenants'
            and a.attname in ('tenant_id', 'grantee_id')
        order by c.relname, a.attname
    );
    v_what text;
    v_count bigint;
begin
    perform from public.tenants where id = v_id for update;
    if found then
        foreach v_what in array v_of_tenant loop
            execute 'select count(*) ' || v_what into v_count using v_id;
            if v_count > 0 then
                v_rows := v_rows || jsonb_build_object(split_part(split_part(v_what, '.', 2), ' ', 1), v_count);
            end if;
        end loop;
        delete from public.tenants where id = v_id;
        foreach v_what in array v_of_tenant loop
            execute 'delete ' || v_what using v_id;
        end loop;
        insert into public.deleted_tenants (tenant_id, deleted_at, rows, objects)
        values (v_id, coalesce(p_now, clock_timestamp()), v_rows, (p ->> 'objects')::integer);
    end if;
    return (select to_jsonb(d) from public.deleted_tenants as d where d.tenant_id = v_id);
end;
$$;


-- Who may call what

revoke all on function
    private.period_start(text, timestamptz),
    private.take_request(public.tenants, timestamptz),
    private.standing(public.tenants, text, timestamptz),
    private.hold(public.tenants, public.requests, timestamptz),
    private.charge(text, double precision, timestamptz),
    private.operator_tenant(timestamptz),
    private.tenant(text),
    private.api_key(text, text),
    private.told(public.api_keys),
    private.only_valid_key(text, timestamptz),
    private.add_key(text, jsonb, text[], timestamptz, timestamptz),
    public.update_tenant(jsonb, timestamptz),
    public.create_key(jsonb, timestamptz),
    public.rotate_key(jsonb, timestamptz),
    public.revoke_key(jsonb, timestamptz),
    public.tenant_standing(jsonb, timestamptz),
    public.close_tenant(jsonb, timestamptz),
    public.delete_tenant(jsonb, timestamptz)
    from public, anon, authenticated;
grant execute on function
    private.period_start(text, timestamptz),
    private.take_request(public.tenants, timestamptz),
    private.standing(public.tenants, text, timestamptz),
    private.hold(public.tenants, public.requests, timestamptz),
    private.charge(text, double precision, timestamptz),
    private.operator_tenant(timestamptz),
    private.tenant(text),
    private.api_key(text, text),
    private.told(public.api_keys),
    private.only_valid_key(text, timestamptz),
    private.add_key(text, jsonb, text[], timestamptz, timestamptz),
    public.update_tenant(jsonb, timestamptz),
    public.create_key(jsonb, timestamptz),
    public.rotate_key(jsonb, timestamptz),
    public.revoke_key(jsonb, timestamptz),
    public.tenant_standing(jsonb, timestamptz),
    public.close_tenant(jsonb, timestamptz),
    public.delete_tenant(jsonb, timestamptz)
    to service_role;
