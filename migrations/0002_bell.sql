-- The bell: tells parked consumers of a target that there is something to look at. A hint, never data.

-- The channel of a target: a fixed prefix and a hash, because channel names are limited to 63 bytes, LISTEN folds
-- case, and user text does not belong into identifiers. Ask this function; never compute it elsewhere.
create function integration.channel(p_target text) returns text
    language sql immutable strict parallel safe
    return 'doorbell_' || to_hex(hashtextextended(p_target, 0));

-- The channel on which consumers learn that the target's next scheduled message is due earlier than they knew.
create function integration.due_channel(p_target text) returns text
    language sql immutable strict parallel safe
    return integration.channel(p_target) || '_due';

-- The first key of the idle latches; the second is the target's hash.
create function integration.latch_class() returns integer
    language sql immutable parallel safe
    return integration.lock_class() + 2;

-- Whether somebody is parked on the target: holds its idle latch, a shared session lock. Tried exclusively and given back
-- in one expression: no interrupt is checked between the two calls, so a cancelled publish leaks no lock; never split
-- them. "Granted" means that at this instant nobody is parked, so nobody needs a bell: whoever parks later took the latch
-- after this, and waits for every transaction older than that before it trusts in bells (see park). Needs no snapshot, so
-- it is right in every isolation level. Bells rung for nobody cost a cluster-wide lock over the WAL flush of each commit.
create function integration.somebody_is_parked(p_target text) returns boolean
    language sql volatile
    return not case when pg_try_advisory_lock(integration.latch_class(), hashtext(p_target))
                    then pg_advisory_unlock(integration.latch_class(), hashtext(p_target))
                    else false end;

-- Whether the session and the target want bells at all.
create function integration.bell_is_on(p_target text) returns boolean
    language sql stable
    return coalesce(current_setting('integration.notify', true), '') <> 'off'
       and not exists (select from integration.targets t where t.target_app = p_target and t.bell = 'off');

-- Rings one target: NOTIFY with an empty payload, delivered at commit, merged within a transaction.
-- Rings nothing when the session said "set integration.notify = off" (prepared transactions cannot carry a NOTIFY), the
-- target's bell is off, or it is on demand (the default) and nobody is parked.
-- PL/pgSQL, because it keeps its plans: as one SQL statement it was planned for every publish, which cost more than all
-- the counting.
create function integration.ring(p_target text) returns void
    language plpgsql as $$
declare
    v_bell text;
begin
    if current_setting('integration.notify', true) = 'off' then
        return;
    end if;
    select t.bell into v_bell from integration.targets t where t.target_app = p_target;
    if v_bell = 'off' or (v_bell is null or v_bell = 'on_demand') and not integration.somebody_is_parked(p_target) then
        return;
    end if;
    perform pg_notify(integration.channel(p_target), '');
end $$;

-- The id that the next transaction will get, without using one up. Not pg_snapshot_xmax: that is the latest completed
-- transaction plus one, which one still running may have. Call it outside a writing transaction.
create function integration.next_xid() returns bigint
    language sql volatile
    return (select pg_snapshot_xmin(s)::text::bigint + age(pg_snapshot_xmin(s)::xid) from pg_current_snapshot() s);

-- The oldest transaction that may still be running.
create function integration.oldest_xid() returns bigint
    language sql volatile
    return pg_snapshot_xmin(pg_current_snapshot())::text::bigint;

-- Parks the session on a target: LISTENs, takes the idle latch, and returns the barrier. From then on every publish
-- rings; but one that looked before the latch was taken may still commit silently. So look into the table until a look
-- was made with oldest_xid() >= barrier and found nothing; only then wait for notifications. Before claiming for long,
-- unpark, so that publishers need not ring. For listeners in any language; needs a session of its own (no pooler).
-- Null: the latch could not be taken (another session holds it exclusively); look again now and then.
-- Locks: the latch, shared, session-scoped, tried and never waited for.
create function integration.park(p_target text) returns bigint
    language plpgsql as $$
