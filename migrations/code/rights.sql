-- Who may do what. What changes messages is done by functions that run as the owner of the schema, and nobody may call
-- one to whom it was not granted; a role is granted a verb, and this file says what belongs to it. A verb is good for
-- every application; for one, see grants.sql.

-- What a verb needs: publish, consume, look (everything, payloads too), operate (look, and act). publish_app and
-- consume_app: what grant_app gives for either, of which the registry says for whom. Columns of data_staging that only
-- our functions write are in neither, and payloads in none but look, operate, consume and, where row security is on,
-- consume_app.
-- SQLSTATEs: MQ002 for another verb.
create or replace function integration.rights_of(p_verb text)
    returns table (kind text, object text, oid oid, columns text, want text)
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    -- What tells nothing and changes nothing: the clock (defaults of columns call it as whoever inserts), channels,
    -- locks of a session that listens; and what a role lacks.
    v_common constant text[] := '{clock, channel, due_channel, lock_class, latch_class, oldest_xid, oldest_writer,
        next_xid, somebody_is_parked, park, unpark, rights_of, lacks, own_rights, row_security}';
    v_consume constant text[] := '{claim, claim_suspect, has_suspects, waiting, take_turn, keep_places, is_gated,
        hold, lease_held, promote, next_due, report_runs, opens_in, step_output, save_step, effect_key, note_found,
        complete, complete_many, reply,
        claim_in_parts, settle, settle_or_owe, fail, reject, snooze, release, extend, was_settled, still_mine,
        taken_from, is_drained, register, beat, hold_session_lock, release_session_lock, deregister, give_back, ring,
        rescue, rescue_and_promote, lead, fold, retire, purge_expired, ensure_partitions, drop_old_partitions,
        note_cleaned, check_is_due, recount, maintain, keep_topics, expire, step_forward_forgotten,
        is_set_aside, next_extract, extract_look, hello,
        take, settle_many, keep_alive, fence}';
    v_look   constant text[] := '{list, list_ranges, list_conditions, peek, errors, reason_pattern, backlog, target,
        target_settings, usual_settings, is_known, explain, explain_absent, explain_scheduled, explain_consumers,
        explain_locker, explain_asked, explain_steps, replied_in_words,
        explain_processing, explain_queue, explain_key, head_of_key, key_blockers, key_slot, failed_blocks,
        waiting_keys,
        accepts, closed_gates, breaker_of, target_states, policy, audit,
        last_event, since, in_words, time_in_words, shell_word, recent_traffic, minute_of, traffic_of, target_stats,
        audit_list, fold_ahead, check_counters, maintenance_due, audit_level, gates, rate_of, canaries_left,
        dead_owners,
        lost_because, actions_of, changes_of, outcomes_of, empty_in, ten_minutes, is_set_aside, is_owed,
        explain_set_aside, explain_breach, explain_expired, explain_coalesced, waits_under, expiry_reason, is_captured,
        keys_of_table, explain_routed, routes, takes, next_tick,
        tick_after, cron_field,
        partition_ends, rights, granted, is_drained}';
    v_names  text[];
