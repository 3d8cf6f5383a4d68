-- What is asked of whoever acts for one application only: whether it may (see grants.sql), and whether it fits.
--
-- Whoever has a verb without limits is never looked up: it has the right to INSERT into, or UPDATE, all of
-- data_staging, and who is limited has rights on columns, or none.

-- AFTER INSERT, once per statement and before anything else of ours: whether who inserts may. Runs in the name of the
-- inserter, whom no function between can hide: a role, a SECURITY DEFINER function of an application, or what
-- autovacuum evaluates for an application's index.
-- SQLSTATEs: 42501 for a source, target or priority that was not granted; 53400 when too many messages wait.
create or replace function integration.on_publishing() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    perform integration.must_publish(current_user, p.source_app, p.target_app, p.priority)
       from (select x.source_app, x.target_app, max(x.priority) as priority
               from published x group by x.source_app, x.target_app) p;
    return null;
end $$;

-- The condition is asked by the server itself, before it would call anything.
create or replace trigger data_staging_allowed after insert on integration.data_staging
    referencing new table as published
    for each statement
    when (not pg_catalog.has_table_privilege('integration.data_staging'::pg_catalog.regclass, 'insert'))
    execute function integration.on_publishing();

-- Refuses what a role may not publish. Telling is all it does, so whoever may publish may call it. Of several grants
-- that allow the target (its own, and those of roles it is in) the least limited counts.
create or replace function integration.must_publish(p_role name, p_source text, p_target text, p_priority integer)
    returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v integration.grants;
begin
    select g.* into v from integration.grants g
     where g.role_name = p_role and g.app = p_source and g.publish and g.routes && array[p_target, '*'];
    if not found then
        select g.* into v from integration.grants g join pg_roles r on r.rolname = g.role_name
         where g.app = p_source and g.publish and g.routes && array[p_target, '*']
           and pg_has_role(p_role, r.oid, 'usage')
         order by g.max_priority desc nulls first, g.max_pending desc nulls first limit 1;
    end if;
    if v.app is null then
        raise insufficient_privilege using
            message = format('role %s may not publish as %s to %s', p_role, p_source, p_target),
            hint = integration.grant_call(p_role, p_source, p_target, false);
    end if;
    if p_priority > v.max_priority then
        raise insufficient_privilege using
            message = format('role %s may not publish as %s with priority %s', p_role, p_source, p_priority),
            hint = format('its highest priority is %s', v.max_priority);
    end if;
    if v.max_pending is not null then
        perform integration.must_fit(p_source, p_target, v.max_pending);
    end if;
end $$;

-- Refuses a publish after which more than p_most messages of the source would wait for the target. Counted only when
-- the ids given out since the last count could be that many: never more can have come. Exact but for what other
-- transactions publish at the same moment, of which none sees the other's.
-- Locks: the row of the last count, SKIP LOCKED. SQLSTATEs: 53400.
create or replace function integration.must_fit(p_source text, p_target text, p_most integer) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_last  bigint := pg_sequence_last_value('integration.data_staging_id_seq');
    v_count integer;
begin
    if exists (select from integration.backlogs b
                where b.source_app = p_source and b.target_app = p_target and b.messages + v_last - b.last_id <= p_most)
    then
        return;
    end if;
    v_count := integration.waiting_of(p_source, p_target, p_most + 1::bigint);
    if v_count > p_most then
        raise exception 'too many messages of % wait for %: at most % may', p_source, p_target, p_most
            using errcode = 'configuration_limit_exceeded',
                hint = 'publish again when some were handled, or have the limit (max_pending) raised';
    end if;
    -- Other isolation levels fail where somebody else has counted since they began.
    if current_setting('transaction_isolation') = 'read committed' then
        perform from integration.backlogs b where b.source_app = p_source and b.target_app = p_target
            for no key update skip locked;
        if found then
            update integration.backlogs b set messages = v_count, last_id = v_last
             where b.source_app = p_source and b.target_app = p_target;
        end if;
    end if;
end $$;

