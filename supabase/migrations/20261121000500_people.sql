-- Users, their personas, what these have said, and what was removed of it.
--
-- A person who signs in with Supabase Auth and is linked by users.auth_user_id may read the own user, its personas and
-- their messages. Members of a tenant (tenant_members) may not: these are other people's conversations.

create table public.users (
    id text not null,
    tenant_id text not null references public.tenants (id) on delete cascade,
    external_id text not null,
    email text,
    auth_user_id uuid,
    created_at timestamptz not null,
    primary key (tenant_id, id),
    unique (tenant_id, external_id)
);
create index users_of_tenant on public.users (tenant_id, created_at, id);
-- No foreign key into auth.users: it would tell a tenant which ids other tenants' people have.
create index users_of_auth_user on public.users (auth_user_id) where auth_user_id is not null;

create table public.personas (
    id text not null,
    tenant_id text not null references public.tenants (id) on delete cascade,
    user_id text not null,
    name text not null,
    persona_prompt text not null,
    voice_id text,
    created_at timestamptz not null,
    messages_added bigint not null default 0,
    primary key (tenant_id, id),
    foreign key (tenant_id, user_id) references public.users (tenant_id, id) on delete cascade
) with (fillfactor = 80);
create index personas_of_tenant on public.personas (tenant_id, created_at, id);
create index personas_of_user on public.personas (tenant_id, user_id, created_at, id);

create table public.messages (
    id text not null,
    tenant_id text not null references public.tenants (id) on delete cascade,
    persona_id text not null,
    role text not null check (role in ('user', 'assistant', 'system')),
    content text not null,
    created_at timestamptz not null,
    position bigint not null check (position >= 1),
    primary key (tenant_id, persona_id, id),
    unique (tenant_id, persona_id, position),
    foreign key (tenant_id, persona_id) references public.personas (tenant_id, id) on delete cascade
);
create index messages_of_tenant on public.messages (tenant_id, created_at);

-- By the request that asked for it, so that a deletion whose answer was lost is answered again.
create table public.removals (
    id text not null,
    tenant_id text not null references public.tenants (id) on delete cascade,
    removed jsonb not null,
    created_at timestamptz not null,
    primary key (tenant_id, id)
);


-- Who may read what

-- Definers, because one policy may not ask a table that another policy closes; unexposed, so that only policies call
-- them.
create function private.my_users() returns table (tenant_id text, id text)
language sql stable security definer set search_path = '' as $$
    select u.tenant_id, u.id from public.users as u where u.auth_user_id = (select auth.uid());
$$;

create function private.my_personas() returns table (tenant_id text, id text)
language sql stable security definer set search_path = '' as $$
    select p.tenant_id, p.id from public.users as u
    join public.personas as p on p.tenant_id = u.tenant_id and p.user_id = u.id
    where u.auth_user_id = (select auth.uid());
$$;

alter table public.users enable row level security;
alter table public.personas enable row level security;
alter table public.messages enable row level security;
alter table public.removals enable row level security;

revoke all on public.users, public.personas, public.messages, public.removals
    from public, anon, authenticated, service_role;
grant select, insert, update, delete on public.users, public.personas, public.messages, public.removals
    to service_role;
grant select on public.users, public.personas, public.messages to authenticated;

create policy own_user on public.users for select to authenticated
    using (auth_user_id = (select auth.uid()));
create policy own_personas on public.personas for select to authenticated
    using ((tenant_id, user_id) in (select mine.tenant_id, mine.id from private.my_users() as mine));
create policy own_messages on public.messages for select to authenticated
    using ((tenant_id, persona_id) in (select mine.tenant_id, mine.id from private.my_personas() as mine));


-- Removals. Whoever removes has locked what is to go, or found nothing: only then does nobody else remove it too.

create function private.removal(p jsonb) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select removed from public.removals where tenant_id = p ->> 'tenant_id' and id = p ->> 'request_id';
$$;

create function private.keep_removal(p jsonb, p_removed jsonb, p_now timestamptz) returns jsonb
language sql volatile security invoker set search_path = '' as $$
    insert into public.removals (id, tenant_id, removed, created_at)
    values (p ->> 'request_id', p ->> 'tenant_id', p_removed, coalesce(p_now, clock_timestamp()))
    returning removed;
$$;

create function private.raise_not_found(p_what text, p_id text) returns void
language plpgsql stable security invoker set search_path = '' as $$
begin
    raise exception using errcode = 'XT404', message = p_what || '_not_found', detail = format('no %s ''%s''', p_what, p_id);
end;
$$;


-- Users