begin
    v_names := case p_verb
        when 'publish' then '{publish, publish_many, published_under, must_be_message, expire_after,
            replace_waiting, coalesce_into, take_coalesce_keys,
            request, reply_to_of, reply_channel, answers, give_up, await_reply}'::text[]
        when 'publish_app' then '{publish, publish_many, published_under, must_be_message, expire_after,
            replace_waiting, coalesce_into, take_coalesce_keys,
            request, reply_to_of, reply_channel, answers, give_up, await_reply, must_publish}'::text[]
        when 'consume' then v_consume
        when 'consume_app' then v_consume
        when 'look' then v_look
        when 'operate' then v_look || '{cancel, redrive, retry, move, evict, set_target, forget_target, pause,
            resume, open_breaker, close_breaker, ring, promote, rescue, rescue_and_promote, lead, fold, retire,
            purge_expired, ensure_partitions, drop_old_partitions, note_cleaned, check_is_due, recount, maintain,
            step_forward_forgotten, unblock, redrive_many, look_again, subscribe, unsubscribe, replay, keep_topics,
            schedule, unschedule, pause_schedule, fire_schedule, fire_due, expire, capture, uncapture,
            forget_extract, pause_extract, next_extract, extract_look, extract_more, extract_due,
            extract_asks, extract_take, note_extract,
            set_contract, forget_contract}'::text[] end;
    if v_names is null then
        raise exception 'there is no verb "%"', p_verb
            using errcode = 'MQ002', hint = 'use publish, consume, look or operate';
    end if;
    v_names := v_common || v_names;
    return query
        select 'schema', 'integration', n.oid, null::text, 'usage' from pg_namespace n where n.nspname = 'integration'
        union all
        select 'table', c.oid::regclass::text, c.oid, r.columns, r.want
          from (values ('publish', 'data_staging', null, 'insert'), ('publish', 'data_staging', 'id', 'select'),
                       -- Consumers in plain SQL are clients, too.
                       ('consume', 'data_staging', null, 'select'), ('consume', 'data_staging', null, 'update'),
                       ('consume', 'processes', null, 'select'), ('consume', 'set_aside', null, 'select'),
                        ('consume', 'targets', null, 'select'),
                       ('consume', 'places', null, 'select'), ('consume', 'settings', null, 'select'),
                       ('consume', 'retry_policies', null, 'select'), ('consume', 'breakers', null, 'select'),
                       ('operate', 'settings', null, 'update'), ('operate', 'targets', null, 'insert'),
                       ('operate', 'targets', null, 'update'), ('operate', 'retry_policies', null, 'insert'),
                       ('operate', 'retry_policies', null, 'update'),
                       ('publish', 'migrations', null, 'select'), ('consume', 'migrations', null, 'select'),
                       ('publish_app', 'data_staging', 'id', 'select'), ('publish_app', 'migrations', null, 'select'),
                       ('consume_app', 'targets', null, 'select'), ('consume_app', 'places', null, 'select'),
                       ('consume_app', 'migrations', null, 'select'))
               r (verb, relation, columns, want)
          join pg_class c on c.relnamespace = 'integration'::regnamespace and c.relname = r.relation
         where r.verb = p_verb
        union all
        select 'table', c.oid::regclass::text, c.oid, x.name, r.want
          from (values ('publish_app', 'insert', '{source_app, target_app, record_type, data, status, priority,
                            available_at, max_retries, headers, ordering_key, dedup_key}'::text[]),
                       ('consume_app', 'select', '{id, source_app, target_app, record_type, data, status, priority,
                            retry_count, error_message, created_at, updated_at, processed_at, available_at, attempt,
                            headers, ordering_key}'),
                       ('consume_app', 'update', '{status, retry_count, error_message, updated_at, processed_at}'))
               r (verb, want, names)
         cross join lateral unnest(r.names) x (name)
          join pg_class c on c.oid = 'integration.data_staging'::regclass
         where r.verb = p_verb and (p_verb = 'publish_app' or c.relrowsecurity)
        union all
        select 'table', c.oid::regclass::text, c.oid, null, 'select' from pg_class c
         where c.relnamespace = 'integration'::regnamespace and c.relkind in ('r', 'p', 'v')
           and not c.relispartition and c.relname not like 'gate%' and p_verb in ('look', 'operate')
        union all
        select 'sequence', c.oid::regclass::text, c.oid, null, r.want
          from (values ('publish', 'usage'), ('look', 'select'), ('operate', 'select')) r (verb, want)
          join pg_class c on c.relnamespace = 'integration'::regnamespace and c.relname = 'data_staging_id_seq'
         where r.verb = p_verb
        union all
        select 'function', p.oid::regprocedure::text, p.oid, null, 'execute'
          from pg_proc p where p.pronamespace = 'integration'::regnamespace and p.proname = any (v_names);
end $$;

-- What the asking role lacks of a verb; the first right says whether it is meant to have it. Empty: nothing.
create or replace function integration.lacks(p_verb text) returns table (object text, want text)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.object, r.want || coalesce(' (' || r.columns || ')', '') from integration.rights_of(p_verb) r
     where not case r.kind
               when 'schema' then has_schema_privilege(r.oid, r.want)
               when 'function' then has_function_privilege(r.oid, r.want)
               when 'sequence' then has_sequence_privilege(r.oid, r.want)
               else has_table_privilege(r.oid, r.want)
                    or r.columns is not null and has_column_privilege(r.oid, r.columns, r.want) end
$$;