-- How many messages of a source wait for a target; p_most when there are more.
create or replace function integration.waiting_of(p_source text, p_target text, p_most bigint) returns integer
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
begin
    return (select count(*)
              from (select from integration.data_staging d
                     where d.target_app = p_target and d.status = 'pending' and d.source_app = p_source
                    union all
                    select from integration.data_staging d
                     where d.target_app = p_target and d.status = 'scheduled' and d.source_app = p_source
                     limit p_most) w);
end $$;

-- Whether the asking role may consume for some applications only, if for any. Everything that consumes runs as the
-- owner, so this goes by who logged in, or whom SET ROLE chose. One expression, because each claim and settle asks;
-- the right to create triggers tells the owner of the table and superusers.
create or replace function integration.is_limited() returns boolean
    language sql volatile as $$
    select not (has_table_privilege(integration.asking_role(), 'integration.data_staging'::regclass, 'update')
        and (not has_table_privilege(integration.asking_role(), 'integration.data_staging'::regclass, 'trigger')
             or integration.acts_himself()))
$$;

-- For owners and superusers: true, and an error in what the server runs for the owners of other tables while they
-- analyze, reindex or refresh these, autovacuum among them: that is not what they have asked for. UNLISTEN is refused
-- there, and does nothing in any other place.
create or replace function integration.acts_himself() returns boolean
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    unlisten doorbell_nobody;
    return true;
end $$;

-- The applications for which the asking role may consume, where they are not all.
create or replace function integration.consumed_apps() returns text[]
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_role name := integration.asking_role();
begin
    return array(
        select g.app from integration.grants g where g.role_name = v_role and g.consume
        union
        select g.app from integration.grants g join pg_roles r on r.rolname = g.role_name
         where g.consume and pg_has_role(v_role, r.oid, 'usage'));
end $$;

-- For who is limited: refuses who may not consume for all of the targets; and with p_owner, whom must_own refuses.
-- SQLSTATEs: 42501.
create or replace function integration.must_consume(p_targets text[], p_owner text default null) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_target text;
begin
    select t into v_target from unnest(p_targets) t where t <> all (integration.consumed_apps()) or t is null limit 1;
    if found then
        raise insufficient_privilege using
            message = format('role %s may not consume for %s', integration.asking_role(), v_target),
            hint = integration.grant_call(integration.asking_role(), v_target, null, true);
    end if;
    if p_owner is not null then
        perform integration.must_own(p_owner);
    end if;
end $$;

-- For who is limited: refuses who may not consume for the targets of all the messages; those that are not there are
-- nobody's, and what settle_owed is about to write may be written by anybody. SQLSTATEs: 42501.
create or replace function integration.must_settle(p_ids bigint[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_apps text[] := integration.consumed_apps();
    v_id   bigint;
begin
    select d.id into v_id from integration.data_staging d
     where d.id = any (p_ids) and d.target_app <> all (v_apps)
       and not exists (select from integration.set_aside s
                        where s.id = d.id and s.created_at = d.created_at and s.next_look = '-infinity')
     limit 1;
    if found then
        raise insufficient_privilege using
            message = format('role %s may not consume what message %s was published for',
                integration.asking_role(), v_id);
    end if;
end $$;

-- For who is limited: refuses who did not register the owner; one that is not registered is nobody's.
-- SQLSTATEs: 42501.
create or replace function integration.must_own(p_owner text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from integration.processes c
                where c.owner = p_owner and c.role_name is distinct from integration.asking_role()) then
        raise insufficient_privilege using
            message = format('process %s was not registered by role %s', p_owner, integration.asking_role());
    end if;
end $$;

-- What to type, so that a role may what it may now and also publish to a target, or consume.
create or replace function integration.grant_call(p_role name, p_app text, p_route text, p_consume boolean)
    returns text
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v        integration.grants;
    v_routes text[];
begin
    select g.* into v from integration.grants g where g.role_name = p_role and g.app = p_app;
    v_routes := array_remove(v.routes || p_route, null);
    return format('as the owner of the schema: select integration.grant_app(%L, %L%s%s%s%s)', p_app, p_role,
        ', p_publish_to => ' || quote_literal(nullif(v_routes, '{}')),
        case when p_consume or v.consume then ', p_consume => true' end,
        ', p_max_priority => ' || v.max_priority, ', p_max_pending => ' || v.max_pending);
end $$;
