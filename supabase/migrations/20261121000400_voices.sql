-- Saved voices, their versions, and which other tenants may speak them.
--
-- Whoever a voice was shared with sees it through functions of the worker only: its owner's rows stay closed to the
-- other tenant's users.

create table public.voices (
    id text primary key,
    tenant_id text not null references public.tenants (id) on delete cascade,
    user_id text,
    name text not null,
    description text not null,
    language text,
    gender text check (gender in ('female', 'male', 'neutral')),
    accent text,
    tags text[] not null,
    versions_made integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index voices_of_tenant on public.voices (tenant_id, created_at, id);

-- clips: [{"path", "size_bytes", "content_type", "report"}], objects of bucket `voices`
create table public.voice_versions (
    voice_id text not null references public.voices (id) on delete cascade,
    tenant_id text not null references public.tenants (id) on delete cascade,
    number integer not null check (number >= 1),
    request_id text not null,
    consent text not null,
    clips jsonb not null check (jsonb_typeof(clips) = 'array'),
    created_at timestamptz not null,
    primary key (voice_id, number),
    unique (voice_id, request_id)
);
create index voice_versions_of_tenant on public.voice_versions (tenant_id);

-- What engines have computed from the clips of a version: objects of bucket `voices`.
create table public.voice_latents (
    voice_id text not null,
    tenant_id text not null references public.tenants (id) on delete cascade,
    number integer not null,
    path text not null,
    size_bytes bigint not null,
    primary key (voice_id, number, path),
    foreign key (voice_id, number) references public.voice_versions (voice_id, number) on delete cascade
);
create index voice_latents_of_tenant on public.voice_latents (tenant_id);

-- No foreign key of grantee_id: it would tell a tenant which ids other tenants have.
create table public.voice_grants (
    voice_id text not null references public.voices (id) on delete cascade,
    tenant_id text not null references public.tenants (id) on delete cascade,
    grantee_id text not null,
    created_at timestamptz not null,
    primary key (voice_id, grantee_id)
);
create index voice_grants_to_tenant on public.voice_grants (grantee_id);
create index voice_grants_of_tenant on public.voice_grants (tenant_id);

-- By the request that asked for it, so that a deletion whose answer was lost is answered again.
create table public.voice_purges (
    tenant_id text not null references public.tenants (id) on delete cascade,
    request_id text not null,
    purge jsonb not null check (jsonb_typeof(purge) = 'object'),
    created_at timestamptz not null,
    primary key (tenant_id, request_id)
);


-- Who may see what

alter table public.voices enable row level security;
alter table public.voice_versions enable row level security;
alter table public.voice_latents enable row level security;
alter table public.voice_grants enable row level security;
alter table public.voice_purges enable row level security;

revoke all on
    public.voices, public.voice_versions, public.voice_latents, public.voice_grants, public.voice_purges
    from public, anon, authenticated, service_role;
grant select, insert, update, delete on
    public.voices, public.voice_versions, public.voice_latents, public.voice_grants, public.voice_purges
    to service_role;
grant select on public.voices, public.voice_versions, public.voice_grants to authenticated;

create policy own_voices on public.voices for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));
create policy own_voice_versions on public.voice_versions for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));
create policy own_voice_grants on public.voice_grants for select to authenticated
    using (tenant_id in (select private.my_tenant_ids()));


-- Reading. A voice that is not there, or another tenant's and not shared, is null: the worker has the words for that.

-- A voice in its newest or another version, as a tenant sees it; null if there is no such version.
create function private.seen_voice(p_voice public.voices, p_tenant_id text, p_number integer) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object(
        'id', p_voice.id,
        'tenant_id', p_voice.tenant_id,
        'traits', jsonb_build_object(
            'name', p_voice.name, 'description', p_voice.description, 'language', p_voice.language,
            'gender', p_voice.gender, 'accent', p_voice.accent, 'tags', p_voice.tags, 'user_id', p_voice.user_id
        ),
        'version', to_jsonb(n),
        'versions', (select jsonb_agg(o.number order by o.number) from public.voice_versions as o
            where o.voice_id = p_voice.id and o.tenant_id = p_voice.tenant_id),
        'shared_with', (select coalesce(jsonb_agg(g.grantee_id order by g.created_at, g.grantee_id), '[]')
            from public.voice_grants as g where g.voice_id = p_voice.id and g.tenant_id = p_tenant_id),
        'created_at', p_voice.created_at,
        'updated_at', p_voice.updated_at
    ) from public.voice_versions as n
    where n.voice_id = p_voice.id and n.tenant_id = p_voice.tenant_id and n.number = coalesce(
        p_number,
        (select max(o.number) from public.voice_versions as o
            where o.voice_id = p_voice.id and o.tenant_id = p_voice.tenant_id)
    );
