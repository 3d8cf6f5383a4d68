-- The bell: tells parked consumers of a target that there is something to look at. A hint, never data.

-- The channel of a target: a fixed prefix and a hash, seeded by the installation, because channel names are limited to
-- 63 bytes, LISTEN folds case, and user text does not belong into identifiers. Ask this function; never compute it
-- elsewhere.
create or replace function integration.channel(p_target text) returns text
    language sql immutable strict parallel safe as $$
    select pg_catalog.textcat('doorbell_', pg_catalog.to_hex(pg_catalog.hashtextextended(
        p_target, pg_catalog.hashtext('integration'))))
$$;

-- The channel on which consumers learn that the target's next scheduled message is due earlier than they knew.
create or replace function integration.due_channel(p_target text) returns text
    language sql immutable strict parallel safe as $$
    select pg_catalog.textcat(integration.channel(p_target), '_due')
$$;

-- The first key of the idle latches; the second is the target's hash.
create or replace function integration.latch_class() returns integer
    language sql immutable parallel safe as $$
    select pg_catalog.int4pl(integration.lock_class(), 2)
$$;

-- Whether somebody is parked on the target: holds its idle latch, a shared session lock. Tried exclusively and given
-- back in one expression: no interrupt is checked between the two calls, so a cancelled publish leaks no lock; never
-- split them. "Granted" means that at this instant nobody is parked, so nobody needs a bell: whoever parks later took
-- the latch after this, and waits for every transaction older than that before it trusts in bells (see park). Needs no
-- snapshot, so it is right in every isolation level. Bells rung for nobody cost a cluster-wide lock over the WAL flush
-- of each commit.
create or replace function integration.somebody_is_parked(p_target text) returns boolean
    language sql volatile as $$
    select not case
        when pg_catalog.pg_try_advisory_lock(integration.latch_class(), pg_catalog.hashtext(p_target))
            then pg_catalog.pg_advisory_unlock(integration.latch_class(), pg_catalog.hashtext(p_target))
        else false end
$$;

-- Whether the session and the target want bells at all.
create or replace function integration.bell_is_on(p_target text) returns boolean
    language sql stable as $$
    select coalesce(current_setting('integration.notify', true), '') <> 'off'
       and not exists (select from integration.targets t where t.target_app = p_target and t.bell = 'off')
$$;

