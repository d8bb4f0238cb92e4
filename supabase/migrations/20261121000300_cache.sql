-- The permanent cache: takes that were kept, under a hash of everything that decides how they sound.
--
-- A row is written after its object, so a row that is active implies an object. To remove one, it is made inactive,
-- then its object is deleted, then the row: whoever dies in between leaves a row that the next removal finds again.
-- tenants.cache_epoch grows whenever entries that the tenant could hear are retired or replaced: reserve_request tells
-- it, and workers ask again for what they hold. It is raised before the rows are touched, and who keeps a take checks
-- it under a lock, so that nothing begun before a removal is kept after it.

alter table public.tenants
    add column cache_epoch bigint not null default 0,
    add constraint tenants_id_is_no_pool check (id <> 'shared');

-- pool: the tenant's id, or 'shared' for what belongs to no tenant and is heard by all.
create table public.tts_cache (
    pool text not null,
    content_hash text not null check (content_hash ~ '^[0-9a-f]{64}$'),
    tenant_id text references public.tenants (id) on delete cascade,
    content_type text not null,
    content_text text not null,
    voice text,
    audio_path text not null,
    audio_file_size bigint not null,
    audio_seconds double precision not null,
    details text not null,
    is_active boolean not null default true,
    created_at timestamptz not null,
    primary key (pool, content_hash),
    check (pool = coalesce(tenant_id, 'shared'))
);
create index tts_cache_of_tenant on public.tts_cache (tenant_id);

create table public.tts_cache_hits (
    pool text not null,
    content_hash text not null,
    day date not null,
    hits bigint not null,
    primary key (pool, content_hash, day),
    foreign key (pool, content_hash) references public.tts_cache (pool, content_hash) on delete cascade
) with (fillfactor = 80);

create table public.tts_cache_days (
    tenant_id text not null references public.tenants (id) on delete cascade,
    day date not null,
    hits bigint not null,
    misses bigint not null,
    audio_seconds_saved double precision not null,
    primary key (tenant_id, day)
) with (fillfactor = 80);

-- Batches of hits that were added: one that comes again because its answer was lost changes nothing.
create table public.tts_cache_batches (
    id text primary key,
    created_at timestamptz not null
);
create index tts_cache_batches_by_time on public.tts_cache_batches (created_at);

alter table public.tts_cache enable row level security;
alter table public.tts_cache_hits enable row level security;
alter table public.tts_cache_days enable row level security;
alter table public.tts_cache_batches enable row level security;
revoke all on public.tts_cache, public.tts_cache_hits, public.tts_cache_days, public.tts_cache_batches
    from public, anon, authenticated, service_role;
grant select, insert, update, delete
    on public.tts_cache, public.tts_cache_hits, public.tts_cache_days, public.tts_cache_batches to service_role;
grant select on public.tts_cache, public.tts_cache_days to authenticated;

create policy own_cache on public.tts_cache for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));
create policy own_cache_days on public.tts_cache_days for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));


-- Locks whom a pool is heard by, in the order of ids.
create function private.lock_hearers(p_pool text) returns void
language sql volatile security invoker set search_path = '' as $$
    select 1 from public.tenants where id = p_pool or p_pool = 'shared' order by id for no key update;
$$;

create function private.next_cache_epoch(p_pool text) returns void
language sql volatile security invoker set search_path = '' as $$
    update public.tenants set cache_epoch = cache_epoch + 1 where id = p_pool or p_pool = 'shared';
$$;

create function private.cached(c public.tts_cache) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object('entry', case when c.pool is not null then to_jsonb(c) end);
$$;