$$;

create function public.get_voice(p jsonb, p_now timestamptz default null) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select jsonb_build_object('voice', (
        select private.seen_voice(v, p ->> 'tenant_id', (p ->> 'version')::integer) from public.voices as v
        where v.id = p ->> 'voice_id' and (
            v.tenant_id = p ->> 'tenant_id'
            or exists (
                select from public.voice_grants as g where g.voice_id = v.id and g.grantee_id = p ->> 'tenant_id'
            )
        )
    ));
$$;

create function public.list_voices(p jsonb, p_now timestamptz default null) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select coalesce(
        jsonb_agg(private.seen_voice(page, p ->> 'tenant_id', null) order by page.created_at desc, page.id desc), '[]'
    ) from (
        select v.* from public.voices as v
        where v.id in (
                select own.id from public.voices as own where own.tenant_id = p ->> 'tenant_id'
                union all
                select g.voice_id from public.voice_grants as g
                where g.grantee_id = p ->> 'tenant_id' and (p ->> 'include_shared')::boolean
            )
            and (p ->> 'user_id' is null or (v.user_id = p ->> 'user_id' and v.tenant_id = p ->> 'tenant_id'))
            and (p ->> 'language' is null or v.language = p ->> 'language')
            and (p ->> 'tag' is null or p ->> 'tag' = any (v.tags))
            and (p ->> 'voice_ids' is null or p -> 'voice_ids' ? v.id)
            and (
                p ->> 'after' is null
                or (v.created_at, v.id) < ((p -> 'after' ->> 0)::timestamptz, p -> 'after' ->> 1)
            )
        order by v.created_at desc, v.id desc limit (p ->> 'limit')::integer
    ) as page;
$$;


-- Writing. Each locks the voice's row first (a new one: the tenant's), so what is done to one voice is done in turn.

create function private.add_voice_version(p_voice public.voices, p_version jsonb, p_now timestamptz) returns void
language plpgsql volatile security invoker set search_path = '' as $$
begin
    insert into public.voice_versions (voice_id, tenant_id, number, request_id, consent, clips, created_at) values (
        p_voice.id, p_voice.tenant_id, p_voice.versions_made + 1, p_version ->> 'request_id', p_version ->> 'consent',
        p_version -> 'clips', p_now
    ) on conflict (voice_id, request_id) do nothing;
    if found then
        update public.voices set versions_made = versions_made + 1
        where id = p_voice.id and tenant_id = p_voice.tenant_id;
    end if;
end;
$$;