-- Gives a role what a verb needs. For the owner of the schema; again at any time.
-- SQLSTATEs: MQ002 for a verb that does not exist, 42704 for a role.
create or replace function integration.grant_to(p_role name, p_verb text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform integration.each_right(p_role, p_verb, 'grant %s on %s to %I');
end $$;

-- Takes what a verb needs from a role, and gives it back what its other verbs need.
-- SQLSTATEs: as grant_to.
create or replace function integration.revoke_from(p_role name, p_verb text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_others text[] := array(
        select g.verb from integration.granted() g where g.role_name = p_role and g.verb <> p_verb);
    v_other  text;
begin
    perform integration.each_right(p_role, p_verb, 'revoke %s on %s from %I');
    foreach v_other in array v_others loop
        perform integration.grant_to(p_role, v_other);
    end loop;
end $$;

-- For grant_to and revoke_from.
-- Locks: the registry: two at a time would change the same rights in the catalogue, and one of them fail.
create or replace function integration.each_right(p_role name, p_verb text, p_statement text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_statement text;
begin
    lock table integration.grants in share row exclusive mode;
    for v_statement in
        select format(p_statement, r.want || coalesce(' (' || r.columns || ')', ''),
                      case r.kind when 'function' then 'routine' else r.kind end || ' ' || string_agg(r.object, ', '),
                      p_role)
          from integration.rights_of(p_verb) r group by r.kind, r.want, r.columns
    loop
        execute v_statement;
    end loop;
end $$;

-- Which roles were granted which verb: those that may call the function that stands for it and have the right to all
-- of the table that goes with it; who has parts of a verb for some applications is in the registry.
create or replace function integration.granted() returns table (role_name name, verb text)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Once, however many functions have the name.
    select distinct g.rolname, v.verb
      from (values ('publish', 'publish', 'INSERT'), ('claim', 'consume', 'UPDATE'), ('audit', 'look', 'SELECT'),
                   ('pause', 'operate', 'SELECT')) v (function, verb, want)
      join pg_proc p on p.pronamespace = 'integration'::regnamespace and p.proname = v.function
      join pg_class t on t.oid = 'integration.data_staging'::regclass
     cross join lateral aclexplode(p.proacl) a
      join pg_roles g on g.oid = a.grantee
     where a.grantee <> p.proowner and a.privilege_type = 'EXECUTE'
       and exists (select from aclexplode(t.relacl) x where x.grantee = g.oid and x.privilege_type = v.want)
       and (v.verb <> 'look' or not has_function_privilege(g.oid, 'integration.pause(text,text,interval)', 'execute'))
    -- Not all: a function may have several signatures.
    union
    select g.rolname, v.verb
      from integration.grants r join pg_roles g on g.rolname = r.role_name
     cross join lateral (values ('publish_app', r.publish), ('consume_app', r.consume)) v (verb, granted)
     where v.granted group by g.rolname, v.verb
$$;

-- Called whenever the code was applied: nobody may call what is new to whom it was not granted, and who was granted a
-- verb may call what is new in it. Default privileges are left alone: PostgreSQL takes EXECUTE from PUBLIC only for all
-- that a role will ever create, in every schema. Called by people after a restore into a cluster whose roles were made
-- later: gives these what the registry says, the policies included that could not be made without them.
-- Locks: ACCESS EXCLUSIVE on data_staging, where row security is on and a policy is missing.
create or replace function integration.renew_rights() returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_functions text;
begin
    select string_agg(p.oid::regprocedure::text, ', ') into v_functions
      from pg_proc p where p.pronamespace = 'integration'::regnamespace and pg_has_role(p.proowner, 'usage')
       and (p.proacl is null or exists (select from aclexplode(p.proacl) a where a.grantee = 0));
    if v_functions is not null then
        execute format('revoke execute on routine %s from public', v_functions);
    end if;
    perform integration.grant_to(g.role_name, g.verb) from integration.granted() g;
    perform integration.settle_policies(g.role_name)
       from (select distinct r.rolname as role_name
               from integration.grants x join pg_roles r on r.rolname = x.role_name) g
      where not exists (select from pg_policy p where p.polrelid = 'integration.data_staging'::regclass
                           and p.polname = 'see_' || md5(g.role_name));
end $$;

-- Makes another role the owner of the schema and of all that is in it, best one that cannot log in and owns nothing
-- else. Who has rights keeps them. From then on, who migrates and who grants has to be a member of that role. For the
-- owner, or a superuser, who is a member of the new owner already.
-- Locks: ACCESS EXCLUSIVE on every table for a moment. SQLSTATEs: 55P03 when they are not to be had in two seconds
-- (nothing is changed then: call it again), MQ002 for who would lock himself out, 42704 for a role that does not exist.
create or replace function integration.hand_over(p_role name) returns void
    language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2 s' as $$
declare
    v_statement text;
begin
    -- Not pg_has_role(), which is true of superusers: migrate asks for more (see ownership.sql).
    if p_role <> current_user and not exists (
        with recursive mine as (
            select m.roleid from pg_auth_members m join pg_roles r on r.oid = m.member where r.rolname = current_user
            union select m.roleid from pg_auth_members m join mine on m.member = mine.roleid)
        select from mine where mine.roleid = quote_ident(p_role)::regrole) then
        raise exception '% is no member of %, and could not migrate any more', current_user, p_role
            using errcode = 'MQ002', hint = format('grant %I to %I', p_role, current_user);
    end if;
    -- In the order in which everybody else takes them.
    lock table integration.data_staging in access exclusive mode;
    lock table integration.grants in access exclusive mode;
    execute format('alter schema integration owner to %I', p_role);
    for v_statement in
        select format('alter table %s owner to %I', c.oid::regclass, p_role)
          from pg_class c
         where c.relnamespace = 'integration'::regnamespace
           and (c.relkind in ('r', 'p', 'v')
                or c.relkind = 'S' and not exists (
                    select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                       and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')))
        union all
        select format('alter routine %s owner to %I', p.oid::regprocedure, p_role)
          from pg_proc p where p.pronamespace = 'integration'::regnamespace
    loop
        execute v_statement;
    end loop;
end $$;