-- Sends a notification, delivered at commit. The queue is the whole cluster's, anybody can fill it, and when it is full
-- whatever sends fails: once it is half full nothing of ours does, and consumers sweep.
create or replace function integration.send(p_channel text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if pg_notification_queue_usage() < 0.5 then
        perform pg_notify(p_channel, '');
    end if;
end $$;

-- Rings one target: NOTIFY with an empty payload, delivered at commit, merged within a transaction.
-- Rings nothing when the session said "set integration.notify = off" (prepared transactions cannot carry a NOTIFY), the
-- target's bell is off, or it is on demand (the default) and nobody is parked.
-- PL/pgSQL, because it keeps its plans: as one SQL statement it was planned for every publish, which cost more than all
-- the counting.
create or replace function integration.ring(p_target text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_bell text;
begin
    if current_setting('integration.notify', true) = 'off' then
        return;
    end if;
    select t.bell into v_bell from integration.targets t where t.target_app = p_target;
    -- Asked twice, because another publisher that is asking looks like somebody parked.
    if v_bell = 'off' or (v_bell is null or v_bell = 'on_demand')
            and not (integration.somebody_is_parked(p_target) and integration.somebody_is_parked(p_target)) then
        return;
    end if;
    perform integration.send(integration.channel(p_target));
end $$;

-- AFTER INSERT and UPDATE, by whomever, of what publishing asks for only where there ever was one: bells that are not
-- on demand, topics and subscriptions, contracts, targets with an expire_after. The trigger's argument is the column of
-- settings that says so from now on.
create or replace function integration.on_first() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if tg_relid <> all (array['integration.targets'::regclass, 'integration.subscriptions'::regclass,
            'integration.contracts'::regclass]) then
        raise insufficient_privilege using message = 'this trigger belongs to what publishing asks for';
    end if;
    update integration.settings s
       set has_bells = s.has_bells or tg_argv[0] = 'has_bells', has_topics = s.has_topics or tg_argv[0] = 'has_topics',
           has_contracts = s.has_contracts or tg_argv[0] = 'has_contracts',
           has_expiry = s.has_expiry or tg_argv[0] = 'has_expiry'
     where not (to_jsonb(s) -> tg_argv[0])::boolean;
    return null;
end $$;

create or replace trigger targets_bell_set after insert or update of bell on integration.targets
    for each row when (new.bell <> 'on_demand') execute function integration.on_first('has_bells');

-- Tells the consumers of a target when its next scheduled message is due, if nothing is due before p_due: they sleep
-- until the next one. Concurrent publishers do not see each other's rows and both ring: one bell too many. An earlier
-- message only counts when it is due in more than 10 s: the look that promotes it must also see ours, so ours must be
-- committed by then. Of a transaction that takes longer, the sweep finds it.
create or replace function integration.ring_due(p_target text, p_due timestamptz) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not integration.bell_is_on(p_target) then
        return;
    end if;
    -- Looking would have serializable publishers fail because of each other: they ring in any case.
    if current_setting('transaction_isolation') <> 'serializable' and exists (
            select from integration.data_staging d
             where d.target_app = p_target and d.status = 'scheduled' and d.available_at < p_due
               and d.available_at > integration.clock() + interval '10 s') then
        return;
    end if;
    perform integration.send(integration.due_channel(p_target));
end $$;

-- Parks the session on a target: LISTENs, takes the idle latch, and returns the barrier. From then on every publish
-- rings; but one that looked before the latch was taken may still commit silently. So look into the table until a look
-- was made with oldest_xid() >= barrier and found nothing; only then wait for notifications. Before claiming for long,
-- unpark, so that publishers need not ring. For listeners in any language; needs a session of its own (no pooler).
-- Null: the latch could not be taken (another session holds it exclusively); look again now and then.
-- Locks: the latch, shared, session-scoped; tried, for at most a fifth of a second.
create or replace function integration.park(p_target text) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('listen %I', integration.channel(p_target));
    -- A publisher holds it exclusively for about a microsecond; or for longer, when its processor was taken away there.
    -- Who gave up then was rung by nobody until the next sweep.
    for i in 1 .. 300 loop
        if pg_try_advisory_lock_shared(integration.latch_class(), hashtext(p_target)) then
            return integration.next_xid();
        end if;
        if i > 100 then
            perform pg_sleep(0.001);
        end if;
    end loop;
    return null;
end $$;

-- Gives the latch back; LISTEN stays. False: it was not held.
create or replace function integration.unpark(p_target text) returns boolean
    language sql set search_path = pg_catalog, pg_temp as $$
    select pg_advisory_unlock_shared(integration.latch_class(), hashtext(p_target))
$$;

-- The id that the next transaction will get, without using one up. Not pg_snapshot_xmax: that is the latest completed
-- transaction plus one, which one still running may have. Call it outside a writing transaction.
create or replace function integration.next_xid() returns bigint
    language sql volatile as $$
    select pg_catalog.int84pl(integration.oldest_xid(),
        pg_catalog.age(pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.xid))
$$;

-- The oldest transaction that may still be running.
create or replace function integration.oldest_xid() returns bigint
    language sql volatile as $$
    select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.text::bigint
$$;

-- The oldest transaction that may still make a message visible, change one or give one back: of those that have locked
-- the table for that. Others can be open for days. Asks the table of locks, which is not for every look.
create or replace function integration.oldest_writer() returns bigint
    language plpgsql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_next bigint := integration.next_xid();
begin
    return coalesce((
        select min(v_next - age(x.transactionid))
          from pg_locks l join pg_locks x on x.virtualtransaction = l.virtualtransaction
         where l.locktype = 'relation' and l.relation = 'integration.data_staging'::regclass and l.granted
           and l.database = (select d.oid from pg_database d where d.datname = current_database())
           and l.mode in ('RowShareLock', 'RowExclusiveLock')
           and x.locktype = 'transactionid' and x.mode = 'ExclusiveLock' and x.granted), v_next);
end $$;

-- Proves the way from an INSERT to a listener, for "doorbell doctor": publishes a message and takes it back before
-- anybody can see it; its bell rings when the transaction commits. Choose a target that nobody else has. Leaves nothing
-- behind but a used-up id. Needs the rights to insert and delete in data_staging and to delete in audit_log and deltas.
create or replace function integration.probe_bell(p_target text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_id bigint;
begin
    insert into integration.data_staging (source_app, target_app, record_type, data)
    values ('doorbell doctor', p_target, 'probe', 'null') returning id into v_id;
    delete from integration.data_staging d where d.id = v_id;
    delete from integration.audit_log a where a.staging_id = v_id;
    -- Else the target would be counted for ever, with nothing.
    delete from integration.deltas x where x.target_app = p_target;
end $$;