create function public.create_voice(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_voice public.voices;
    v_count bigint;
begin
    perform from public.tenants where id = p ->> 'tenant_id' for no key update;
    if not exists (select from public.voices where id = p ->> 'voice_id') then
        select count(*) into v_count from public.voices where tenant_id = p ->> 'tenant_id';
        if v_count >= (p ->> 'max_voices')::bigint then
            raise exception using errcode = 'XT409', message = 'limit_reached',
                detail = format('the tenant has %s voices, and may have %s', v_count, p ->> 'max_voices');
        end if;
        insert into public.voices (
            id, tenant_id, user_id, name, description, language, gender, accent, tags, versions_made,
            created_at, updated_at
        ) values (
            p ->> 'voice_id', p ->> 'tenant_id', p -> 'traits' ->> 'user_id', p -> 'traits' ->> 'name',
            p -> 'traits' ->> 'description', p -> 'traits' ->> 'language', p -> 'traits' ->> 'gender',
            p -> 'traits' ->> 'accent', array(select jsonb_array_elements_text(p -> 'traits' -> 'tags')), 0,
            v_now, v_now
        ) returning * into v_voice;
        perform private.add_voice_version(v_voice, p -> 'version', v_now);
    end if;
    return public.get_voice(jsonb_build_object('tenant_id', p ->> 'tenant_id', 'voice_id', p ->> 'voice_id'));
end;
$$;

create function public.update_voice(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    c constant jsonb := p -> 'changes';
    v_voice public.voices;
begin
    update public.voices set
        name = case when c ? 'name' then c ->> 'name' else name end,
        description = case when c ? 'description' then c ->> 'description' else description end,
        language = case when c ? 'language' then c ->> 'language' else language end,
        gender = case when c ? 'gender' then c ->> 'gender' else gender end,
        accent = case when c ? 'accent' then c ->> 'accent' else accent end,
        tags = case when c ? 'tags' then array(select jsonb_array_elements_text(c -> 'tags')) else tags end,
        user_id = case when c ? 'user_id' then c ->> 'user_id' else user_id end,
        updated_at = v_now
    where id = p ->> 'voice_id' and tenant_id = p ->> 'tenant_id'
    returning * into v_voice;
    if not found then
        return '{"voice": null}'::jsonb;
    end if;
    if p ->> 'version' is not null then
        perform private.add_voice_version(v_voice, p -> 'version', v_now);
    end if;
    return public.get_voice(jsonb_build_object('tenant_id', p ->> 'tenant_id', 'voice_id', p ->> 'voice_id'));
end;
$$;

create function public.share_voice(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_grantees text[];
begin
    perform from public.voices where id = p ->> 'voice_id' and tenant_id = p ->> 'tenant_id' for no key update;
    if not found then
        return '{"voice": null}'::jsonb;
    end if;
    v_grantees := array(
        select grantee_id from public.voice_grants
        where voice_id = p ->> 'voice_id' and tenant_id = p ->> 'tenant_id'
    );
    if not p ->> 'with_tenant_id' = any (v_grantees) and cardinality(v_grantees) >= (p ->> 'max_grants')::integer then
        raise exception using errcode = 'XT409', message = 'limit_reached',
            detail = format('the voice is shared with %s tenants, which is as many as can be', p ->> 'max_grants');
    end if;
    insert into public.voice_grants (voice_id, tenant_id, grantee_id, created_at)
    values (p ->> 'voice_id', p ->> 'tenant_id', p ->> 'with_tenant_id', v_now)
    on conflict (voice_id, grantee_id) do nothing;
    return public.get_voice(jsonb_build_object('tenant_id', p ->> 'tenant_id', 'voice_id', p ->> 'voice_id'));
end;
$$;

create function public.unshare_voice(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
begin
    perform from public.voices where id = p ->> 'voice_id' and tenant_id = p ->> 'tenant_id' for no key update;
    if not found then
        return '{"voice": null}'::jsonb;
    end if;
    delete from public.voice_grants
    where voice_id = p ->> 'voice_id' and tenant_id = p ->> 'tenant_id' and grantee_id = p ->> 'with_tenant_id';
    return public.get_voice(jsonb_build_object('tenant_id', p ->> 'tenant_id', 'voice_id', p ->> 'voice_id'));
end;
$$;

-- What a deletion takes away: of all versions, or (p_number) of one.
create function private.voice_purge(p_voice public.voices, p_number integer) returns jsonb
language sql stable security invoker set search_path = '' as $$
    with versions as (
        select n.number, n.clips from public.voice_versions as n
        where n.voice_id = p_voice.id and n.tenant_id = p_voice.tenant_id and n.number = coalesce(p_number, n.number)
    ), latents as (
        select l.number, l.path, l.size_bytes from public.voice_latents as l
        where l.voice_id = p_voice.id and l.tenant_id = p_voice.tenant_id and l.number = coalesce(p_number, l.number)
    ), grantees as (
        select g.grantee_id, g.created_at from public.voice_grants as g
        where g.voice_id = p_voice.id and g.tenant_id = p_voice.tenant_id
    ), objects as (
        select 1 as part, v.number, c.ordinality, c.clip ->> 'path' as path, c.clip -> 'size_bytes' as size_bytes
        from versions as v cross join jsonb_array_elements(v.clips) with ordinality as c (clip, ordinality)
        union all
        select 2, l.number, 0, l.path, to_jsonb(l.size_bytes) from latents as l
    )
    select jsonb_build_object(
        'voice_id', p_voice.id,
        'rows', (select count(*) from versions) + (select count(*) from latents)
            + case when p_number is null then 1 + (select count(*) from grantees) else 0 end,
        'objects', (select coalesce(jsonb_agg(
            jsonb_build_object('path', o.path, 'size_bytes', o.size_bytes)
            order by o.part, o.number, o.ordinality, o.path
        ), '[]') from objects as o),
        'tenant_ids', jsonb_build_array(p_voice.tenant_id)
            || (select coalesce(jsonb_agg(g.grantee_id order by g.created_at, g.grantee_id), '[]') from grantees as g)
    );
$$;

create function public.delete_voice(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_number constant integer := (p ->> 'version')::integer;
    v_voice public.voices;
    v_numbers integer[];
    v_purge jsonb;
begin
    -- Before the purge is looked for: whoever waits for this row while the same request deletes it, finds that then.
    select * into v_voice from public.voices
    where id = p ->> 'voice_id' and tenant_id = p ->> 'tenant_id' for update;
    select d.purge into v_purge from public.voice_purges as d
    where d.tenant_id = p ->> 'tenant_id' and d.request_id = p ->> 'request_id';
    if v_purge is not null or v_voice.id is null then
        return jsonb_build_object('purge', v_purge);
    end if;
    v_numbers := array(
        select n.number from public.voice_versions as n
        where n.voice_id = v_voice.id and n.tenant_id = v_voice.tenant_id
    );
    if v_number is not null and not v_number = any (v_numbers) then
        return '{"purge": null}'::jsonb;
    elsif v_number is not null and cardinality(v_numbers) = 1 then
        raise exception using errcode = 'XT400', message = 'invalid_input',
            detail = 'voice_id: this is the only version of the voice: delete the voice instead';
    end if;
    v_purge := private.voice_purge(v_voice, v_number);
    if v_number is null then
        delete from public.voices where id = v_voice.id and tenant_id = v_voice.tenant_id;
    else
        delete from public.voice_versions
        where voice_id = v_voice.id and tenant_id = v_voice.tenant_id and number = v_number;
    end if;
    insert into public.voice_purges (tenant_id, request_id, purge, created_at)
    values (v_voice.tenant_id, p ->> 'request_id', v_purge, v_now);
    return jsonb_build_object('purge', v_purge);
end;
$$;

-- False if the version is gone.
create function public.note_voice_latents(p jsonb, p_now timestamptz default null) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
begin
    insert into public.voice_latents (voice_id, tenant_id, number, path, size_bytes)
    select n.voice_id, n.tenant_id, n.number, p ->> 'path', (p ->> 'size_bytes')::bigint
    from public.voice_versions as n
    where n.voice_id = p ->> 'voice_id' and n.tenant_id = p ->> 'tenant_id'
        and n.number = (p ->> 'version')::integer
    for key share
    on conflict (voice_id, number, path) do update set size_bytes = excluded.size_bytes;
    return found;
end;
$$;


-- Who may call what. Postgres lets everybody call a new function.

revoke all on function
    private.seen_voice(public.voices, text, integer),
    private.add_voice_version(public.voices, jsonb, timestamptz),
    private.voice_purge(public.voices, integer),
    public.get_voice(jsonb, timestamptz),
    public.list_voices(jsonb, timestamptz),
    public.create_voice(jsonb, timestamptz),
    public.update_voice(jsonb, timestamptz),
    public.share_voice(jsonb, timestamptz),
    public.unshare_voice(jsonb, timestamptz),
    public.delete_voice(jsonb, timestamptz),
    public.note_voice_latents(jsonb, timestamptz)
    from public, anon, authenticated;
grant execute on function
    private.seen_voice(public.voices, text, integer),
    private.add_voice_version(public.voices, jsonb, timestamptz),
    private.voice_purge(public.voices, integer),
    public.get_voice(jsonb, timestamptz),
    public.list_voices(jsonb, timestamptz),
    public.create_voice(jsonb, timestamptz),
    public.update_voice(jsonb, timestamptz),
    public.share_voice(jsonb, timestamptz),
    public.unshare_voice(jsonb, timestamptz),
    public.delete_voice(jsonb, timestamptz),
    public.note_voice_latents(jsonb, timestamptz)
    to service_role;
