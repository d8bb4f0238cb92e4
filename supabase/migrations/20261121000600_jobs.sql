-- Kept jobs and the chunks of long ones; what ages out, and whose turn a chore is.
--
-- Which attempt may write is told by jobs.fence: of the last attempt that has opened the job.

create table public.jobs (
    id text not null,
    tenant_id text not null references public.tenants (id) on delete cascade,
    fence integer not null check (fence >= 1),
    user_id text,
    text text,
    voice_id text,
    language text not null,
    include_alignments boolean not null,
    status text not null check (status in ('queued', 'processing', 'completed', 'failed')),
    error text,
    audio_path text check (
        starts_with(audio_path, 'audio/' || tenant_id || '/')
        or starts_with(audio_path, 'tts-cache/' || tenant_id || '/') or starts_with(audio_path, 'tts-cache/shared/')
    ),
    alignments_path text check (starts_with(alignments_path, 'audio/' || tenant_id || '/')),
    duration_s double precision,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, id)
) with (fillfactor = 80);
create index jobs_newest on public.jobs (tenant_id, created_at, id);
create index jobs_of_status on public.jobs (tenant_id, status, created_at, id);
create index jobs_read on public.jobs (tenant_id, updated_at) where text is not null;

create table public.job_chunks (
    tenant_id text not null,
    job_id text not null,
    chunk_index integer not null check (chunk_index >= 0),
    text_excerpt text not null,
    fingerprint text not null,
    object_path text not null check (starts_with(object_path, 'audio/' || tenant_id || '/')),
    status text not null check (status in ('pending', 'leased', 'done', 'failed')),
    attempts integer not null default 0,
    is_paid boolean not null default false,
    lease_token text,
    lease_expires_at timestamptz,
    sha256 text,
    duration_s double precision,
    alignment text,
    primary key (tenant_id, job_id, chunk_index),
    foreign key (tenant_id, job_id) references public.jobs (tenant_id, id) on delete cascade
) with (fillfactor = 80);

create table public.chores (
    name text primary key,
    holder text not null,
    held_until timestamptz not null
);

alter table public.tenants
    add column audio_days integer check (audio_days >= 1),
    add column text_days integer check (text_days >= 1),
    add column message_days integer check (message_days >= 1);
-- Of attempts up to this one no object is left.
alter table public.requests add column swept_fence integer not null default 0;
create index requests_unswept on public.requests (tenant_id, settled_at)
    where status <> 'running' and fence > swept_fence;
create index requests_told on public.requests (tenant_id, settled_at) where result is not null;


-- Who may see what

alter table public.jobs enable row level security;
alter table public.job_chunks enable row level security;
alter table public.chores enable row level security;

revoke all on public.jobs, public.job_chunks, public.chores from public, anon, authenticated, service_role;
grant select, insert, update, delete on public.jobs, public.job_chunks, public.chores to service_role;
grant select on public.jobs, public.job_chunks to authenticated;

create policy own_jobs on public.jobs for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));
create policy own_chunks on public.job_chunks for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));


-- Jobs: functions

-- Settling a request, which may be done by a worker that knows of no job, is what ends the job.
create function private.follow_request() returns trigger
language plpgsql volatile security invoker set search_path = '' as $$
begin
    update public.jobs set
        status = case new.status when 'success' then 'completed' else 'failed' end,
        error = case when new.status <> 'success' then coalesce(new.error, new.status) end,
        updated_at = new.settled_at
    where tenant_id = new.tenant_id and id = new.request_id;
    if found and new.status in ('failed', 'cancelled') then
        update public.job_chunks set is_paid = true
        where tenant_id = new.tenant_id and job_id = new.request_id and status = 'done';
    end if;
    return null;
end;
$$;
create trigger jobs_follow_requests after update of status on public.requests
    for each row when (new.status <> 'running') execute function private.follow_request();

create function public.open_job(p jsonb, p_now timestamptz default null) returns void
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
begin
    insert into public.jobs as j (
        id, tenant_id, fence, user_id, text, voice_id, language, include_alignments, status, created_at, updated_at
    ) values (
        p ->> 'job_id', p ->> 'tenant_id', (p ->> 'fence')::integer, p ->> 'user_id', p ->> 'text', p ->> 'voice_id',
        p ->> 'language', (p ->> 'include_alignments')::boolean, 'queued', v_now, v_now
    ) on conflict (tenant_id, id) do update set
        fence = excluded.fence, text = excluded.text, voice_id = excluded.voice_id, language = excluded.language,
        status = 'queued', error = null, updated_at = excluded.updated_at
    where excluded.fence > j.fence;