begin
    execute format('listen %I', integration.channel(p_target));
    -- A publisher holds it exclusively for about a microsecond.
    for i in 1 .. 100 loop
        if pg_try_advisory_lock_shared(integration.latch_class(), hashtext(p_target)) then
            return integration.next_xid();
        end if;
    end loop;
    return null;
end $$;

-- Gives the latch back; LISTEN stays. False: it was not held.
create function integration.unpark(p_target text) returns boolean
    language sql
    return pg_advisory_unlock_shared(integration.latch_class(), hashtext(p_target));

-- Tells the consumers of a target when its next scheduled message is due, if nothing is due before p_due: they sleep
-- until the next one. Concurrent publishers do not see each other's rows and both ring: one bell too many. An earlier
-- message only counts when it is due in more than 10 s: the look that promotes it must also see ours, so ours must be
-- committed by then. Of a transaction that takes longer, the sweep finds it.
create function integration.ring_due(p_target text, p_due timestamptz) returns void
    language sql
    begin atomic
        select pg_notify(integration.due_channel(p_target), '')
         where integration.bell_is_on(p_target)
           and not exists (
            select from integration.data_staging d
             where d.target_app = p_target and d.status = 'scheduled' and d.available_at < p_due
               and d.available_at > integration.clock() + interval '10 s');
    end;

-- The ten minutes a time belongs to: what error rates are counted by.
create function integration.ten_minutes(p_at timestamptz) returns timestamptz
    language sql immutable parallel safe
    return date_bin('10 min', p_at, '2000-01-01 00:00:00 UTC');

-- AFTER INSERT, once per statement: one bell per distinct target, whatever the number of rows; the counting; and the dedup
-- keys of plain INSERTs. SECURITY DEFINER so that a publisher needs no right but INSERT.
-- Nearly every statement publishes rows that are alike; those are counted by the cheapest statements there are, because a
-- plan with an aggregate and a sort costs a lone message more than all the rest of this function.
-- Locks: dedup_keys entries, in key order. SQLSTATEs: 23505 when a dedup key is taken.
create function integration.on_published() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_pending   integer;
    v_scheduled integer;
    v_source    text;
    v_target    text;
    v_status    text;
    v_key       text;
    v_alike     boolean := false;
    v_keys      boolean;
    v_rung      text;
    v_since     timestamptz;
    v_later     boolean := false;
begin
    select p.source_app, p.target_app, p.status, p.dedup_key, integration.ten_minutes(p.created_at)
      into v_source, v_target, v_status, v_key, v_since from published p limit 1;
    if v_target is null then
        return null;
    end if;
    -- Conditions of different kinds are asked one by one: PostgreSQL would plan a mixed one anew for every statement, seeing
    -- that it is nothing once the variables are known.
    if v_status in ('pending', 'scheduled') then
        v_alike := not exists (
            select from published p
             where p.target_app <> v_target or p.source_app <> v_source or p.status <> v_status
                or (p.dedup_key is null) <> (v_key is null)
                or p.created_at < v_since or p.created_at >= v_since + interval '10 min');
    end if;
    v_keys := v_key is not null;
    if not v_alike then
        v_keys := exists (select from published p where p.dedup_key is not null);
    end if;
    if v_keys then
        perform integration.take_dedup_keys(array_agg(p.source_app), array_agg(p.dedup_key), array_agg(p.id))
           from published p where p.dedup_key is not null;
    end if;
    if v_alike then
        insert into integration.deltas (at, created_at, pending, scheduled, messages, target_app, action, source_app)
        select integration.clock(), v_since, case v_status when 'pending' then c.messages end,
               case v_status when 'scheduled' then c.messages end, c.messages, v_target, 'published', v_source
          from (select count(*) as messages from published) c;
        if v_status = 'pending' then
            perform integration.ring(v_target);
        else
            perform integration.ring_due(v_target, (select min(p.available_at) from published p));
        end if;
        return null;
    end if;
    -- Counting names the targets and what is there for them, so it is the loop over them, too.
    for v_pending, v_scheduled, v_target in
        insert into integration.deltas (at, created_at, pending, scheduled, processing, completed, failed, cancelled,
                                        messages, target_app, action, source_app)
        select integration.clock(), g.created_at, case g.status when 'pending' then g.messages end,
               case g.status when 'scheduled' then g.messages end, case g.status when 'processing' then g.messages end,
               case g.status when 'completed' then g.messages end, case g.status when 'failed' then g.messages end,
               case g.status when 'cancelled' then g.messages end, g.messages, g.target_app, 'published', g.source_app
          from (select p.target_app, p.source_app, p.status, integration.ten_minutes(p.created_at) as created_at, count(*) as messages
                  from published p group by p.target_app, p.source_app, p.status, integration.ten_minutes(p.created_at)) g
         order by g.target_app
        returning pending, scheduled, target_app
    loop
        if v_pending is not null and v_target is distinct from v_rung then
            perform integration.ring(v_target);
            v_rung := v_target;
        end if;
        v_later := v_later or v_scheduled is not null;
    end loop;
    if v_later then
        perform integration.ring_due(s.target_app, s.due)
           from (select p.target_app, min(p.available_at) as due from published p where p.status = 'scheduled' group by p.target_app) s;
    end if;
    return null;