create function public.put_user(p jsonb, p_now timestamptz default null) returns jsonb
language sql volatile security invoker set search_path = '' as $$
    insert into public.users as u (id, tenant_id, external_id, email, auth_user_id, created_at) values (
        p ->> 'id', p ->> 'tenant_id', p ->> 'external_id', p ->> 'email', (p ->> 'auth_user_id')::uuid,
        (p ->> 'created_at')::timestamptz
    ) on conflict (tenant_id, external_id) do update set
        email = excluded.email, auth_user_id = excluded.auth_user_id
    returning to_jsonb(u);
$$;

create function public.list_users(p jsonb, p_now timestamptz default null) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select coalesce(jsonb_agg(to_jsonb(u)), '[]') from (
        select * from public.users
        where tenant_id = p ->> 'tenant_id'
            and (created_at, id) > ((p ->> 'after_time')::timestamptz, p ->> 'after_id')
        order by created_at, id limit (p ->> 'limit')::integer
    ) as u;
$$;

create function public.delete_user(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_is_there boolean;
    v_removed jsonb;
    v_messages integer;
    v_personas integer;
begin
    perform from public.users where tenant_id = p ->> 'tenant_id' and id = p ->> 'id' for update;
    v_is_there := found;
    v_removed := private.removal(p);
    if v_removed is not null then
        return v_removed;
    end if;
    if not v_is_there then
        perform private.raise_not_found('user', p ->> 'id');
    end if;
    perform from public.personas where tenant_id = p ->> 'tenant_id' and user_id = p ->> 'id' order by id for update;
    delete from public.messages as m using public.personas as c
    where c.tenant_id = p ->> 'tenant_id' and c.user_id = p ->> 'id'
        and m.tenant_id = c.tenant_id and m.persona_id = c.id;
    get diagnostics v_messages = row_count;
    delete from public.personas where tenant_id = p ->> 'tenant_id' and user_id = p ->> 'id';
    get diagnostics v_personas = row_count;
    delete from public.users where tenant_id = p ->> 'tenant_id' and id = p ->> 'id';
    return private.keep_removal(
        p, jsonb_build_object('users', 1, 'personas', v_personas, 'messages', v_messages), p_now
    );
end;
$$;


-- Personas

create function public.create_persona(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
begin
    perform from public.users where tenant_id = p ->> 'tenant_id' and id = p ->> 'user_id' for key share;
    if not found then
        perform private.raise_not_found('user', p ->> 'user_id');
    end if;
    insert into public.personas (id, tenant_id, user_id, name, persona_prompt, voice_id, created_at) values (
        p ->> 'id', p ->> 'tenant_id', p ->> 'user_id', p ->> 'name', p ->> 'persona_prompt', p ->> 'voice_id',
        (p ->> 'created_at')::timestamptz
    ) on conflict (tenant_id, id) do nothing;
    return (
        select to_jsonb(c) from public.personas as c where c.tenant_id = p ->> 'tenant_id' and c.id = p ->> 'id'
    );
end;
$$;

create function public.list_personas(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql stable security invoker set search_path = '' as $$
begin
    if p ->> 'user_id' is null then
        return (
            select coalesce(jsonb_agg(to_jsonb(c)), '[]') from (
                select * from public.personas
                where tenant_id = p ->> 'tenant_id'
                    and (created_at, id) > ((p ->> 'after_time')::timestamptz, p ->> 'after_id')
                order by created_at, id limit (p ->> 'limit')::integer
            ) as c
        );
    end if;
    return (
        select coalesce(jsonb_agg(to_jsonb(c)), '[]') from (
            select * from public.personas
            where tenant_id = p ->> 'tenant_id' and user_id = p ->> 'user_id'
                and (created_at, id) > ((p ->> 'after_time')::timestamptz, p ->> 'after_id')
            order by created_at, id limit (p ->> 'limit')::integer
        ) as c
    );
end;
$$;

-- What p -> 'changes' does not name stays as it is.
create function public.update_persona(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_changed jsonb;
begin
    update public.personas as c set
        name = coalesce(p -> 'changes' ->> 'name', name),
        persona_prompt = coalesce(p -> 'changes' ->> 'persona_prompt', persona_prompt),
        voice_id = case when p -> 'changes' ? 'voice_id' then p -> 'changes' ->> 'voice_id' else voice_id end
    where tenant_id = p ->> 'tenant_id' and id = p ->> 'id'
    returning to_jsonb(c) into v_changed;
    if not found then
        perform private.raise_not_found('persona', p ->> 'id');
    end if;
    return v_changed;
end;
$$;

create function public.delete_persona(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_is_there boolean;
    v_removed jsonb;
    v_messages integer;
begin
    perform from public.personas where tenant_id = p ->> 'tenant_id' and id = p ->> 'id' for update;
    v_is_there := found;
    v_removed := private.removal(p);
    if v_removed is not null then
        return v_removed;
    end if;
    if not v_is_there then
        perform private.raise_not_found('persona', p ->> 'id');
    end if;
    delete from public.messages where tenant_id = p ->> 'tenant_id' and persona_id = p ->> 'id';
    get diagnostics v_messages = row_count;
    delete from public.personas where tenant_id = p ->> 'tenant_id' and id = p ->> 'id';
    return private.keep_removal(
        p, jsonb_build_object('users', 0, 'personas', 1, 'messages', v_messages), p_now
    );
end;
$$;


-- Messages. Whoever adds or removes has locked the persona.

create function public.add_message(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_message public.messages;
    v_position bigint;
begin
    perform from public.personas where tenant_id = p ->> 'tenant_id' and id = p ->> 'persona_id' for no key update;
    if not found then
        perform private.raise_not_found('persona', p ->> 'persona_id');
    end if;
    select * into v_message from public.messages
    where tenant_id = p ->> 'tenant_id' and persona_id = p ->> 'persona_id' and id = p ->> 'id';
    if found then
        if (v_message.role, v_message.content) is distinct from (p ->> 'role', p ->> 'content') then
            raise exception using errcode = 'XT409', message = 'idempotency_conflict',
                detail = 'this message_id was used before in this conversation with another role or content';
        end if;
        return to_jsonb(v_message);
    end if;
    -- Counted by the persona, not by what is left of its messages: a reader's place must not be given anew.
    update public.personas set messages_added = messages_added + 1
    where tenant_id = p ->> 'tenant_id' and id = p ->> 'persona_id'
    returning messages_added into v_position;
    insert into public.messages (id, tenant_id, persona_id, role, content, created_at, position) values (
        p ->> 'id', p ->> 'tenant_id', p ->> 'persona_id', p ->> 'role', p ->> 'content',
        (p ->> 'created_at')::timestamptz, v_position
    ) returning * into v_message;
    return to_jsonb(v_message);
end;
$$;

create function public.list_messages(p jsonb, p_now timestamptz default null) returns jsonb
language sql stable security invoker set search_path = '' as $$
    select coalesce(jsonb_agg(to_jsonb(m)), '[]') from (
        select * from public.messages
        where tenant_id = p ->> 'tenant_id' and persona_id = p ->> 'persona_id' and position > (p ->> 'after')::bigint
        order by position limit (p ->> 'limit')::integer
    ) as m;
$$;

-- One message, or where p ->> 'id' is null all of the conversation.
create function public.delete_messages(p jsonb, p_now timestamptz default null) returns jsonb
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_is_there boolean;
    v_removed jsonb;
    v_messages integer;
begin
    perform from public.personas where tenant_id = p ->> 'tenant_id' and id = p ->> 'persona_id' for no key update;
    v_is_there := found;
    v_removed := private.removal(p);
    if v_removed is not null then
        return v_removed;
    end if;
    if not v_is_there then
        perform private.raise_not_found('persona', p ->> 'persona_id');
    end if;
    delete from public.messages
    where tenant_id = p ->> 'tenant_id' and persona_id = p ->> 'persona_id' and id = coalesce(p ->> 'id', id);
    get diagnostics v_messages = row_count;
    if v_messages = 0 and p ->> 'id' is not null then
        perform private.raise_not_found('message', p ->> 'id');
    end if;
    return private.keep_removal(
        p, jsonb_build_object('users', 0, 'personas', 0, 'messages', v_messages), p_now
    );
end;
$$;


revoke all on function
    private.my_users(),
    private.my_personas(),
    private.removal(jsonb),
    private.keep_removal(jsonb, jsonb, timestamptz),
    private.raise_not_found(text, text),
    public.put_user(jsonb, timestamptz),
    public.list_users(jsonb, timestamptz),
    public.delete_user(jsonb, timestamptz),
    public.create_persona(jsonb, timestamptz),
    public.list_personas(jsonb, timestamptz),
    public.update_persona(jsonb, timestamptz),
    public.delete_persona(jsonb, timestamptz),
    public.add_message(jsonb, timestamptz),
    public.list_messages(jsonb, timestamptz),
    public.delete_messages(jsonb, timestamptz)
    from public, anon, authenticated;
grant execute on function private.my_users(), private.my_personas() to authenticated, service_role;
grant execute on function
    private.removal(jsonb),
    private.keep_removal(jsonb, jsonb, timestamptz),
    private.raise_not_found(text, text),
    public.put_user(jsonb, timestamptz),
    public.list_users(jsonb, timestamptz),
    public.delete_user(jsonb, timestamptz),
    public.create_persona(jsonb, timestamptz),
    public.list_personas(jsonb, timestamptz),
    public.update_persona(jsonb, timestamptz),
    public.delete_persona(jsonb, timestamptz),
    public.add_message(jsonb, timestamptz),
    public.list_messages(jsonb, timestamptz),
    public.delete_messages(jsonb, timestamptz)
    to service_role;