-- {"entry": the tenant's own, or else the shared one, or null}
create function public.find_cached(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    c public.tts_cache;
begin
    select * into c from public.tts_cache
    where pool in (p ->> 'tenant_id', 'shared') and content_hash = p ->> 'content_hash' and is_active
    order by pool = 'shared' limit 1;
    return private.cached(c);
end;
$$;

-- {"entry": the one that is there now}, or null in its place if entries were retired since `epoch`.
create function public.put_cached(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_new constant public.tts_cache := jsonb_populate_record(null::public.tts_cache, p -> 'entry');
    v_replace constant boolean := (p ->> 'replace')::boolean;
    v_expired_before constant timestamptz := (p ->> 'expired_before')::timestamptz;
    v_old public.tts_cache;
    c public.tts_cache;
begin
    if v_replace then
        perform private.lock_hearers(v_new.pool);
    end if;
    perform 1 from public.tenants where id = p ->> 'tenant_id' for share;
    select * into v_old from public.tts_cache
    where pool = v_new.pool and content_hash = v_new.content_hash and is_active for update;
    if v_old.created_at = v_new.created_at and v_old.content_type = v_new.content_type then
        return private.cached(v_old);
    end if;
    if not exists (
        select 1 from public.tenants where id = p ->> 'tenant_id' and cache_epoch = (p ->> 'epoch')::bigint
    ) then
        return private.cached(null);
    end if;
    insert into public.tts_cache as t (
        pool, content_hash, tenant_id, content_type, content_text, voice, audio_path, audio_file_size,
        audio_seconds, details, created_at
    ) values (
        v_new.pool, v_new.content_hash, nullif(v_new.pool, 'shared'), v_new.content_type, v_new.content_text,
        v_new.voice, v_new.audio_path, v_new.audio_file_size, v_new.audio_seconds, v_new.details, v_new.created_at
    ) on conflict (pool, content_hash) do update set
        content_type = excluded.content_type, content_text = excluded.content_text, voice = excluded.voice,
        audio_path = excluded.audio_path, audio_file_size = excluded.audio_file_size,
        audio_seconds = excluded.audio_seconds, details = excluded.details, created_at = excluded.created_at,
        is_active = true
    where not t.is_active or v_replace or t.created_at < v_expired_before
    returning * into c;
    if not found then
        select * into c from public.tts_cache where pool = v_new.pool and content_hash = v_new.content_hash;
    elsif v_replace and v_old.created_at <> c.created_at then
        perform private.next_cache_epoch(c.pool);
    end if;
    return private.cached(c);
end;
$$;

-- The entries that are retired now or were before, as a JSON array of `limit` at most.
create function public.retire_cached(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_retired jsonb;
begin
    perform private.lock_hearers(p ->> 'pool');
    perform private.next_cache_epoch(p ->> 'pool');
    with picked as (
        select c.content_hash from public.tts_cache as c
        where c.pool = p ->> 'pool'
            and (p ->> 'voice' is null or c.voice = p ->> 'voice')
            and (p ->> 'content_type' is null or c.content_type = p ->> 'content_type')
            and (p ->> 'content_hash' is null or c.content_hash = p ->> 'content_hash')
            and (p ->> 'created_before' is null or c.created_at < (p ->> 'created_before')::timestamptz)
        order by c.content_hash limit (p ->> 'limit')::integer for update
    ), retired as (
        update public.tts_cache as c set is_active = false from picked
        where c.pool = p ->> 'pool' and c.content_hash = picked.content_hash returning c.*
    )
    select coalesce(jsonb_agg(to_jsonb(retired) order by retired.content_hash), '[]') into v_retired from retired;
    return v_retired;
end;
$$;

create function public.drop_cached(p jsonb, p_now timestamptz default null) returns void
language sql volatile security invoker set search_path = '' as $$
    delete from public.tts_cache
    where pool = p ->> 'pool' and not is_active
        and content_hash in (select jsonb_array_elements_text(p -> 'content_hashes'));
$$;

-- Rows are touched in the order of their keys, so that two batches at once cannot wait for each other.
create function public.record_cache_hits(p jsonb, p_now timestamptz default null) returns void
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
begin
    delete from public.tts_cache_batches where id in (
        select id from public.tts_cache_batches where created_at < v_now - interval '1 day'
        limit 1000 for update skip locked
    );
    insert into public.tts_cache_batches (id, created_at) values (p ->> 'id', v_now) on conflict (id) do nothing;
    if not found then
        return;
    end if;
    insert into public.tts_cache_hits as h (pool, content_hash, day, hits)
    select counts.pool, counts.content_hash, counts.day, sum(counts.hits)
    from jsonb_to_recordset(p -> 'counts') as counts (pool text, content_hash text, day date, hits bigint)
    where counts.hits > 0 and exists (
        select 1 from public.tts_cache as c
        where c.pool = counts.pool and c.content_hash = counts.content_hash for key share
    )
    group by counts.pool, counts.content_hash, counts.day
    order by counts.pool, counts.content_hash, counts.day
    on conflict (pool, content_hash, day) do update set hits = h.hits + excluded.hits;
    insert into public.tts_cache_days as d (tenant_id, day, hits, misses, audio_seconds_saved)
    select counts.tenant_id, counts.day, sum(counts.hits), sum(counts.misses), sum(counts.audio_seconds)
    from jsonb_to_recordset(p -> 'counts') as counts (
        tenant_id text, day date, hits bigint, misses bigint, audio_seconds double precision
    )
    where exists (select 1 from public.tenants where id = counts.tenant_id for key share)
    group by counts.tenant_id, counts.day
    order by counts.tenant_id, counts.day
    on conflict (tenant_id, day) do update set
        hits = d.hits + excluded.hits, misses = d.misses + excluded.misses,
        audio_seconds_saved = d.audio_seconds_saved + excluded.audio_seconds_saved;
end;
$$;

create function public.cache_totals(p jsonb, p_now timestamptz default null) returns jsonb
language sql stable security invoker set search_path = '' as $$
    with own as (
        select content_type, voice, count(*) as entries, sum(audio_file_size) as bytes
        from public.tts_cache where pool = p ->> 'tenant_id' and is_active group by content_type, voice
    ), shared as (
        select count(*) as entries, coalesce(sum(audio_file_size), 0) as bytes
        from public.tts_cache where pool = 'shared' and is_active
    ), saved as (
        select
            coalesce(sum(hits), 0) as hits, coalesce(sum(misses), 0) as misses,
            coalesce(sum(audio_seconds_saved), 0) as seconds
        from public.tts_cache_days where tenant_id = p ->> 'tenant_id'
    )
    select jsonb_build_object(
        'entries', (select coalesce(sum(own.entries), 0) from own),
        'bytes', (select coalesce(sum(own.bytes), 0) from own),
        'shared_entries', shared.entries,
        'shared_bytes', shared.bytes,
        'hits', saved.hits,
        'misses', saved.misses,
        'audio_seconds_saved', saved.seconds,
        'groups', (
            select coalesce(jsonb_agg(to_jsonb(g)), '[]') from (
                select * from own order by own.entries desc, own.content_type, own.voice nulls first limit 100
            ) as g
        )
    ) from shared, saved;
$$;

revoke all on function
    private.lock_hearers(text), private.next_cache_epoch(text), private.cached(public.tts_cache),
    public.find_cached(jsonb, timestamptz), public.put_cached(jsonb, timestamptz),
    public.retire_cached(jsonb, timestamptz), public.drop_cached(jsonb, timestamptz),
    public.record_cache_hits(jsonb, timestamptz), public.cache_totals(jsonb, timestamptz)
    from public, anon, authenticated;
grant execute on function
    private.lock_hearers(text), private.next_cache_epoch(text), private.cached(public.tts_cache),
    public.find_cached(jsonb, timestamptz), public.put_cached(jsonb, timestamptz),
    public.retire_cached(jsonb, timestamptz), public.drop_cached(jsonb, timestamptz),
    public.record_cache_hits(jsonb, timestamptz), public.cache_totals(jsonb, timestamptz)
    to service_role;