end $$;

-- Takes the dedup keys of messages that were inserted by plain SQL, all or none.
-- Locks: dedup_keys entries, in key order. SQLSTATEs: 23505 when one is taken.
create function integration.take_dedup_keys(p_sources text[], p_dedup_keys text[], p_ids bigint[]) returns void
    language plpgsql as $$
declare
    v_taken text;
begin
    with given as materialized (
        select g.source_app, g.dedup_key, g.id from unnest(p_sources, p_dedup_keys, p_ids) g (source_app, dedup_key, id)),
    claimed as (
        insert into integration.dedup_keys as k (source_app, dedup_key, staging_id, expires_at)
        -- A key twice in one statement: the first row takes it, the second finds it taken.
        select distinct on (g.source_app, g.dedup_key) g.source_app, g.dedup_key, g.id, integration.clock() + s.dedup_window
          from given g, integration.settings s
         order by g.source_app, g.dedup_key, g.id
        on conflict (source_app, dedup_key) do update set staging_id = excluded.staging_id, expires_at = excluded.expires_at
         where k.expires_at <= integration.clock() or k.staging_id = excluded.staging_id
        returning k.staging_id)
    select g.dedup_key into v_taken from given g where g.id not in (select c.staging_id from claimed c) limit 1;
    if v_taken is not null then
        raise exception 'dedup key "%" was already used by this source inside the dedup window', v_taken
            using errcode = 'unique_violation', hint = 'integration.publish() returns the id of the first message instead of failing';
    end if;
end $$;

create trigger data_staging_published after insert on integration.data_staging
    referencing new table as published
    for each statement execute function integration.on_published();

-- Proves the way from an INSERT to a listener, for "doorbell doctor": publishes a message and takes it back before anybody
-- can see it; its bell rings when the transaction commits. Choose a target that nobody else has. Leaves nothing behind but
-- a used-up id. Needs the rights to insert and delete in data_staging and to delete in audit_log and deltas.
create function integration.probe_bell(p_target text) returns void
    language plpgsql as $$
declare
    v_id bigint;
begin
    insert into integration.data_staging (source_app, target_app, record_type, data)
    values ('doorbell doctor', p_target, 'probe', 'null') returning id into v_id;
    delete from integration.data_staging d where d.id = v_id;
    delete from integration.audit_log a where a.staging_id = v_id;
    -- Else every probe would be counted, as a target of its own.
    delete from integration.deltas d where d.target_app = p_target;
end $$;
