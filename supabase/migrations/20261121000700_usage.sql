-- What usage rows come to by day: what summaries are read from.

-- No voice or user is an empty text: nulls are never the same row to a key.
create table public.usage_daily (
    tenant_id text not null references public.tenants (id) on delete cascade,
    day date not null,
    action text not null,
    voice_id text not null,
    user_id text not null,
    requests bigint not null,
    successes bigint not null,
    failures bigint not null,
    cancelled bigint not null,
    abandoned bigint not null,
    cached bigint not null,
    input_chars bigint not null,
    audio_seconds double precision not null,
    audio_bytes bigint not null,
    latency_ms bigint not null,
    primary key (tenant_id, day, action, voice_id, user_id),
    check (requests = successes + failures + cancelled + abandoned)
) with (fillfactor = 70);  -- a row is updated all day: its versions stay on its page

alter table public.usage_daily enable row level security;
revoke all on public.usage_daily from public, anon, authenticated, service_role;
grant select, insert, update, delete on public.usage_daily to service_role;
grant select on public.usage_daily to authenticated;
create policy own_usage_daily on public.usage_daily for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));

-- One usage row more or, with -1, one less.
create function private.count_usage_row(u public.usage_logs, p_sign integer) returns void
language sql volatile security invoker set search_path = '' as $$
    insert into public.usage_daily as d (
        tenant_id, day, action, voice_id, user_id, requests, successes, failures, cancelled, abandoned, cached,
        input_chars, audio_seconds, audio_bytes, latency_ms
    ) values (
        u.tenant_id, (u.created_at at time zone 'UTC')::date, u.action, coalesce(u.voice_id, ''),
        coalesce(u.user_id, ''), p_sign, p_sign * (u.status = 'success')::integer,
        p_sign * (u.status = 'failed')::integer, p_sign * (u.status = 'cancelled')::integer,
        p_sign * (u.status = 'abandoned')::integer, p_sign * u.cached::integer, p_sign * u.input_chars,
        p_sign * u.audio_seconds, p_sign * u.audio_bytes, p_sign * u.latency_ms
    ) on conflict (tenant_id, day, action, voice_id, user_id) do update set
        requests = d.requests + excluded.requests, successes = d.successes + excluded.successes,
        failures = d.failures + excluded.failures, cancelled = d.cancelled + excluded.cancelled,
        abandoned = d.abandoned + excluded.abandoned, cached = d.cached + excluded.cached,
        input_chars = d.input_chars + excluded.input_chars, audio_seconds = d.audio_seconds + excluded.audio_seconds,
        audio_bytes = d.audio_bytes + excluded.audio_bytes, latency_ms = d.latency_ms + excluded.latency_ms;
$$;

-- A row of usage_logs is counted when its transaction commits. So rows of usage_daily, which many transactions share,
-- are the last that any of them locks, and only while it commits; who locks several, locks them in one order.
create function private.count_usage() returns trigger
language plpgsql volatile security invoker set search_path = '' as $$
begin
    if tg_op = 'INSERT' then
        perform private.count_usage_row(new, 1);
    elsif (coalesce(old.voice_id, '') collate "C", coalesce(old.user_id, '') collate "C")
        < (coalesce(new.voice_id, ''), coalesce(new.user_id, '')) then
        perform private.count_usage_row(old, -1), private.count_usage_row(new, 1);
    else
        perform private.count_usage_row(new, 1), private.count_usage_row(old, -1);
    end if;
    return null;
end;
$$;

create constraint trigger count_usage after insert or update on public.usage_logs
deferrable initially deferred for each row execute function private.count_usage();

-- What was used before this migration. Its lock keeps others from settling until the rows are counted.
do $$ begin lock table public.usage_logs in share row exclusive mode; end $$;  -- the CLI takes no bare LOCK
insert into public.usage_daily
select
    u.tenant_id, (u.created_at at time zone 'UTC')::date, u.action, coalesce(u.voice_id, ''), coalesce(u.user_id, ''),
    count(*), count(*) filter (where u.status = 'success'), count(*) filter (where u.status = 'failed'),
    count(*) filter (where u.status = 'cancelled'), count(*) filter (where u.status = 'abandoned'),
    count(*) filter (where u.cached), sum(u.input_chars), sum(u.audio_seconds), sum(u.audio_bytes), sum(u.latency_ms)
from public.usage_logs as u
join public.tenants as t on t.id = u.tenant_id
group by 1, 2, 3, 4, 5;