end;
$$;

-- Another planner may have made more chunks once: their rows stay, as they know the objects that have to go some day.
create function public.begin_job(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_tenant_id constant text := p ->> 'tenant_id';
    v_job_id constant text := p ->> 'job_id';
    v_count constant integer := jsonb_array_length(p -> 'chunks');
begin
    update public.jobs set status = 'processing', updated_at = v_now
    where tenant_id = v_tenant_id and id = v_job_id and fence = (p ->> 'fence')::integer
        and status in ('queued', 'processing');
    if not found then
        raise exception using errcode = 'XT409', message = 'request_running',
            detail = 'another worker has taken this request over';
    end if;
    update public.job_chunks set status = 'failed'
    where tenant_id = v_tenant_id and job_id = v_job_id and chunk_index >= v_count;
    insert into public.job_chunks as c (
        tenant_id, job_id, chunk_index, text_excerpt, fingerprint, object_path, status
    )
    select v_tenant_id, v_job_id, n - 1, chunk ->> 'text_excerpt', chunk ->> 'fingerprint', chunk ->> 'object_path',
        'pending'
    from jsonb_array_elements(p -> 'chunks') with ordinality as planned (chunk, n)
    on conflict (tenant_id, job_id, chunk_index) do update set
        text_excerpt = excluded.text_excerpt, fingerprint = excluded.fingerprint, object_path = excluded.object_path,
        status = 'pending', is_paid = false, lease_token = null, lease_expires_at = null, sha256 = null,
        duration_s = null, alignment = null
    where c.status <> 'done' or c.fingerprint <> excluded.fingerprint;
    return (
        select coalesce(jsonb_agg(to_jsonb(c) order by c.chunk_index), '[]') from public.job_chunks as c
        where c.tenant_id = v_tenant_id and c.job_id = v_job_id and c.chunk_index < v_count
    );
end;
$$;

-- The same token again is the same call, whose answer was lost: it gets the chunk it has.
create function public.claim_chunk(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_chunk public.job_chunks;
begin
    select * into v_chunk from public.job_chunks
    where tenant_id = p ->> 'tenant_id' and job_id = p ->> 'job_id' and lease_token = p ->> 'token';
    if not found then
        update public.job_chunks set
            status = 'leased', lease_token = p ->> 'token', attempts = attempts + 1,
            lease_expires_at = v_now + make_interval(secs => (p ->> 'lease_s')::double precision)
        where tenant_id = p ->> 'tenant_id' and job_id = p ->> 'job_id' and chunk_index = (
            select c.chunk_index from public.job_chunks as c
            join public.jobs as j on j.tenant_id = c.tenant_id and j.id = c.job_id
            where c.tenant_id = p ->> 'tenant_id' and c.job_id = p ->> 'job_id'
                and j.fence = (p ->> 'fence')::integer
                and (c.status = 'pending' or (c.status = 'leased' and c.lease_expires_at <= v_now))
            order by c.chunk_index limit 1 for update of c skip locked
        )
        returning * into v_chunk;
    end if;
    return jsonb_build_object('chunk', case when v_chunk.job_id is not null then to_jsonb(v_chunk) end);
end;
$$;

-- A lease that has run out still counts while nobody else has taken the chunk.
create function public.finish_chunk(p jsonb, p_now timestamptz default null) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
begin
    update public.job_chunks set
        status = 'done', lease_expires_at = null, sha256 = p ->> 'sha256',
        duration_s = (p ->> 'duration_s')::double precision, alignment = p ->> 'alignment'
    where tenant_id = p ->> 'tenant_id' and job_id = p ->> 'job_id' and lease_token = p ->> 'token'
        and status in ('leased', 'done');
    return found;
end;
$$;

create function public.fail_chunk(p jsonb, p_now timestamptz default null) returns void
language sql volatile security invoker set search_path = '' as $$
    update public.job_chunks set status = 'failed', lease_expires_at = null
    where tenant_id = p ->> 'tenant_id' and job_id = p ->> 'job_id' and lease_token = p ->> 'token'
        and status = 'leased';
$$;

create function public.keep_job(p jsonb, p_now timestamptz default null) returns void
language sql volatile security invoker set search_path = '' as $$
    update public.jobs set
        audio_path = p ->> 'audio_path', alignments_path = p ->> 'alignments_path',
        duration_s = (p ->> 'duration_s')::double precision, updated_at = coalesce(p_now, clock_timestamp())
    where tenant_id = p ->> 'tenant_id' and id = p ->> 'job_id' and fence = (p ->> 'fence')::integer;
$$;

-- Newest first, texts cut short.
create function public.list_jobs(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    v_status constant text := p ->> 'status';
    v_before constant timestamptz := coalesce((p ->> 'after_created_at')::timestamptz, 'infinity');
    v_before_id constant text := coalesce(p ->> 'after_id', '');
    v_limit constant integer := (p ->> 'limit')::integer;
    v_jobs public.jobs[];
begin
    -- Two queries, so that each has its index.
    if v_status is null then
        v_jobs := array(
            select j from public.jobs as j
            where tenant_id = p ->> 'tenant_id' and (created_at, id) < (v_before, v_before_id)
            order by created_at desc, id desc limit v_limit
        );
    else
        v_jobs := array(
            select j from public.jobs as j
            where tenant_id = p ->> 'tenant_id' and status = v_status and (created_at, id) < (v_before, v_before_id)
            order by created_at desc, id desc limit v_limit
        );
    end if;
    return (
        select coalesce(
            jsonb_agg(to_jsonb(j) || jsonb_build_object('text', left(j.text, (p ->> 'excerpt_chars')::integer))), '[]'
        ) from unnest(v_jobs) as j
    );
end;
$$;

-- Where the chunks of a completed job lie; those of any other job are still needed.
create function public.chunks_of_completed(p jsonb, p_now timestamptz default null) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select coalesce(jsonb_agg(to_jsonb(c)), '[]') from public.job_chunks as c
    join public.jobs as j on j.tenant_id = c.tenant_id and j.id = c.job_id and j.status = 'completed'
    where c.tenant_id = p ->> 'tenant_id' and c.job_id = p ->> 'job_id';
$$;


-- Retention: functions. Objects are found here and removed through the Storage API, before the rows that know of them:
-- a purge that is killed half way is finished by the next one.

create function public.set_retention(p jsonb, p_now timestamptz default null) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
begin
    update public.tenants set
        audio_days = (p ->> 'audio_days')::integer, text_days = (p ->> 'text_days')::integer,
        message_days = (p ->> 'message_days')::integer
    where id = p ->> 'tenant_id';
    return found;
end;
$$;

create function public.take_turn(p jsonb, p_now timestamptz default null) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
begin
    insert into public.chores as c (name, holder, held_until) values (
        p ->> 'chore', p ->> 'holder', v_now + make_interval(secs => (p ->> 'for_s')::double precision)
    ) on conflict (name) do update set holder = excluded.holder, held_until = excluded.held_until
    where c.held_until <= v_now or c.holder = excluded.holder;
    return found;
end;
$$;

-- Requests whose audio or texts have aged out, `limit` of each at most, and what is left of them in the bucket `audio`:
-- all objects that are named after one, of those whose texts only have aged out their alignments, which are texts too.
create function public.aged(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_limit constant integer := (p ->> 'limit')::integer;
    v_audio constant text[] := array(
        select r.request_id from public.tenants as t cross join lateral (
            select request_id from public.requests
            where tenant_id = t.id and status <> 'running' and fence > swept_fence
                and settled_at < v_now - make_interval(days => t.audio_days)
            order by settled_at limit v_limit
        ) as r
        where t.audio_days is not null limit v_limit
    );
    v_texts constant text[] := array(
        select r.request_id from public.tenants as t cross join lateral (
            (
                select request_id from public.requests
                where tenant_id = t.id and result is not null
                    and settled_at < v_now - make_interval(days => t.text_days)
                order by settled_at limit v_limit
            ) union (
                select id from public.jobs
                where tenant_id = t.id and text is not null and status in ('completed', 'failed')
                    and updated_at < v_now - make_interval(days => t.text_days)
                order by updated_at limit v_limit
            )
        ) as r
        where t.text_days is not null limit v_limit
    );
begin
    return jsonb_build_object('audio', v_audio, 'texts', v_texts, 'names', (
        select coalesce(jsonb_agg(distinct o.name), '[]')
        from (
            select unnest(v_audio) as id, '%' as kind union all select unnest(v_texts), '%.json'
        ) as due
        join public.requests as r on r.request_id = due.id
        cross join lateral (
            -- From `id.` up to `id/`, which is what follows: an index of Storage's own finds these.
            select name from storage.objects
            where bucket_id = 'audio' and name collate "C" >= r.tenant_id || '/' || r.request_id || '.'
                and name collate "C" < r.tenant_id || '/' || r.request_id || '/' and name like due.kind
        ) as o
    ));
end;
$$;

-- Of jobs that are completed, or that nobody has gone on with.
create function public.forgotten_chunks(p jsonb, p_now timestamptz default null) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select coalesce(jsonb_agg(to_jsonb(forgotten)), '[]') from (
        select c.tenant_id, c.job_id, c.chunk_index, c.object_path from public.job_chunks as c
        join public.jobs as j on j.tenant_id = c.tenant_id and j.id = c.job_id
        where j.status = 'completed' or j.updated_at < coalesce(p_now, clock_timestamp())
            - make_interval(days => (p ->> 'unfinished_days')::integer)
        limit (p ->> 'limit')::integer
    ) as forgotten;
$$;

create function public.forget_chunks(p jsonb, p_now timestamptz default null) returns integer
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_count integer;
begin
    delete from public.job_chunks as c
    using jsonb_to_recordset(p -> 'chunks') as gone (tenant_id text, job_id text, chunk_index integer)
    where c.tenant_id = gone.tenant_id and c.job_id = gone.job_id and c.chunk_index = gone.chunk_index;
    get diagnostics v_count = row_count;
    return v_count;
end;
$$;

-- Once the objects of these requests are gone: what their rows know of them, and their texts. And messages, `limit` of
-- them at most; gives how many.
create function public.forget_aged(p jsonb, p_now timestamptz default null) returns integer
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_audio constant text[] := array(select jsonb_array_elements_text(p -> 'audio'));
    v_texts constant text[] := array(select jsonb_array_elements_text(p -> 'texts'));
    v_messages integer;
begin
    update public.requests set swept_fence = fence, audio_path = null
    where request_id = any(v_audio) and status <> 'running';
    update public.jobs as j set audio_path = null, alignments_path = null from public.requests as r
    where r.request_id = any(v_audio) and j.tenant_id = r.tenant_id and j.id = r.request_id
        and j.status in ('completed', 'failed');
    update public.requests set result = null where request_id = any(v_texts) and status <> 'running';
    update public.jobs as j set text = null, alignments_path = null from public.requests as r
    where r.request_id = any(v_texts) and j.tenant_id = r.tenant_id and j.id = r.request_id
        and j.status in ('completed', 'failed');
    delete from public.messages as m using public.tenants as t cross join lateral (
        select persona_id, id from public.messages
        where tenant_id = t.id and created_at < v_now - make_interval(days => t.message_days)
        order by created_at limit (p ->> 'limit')::integer
    ) as aged
    where t.message_days is not null and m.tenant_id = t.id and m.persona_id = aged.persona_id and m.id = aged.id;
    get diagnostics v_messages = row_count;
    return v_messages;
end;
$$;


-- Who may call what

revoke all on function
    private.follow_request(),
    public.open_job(jsonb, timestamptz),
    public.begin_job(jsonb, timestamptz),
    public.claim_chunk(jsonb, timestamptz),
    public.finish_chunk(jsonb, timestamptz),
    public.fail_chunk(jsonb, timestamptz),
    public.keep_job(jsonb, timestamptz),
    public.list_jobs(jsonb, timestamptz),
    public.chunks_of_completed(jsonb, timestamptz),
    public.set_retention(jsonb, timestamptz),
    public.take_turn(jsonb, timestamptz),
    public.aged(jsonb, timestamptz),
    public.forgotten_chunks(jsonb, timestamptz),
    public.forget_chunks(jsonb, timestamptz),
    public.forget_aged(jsonb, timestamptz)
    from public, anon, authenticated;
grant execute on function
    public.open_job(jsonb, timestamptz),
    public.begin_job(jsonb, timestamptz),
    public.claim_chunk(jsonb, timestamptz),
    public.finish_chunk(jsonb, timestamptz),
    public.fail_chunk(jsonb, timestamptz),
    public.keep_job(jsonb, timestamptz),
    public.list_jobs(jsonb, timestamptz),
    public.chunks_of_completed(jsonb, timestamptz),
    public.set_retention(jsonb, timestamptz),
    public.take_turn(jsonb, timestamptz),
    public.aged(jsonb, timestamptz),
    public.forgotten_chunks(jsonb, timestamptz),
    public.forget_chunks(jsonb, timestamptz),
    public.forget_aged(jsonb, timestamptz)
    to service_role;
