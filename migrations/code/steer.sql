-- What operators do to targets and processes.

-- Sends messages to another target: pending and scheduled ones wait there as they did, failed and cancelled ones stay
-- what they are. Returns the ids that were; others are being handled, completed, there already or not there at all.
-- Audited as rewritten, with the target they had.
-- Locks and SQLSTATEs: those of operate_on; MQ002 for a target that has no name.
create or replace function integration.move(p_ids bigint[], p_target text) returns setof bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if char_length(p_target) between 1 and integration.name_chars_max() is not true then
        raise exception 'a target has a name of 1 to % characters', integration.name_chars_max()
            using errcode = 'MQ002';
    end if;
    return query select integration.operate_on('move',
        array(select d.id from integration.data_staging d where d.id = any (p_ids) and d.target_app <> p_target),
        array['pending', 'scheduled', 'failed', 'cancelled'], format('select integration.move_rows($1, %L)', p_target));
end $$;

create or replace function integration.move_rows(p_ids bigint[], p_target text) returns setof bigint
    language sql set search_path = pg_catalog, pg_temp as $$
    update integration.data_staging d
       set target_app = p_target, updated_at = integration.clock(),
           requeued_at = case when d.status = 'pending' then integration.clock() else d.requeued_at end
     where d.id = any (p_ids) and d.target_app <> p_target
    returning d.id
$$;

-- Takes from a process, or from who claims under that name, all that it has in hand, and its registration: a process
-- that lives finds out at its next beat, stops those handlers, and goes on under a new name. Costs the messages neither
-- a retry nor suspicion. Returns how many were put back; null: nobody of that name is registered, or has any.
-- Locks: the rows.
create or replace function integration.evict(p_owner text) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_known boolean := exists (select from integration.processes c where c.owner = p_owner);
    v_count integer := integration.deregister(p_owner);
begin
    if not v_known and v_count = 0 then
        return null;
    end if;
    insert into integration.audit_log (app_name, action, owner, details)
    values (integration.actor(), 'evicted', p_owner, jsonb_build_object('messages', v_count));
    return v_count;
end $$;

-- The settings that a target may have of its own; a pause is no setting.
create or replace function integration.target_settings() returns text[]
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select '{bell, max_retries, max_crashes, backoff_base_ms, backoff_factor, backoff_cap_ms, max_in_flight, key_failed,
        foreign_lease, on_complete, completed_retention, failed_retention, breaker_key, kind, unrouted,
        rate_max, rate_per, expire_after}'::text[]
$$;

-- What a target has that says nothing: the defaults of the columns of targets.
create or replace function integration.usual_settings() returns jsonb
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select '{"bell": "on_demand", "on_complete": "keep", "kind": "queue", "unrouted": "keep",
        "rate_per": "00:00:01"}'::jsonb
$$;

-- Changes settings of a target, by name; null: as the installation has it. Returns them as they are now. Audited, with
-- what they were.
-- SQLSTATEs: MQ002 for a setting there is not, 22P02, 22023 and 23514 for a value it cannot have.
create or replace function integration.set_target(p_target text, p_settings jsonb) returns jsonb
    language plpgsql security definer set search_path = pg_catalog, pg_temp set intervalstyle = postgres as $$
declare
    v_unknown text;
    v_before  jsonb;
    v_new     integration.targets;
begin
    select k into v_unknown from jsonb_object_keys(p_settings) k
     where k <> all (integration.target_settings()) order by k limit 1;
    if v_unknown is not null then
        raise exception 'a target has no setting "%"', v_unknown using errcode = 'MQ002',
            hint = 'there are: ' || array_to_string(integration.target_settings(), ', ');
    end if;
    insert into integration.targets (target_app) values (p_target) on conflict do nothing;
    select to_jsonb(t) into v_before from integration.targets t where t.target_app = p_target for update;
    v_new := jsonb_populate_record(null::integration.targets, v_before || p_settings);
    update integration.targets t
       set bell = coalesce(v_new.bell, 'on_demand'), max_retries = v_new.max_retries, max_crashes = v_new.max_crashes,
           backoff_base_ms = v_new.backoff_base_ms, backoff_factor = v_new.backoff_factor,
           backoff_cap_ms = v_new.backoff_cap_ms, max_in_flight = v_new.max_in_flight,
           key_failed = v_new.key_failed,
           foreign_lease = v_new.foreign_lease, on_complete = coalesce(v_new.on_complete, 'keep'),
           completed_retention = v_new.completed_retention, failed_retention = v_new.failed_retention,
           breaker_key = v_new.breaker_key, kind = coalesce(v_new.kind, 'queue'),
           unrouted = coalesce(v_new.unrouted, 'keep'), rate_max = v_new.rate_max,
           rate_per = coalesce(v_new.rate_per, '1 s'), expire_after = v_new.expire_after
     where t.target_app = p_target;
    perform integration.ring(p_target);
    return integration.target(p_target);