-- The usage row of an attempt that has just been closed; of one that had been given up as abandoned it takes the place
-- of the row that said so, and keeps its time.
create or replace function private.record_usage(r public.requests) returns void
language plpgsql volatile security invoker set search_path = '' as $$
begin
    update public.usage_logs set
        audio_seconds = r.audio_seconds, audio_bytes = r.audio_bytes, latency_ms = r.latency_ms,
        voice_id = coalesce(r.spoken_voice_id, r.voice_id), user_id = r.user_id, status = r.status, error = r.error,
        cached = r.cached, metadata = r.metadata
    where tenant_id = r.tenant_id and request_id = r.request_id and fence = r.fence;
    if not found then
        insert into public.usage_logs (
            tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming,
            voice_id, user_id, status, error, cached, metadata, created_at
        ) values (
            r.tenant_id, r.request_id, r.fence, r.action, r.input_chars, r.audio_seconds, r.audio_bytes, r.latency_ms,
            r.streaming, coalesce(r.spoken_voice_id, r.voice_id), r.user_id, r.status, r.error, r.cached, r.metadata,
            r.settled_at
        );
    end if;
end;
$$;

-- False, and nothing is written, if the attempt had ended before. One that was given up as abandoned, and that no
-- other has followed, may still say how it ended: its settlement may have waited for this database to answer.
create or replace function private.close_attempt(
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
    where tenant_id = p_tenant_id and request_id = p_request_id and fence = p_fence
        and (status = 'running' or (status = 'abandoned' and p_ended ->> 'status' <> 'abandoned'))
    returning * into r;
    if not found then
        return false;
    end if;
    perform private.record_usage(r);
    return true;
end;
$$;

-- Gives a few expired attempts up, whoever's they are, and first of all that of the request `p_own`, which the caller
-- has locked. Skips what others have locked, so it may follow any other lock; ends them in the order of the rows that
-- count them: the day, and how they ended, are the same for all.
drop function private.reap_requests(timestamptz);
create function private.reap_requests(p_now timestamptz, p_own text default null) returns void
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_expired public.requests;
begin
    for v_expired in
        with others as materialized (
            select * from public.requests
            where status = 'running' and lease_expires_at <= p_now and request_id is distinct from p_own
            order by lease_expires_at limit 20 for update skip locked
        ), expired as (
            select * from others
            union all select * from public.requests where request_id = p_own and status = 'running'
        )
        select * from expired
        order by tenant_id collate "C", action collate "C", coalesce(voice_id, '') collate "C"
    loop
        perform private.abandon_attempt(v_expired, p_now);
    end loop;
end;
$$;

-- Groups by what `by` names, those of most requests first within a day, and what they all come to.
create function public.usage_summary(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    v_by constant text[] := array(select jsonb_array_elements_text(p -> 'by'));
begin
    return (
        with counted as materialized (
            select
                case when 'day' = any(v_by) then d.day end as day,
                case when 'endpoint' = any(v_by) then d.action end as action,
                case when 'voice' = any(v_by) then nullif(d.voice_id, '') end as voice_id,
                case when 'user' = any(v_by) then nullif(d.user_id, '') end as user_id,
                sum(d.requests)::bigint as requests, sum(d.successes)::bigint as successes,
                sum(d.failures)::bigint as failures, sum(d.cancelled)::bigint as cancelled,
                sum(d.abandoned)::bigint as abandoned, sum(d.cached)::bigint as cached,
                sum(d.input_chars)::bigint as input_chars, sum(d.audio_seconds) as audio_seconds,
                sum(d.audio_bytes)::bigint as audio_bytes, sum(d.latency_ms)::bigint as latency_ms
            from public.usage_daily as d
            where d.tenant_id = p ->> 'tenant_id'
                and d.day between (p ->> 'first_day')::date and (p ->> 'last_day')::date
            group by 1, 2, 3, 4 having sum(d.requests) > 0
        ), told as (
            select c.*, row_number() over (
                order by c.day, c.requests desc, c.action collate "C" nulls first, c.voice_id collate "C" nulls first,
                    c.user_id collate "C" nulls first
            ) as place from counted as c
        )
        select jsonb_build_object(
            'totals', jsonb_build_object(
                'requests', coalesce(sum(c.requests), 0), 'successes', coalesce(sum(c.successes), 0),
                'failures', coalesce(sum(c.failures), 0), 'cancelled', coalesce(sum(c.cancelled), 0),
                'abandoned', coalesce(sum(c.abandoned), 0), 'cached', coalesce(sum(c.cached), 0),
                'input_chars', coalesce(sum(c.input_chars), 0), 'audio_seconds', coalesce(sum(c.audio_seconds), 0),
                'audio_bytes', coalesce(sum(c.audio_bytes), 0), 'latency_ms', coalesce(sum(c.latency_ms), 0)
            ),
            'groups', (
                select coalesce(jsonb_agg(to_jsonb(t) order by t.place), '[]')
                from told as t where t.place <= (p ->> 'limit')::bigint
            ),
            'left_out', greatest(count(*) - (p ->> 'limit')::bigint, 0)
        ) from counted as c
    );
end;
$$;

revoke all on function
    private.count_usage_row(public.usage_logs, integer),
    private.count_usage(),
    private.reap_requests(timestamptz, text),
    public.usage_summary(jsonb, timestamptz)
    from public, anon, authenticated;
grant execute on function
    private.count_usage_row(public.usage_logs, integer),
    private.reap_requests(timestamptz, text),
    public.usage_summary(jsonb, timestamptz)
    to service_role;