end $$;

-- The settings of a target as they hold: its own, else the installation's; own names those that are its own. null:
-- nothing of that name is known. Spans read the same whatever the session writes them like.
create or replace function integration.target(p_target text) returns jsonb
    language sql stable set search_path = pg_catalog, pg_temp set intervalstyle = postgres set timezone = 'UTC' as $$
    select jsonb_build_object('target', k.target_app,
               'settings', (select jsonb_object_agg(n.name, coalesce(nullif(to_jsonb(t) -> n.name, 'null'),
                                       to_jsonb(s) -> n.name, u.usual -> n.name))
                              from unnest(integration.target_settings()) n (name)),
               'own', coalesce((select jsonb_agg(n.name) from unnest(integration.target_settings()) n (name)
                                 where to_jsonb(t) -> n.name <> coalesce(u.usual -> n.name, 'null')), '[]'),
               'paused_at', t.paused_at, 'paused_by', t.paused_by, 'pause_reason', t.pause_reason,
               'paused_until', t.paused_until)
      from (select p_target as target_app where integration.is_known(p_target)) k
     cross join integration.settings s
     cross join (select integration.usual_settings()) u (usual)
      left join integration.targets t on t.target_app = k.target_app
$$;

-- Whether messages, settings, processes or subscriptions name a target: whether stats has a row for it.
create or replace function integration.is_known(p_target text) returns boolean
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from integration.targets t where t.target_app = p_target)
        or exists (select from integration.counters c where c.target_app = p_target)
        or exists (select from integration.processes c
                    where c.lease_until > integration.clock() and c.targets ? p_target)
        or exists (select from integration.deltas d where d.target_app = p_target)
        or exists (select from integration.subscriptions s where s.target_app = p_target)
$$;

-- Forgets a target that nothing is left of: its settings, policies, breaker, subscriptions and counts.
-- False: nothing knows it.
-- Locks: the gate of folding.
-- SQLSTATEs: MQ003 while it has messages, or a process that lives consumes it.
create or replace function integration.forget_target(p_target text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_known boolean := integration.is_known(p_target);
begin
    if exists (select from integration.data_staging d where d.target_app = p_target) then
        raise exception 'there are messages for %', p_target using errcode = 'MQ003',
            hint = 'move them to another target, or let them end and be cleaned up first';
    end if;
    if exists (select from integration.processes c
                where c.lease_until > integration.clock() and c.targets ? p_target) then
        raise exception 'a process consumes %', p_target using errcode = 'MQ003', hint = 'stop it first';
    end if;
    -- All of its deltas, however many are open: what is deleted below must be all that was counted. Waited for: folding
    -- takes a moment.
    lock table integration.gate_fold in share row exclusive mode;
    perform integration.fold_rows(array(select d.ctid from integration.deltas d where d.target_app = p_target));
    delete from integration.retry_policies r where r.target_app = p_target;
    delete from integration.breakers b where b.breaker_key = p_target and not exists (
        select from integration.targets t where t.breaker_key = p_target and t.target_app <> p_target);
    delete from integration.subscriptions s where p_target in (s.topic, s.target_app);
    delete from integration.places x where x.target_app = p_target;
    delete from integration.turns x where x.target_app = p_target;
    delete from integration.counters x where x.target_app = p_target;
    delete from integration.totals x where x.target_app = p_target;
    delete from integration.traffic x where x.target_app = p_target;
    delete from integration.traffic_tens x where x.target_app = p_target;
    delete from integration.targets t where t.target_app = p_target;
    if v_known then
        insert into integration.audit_log (app_name, action, target_app)
        values (integration.actor(), 'forgotten', p_target);
    end if;
    return v_known;
end $$;
