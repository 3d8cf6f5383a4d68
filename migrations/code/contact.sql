-- Contact: since when somebody has been looking at this server, because silence is death only while somebody listens.

-- Which history of which database cluster this is: its identifier and timeline. A promoted standby begins a new
-- timeline at once, and may not know the last commits of the one it replaces. Null where the server does not tell.
create or replace function integration.timeline() returns text
    language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    return (select s.system_identifier from pg_control_system() s) || '/'
        || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
exception when others then
    return null;
end $$;

-- Notes that somebody is here; called by each rescue, before it looks who is dead. Processes do so all the time, so
-- when nobody did for longer than half the shortest lease (the server was down, frozen or out of everybody's reach), or
-- the clock was set, nobody's silence proves anything: the leases of processes begin anew, and those of single messages
-- are moved by what is missing. All consumers may have died at once as well; they are found one lease later. Where
-- nobody has beaten since the last time, nobody was there to look: then leases are counted by the clock, so that what
-- looks once a minute (maintain by cron) finds the dead, too. Returns since when silence counts.
--
-- On a timeline that nobody was on before, ids are given out far behind those that may have been given out on the one
-- that it replaces, so that an id stays one message's for those who use it elsewhere. Once a timeline, so by a bounded
-- number.
--
-- SECURITY DEFINER: processes may not change leases of others, nor the sequence. Calling it can only prolong leases
-- that nobody has looked after. Locks: the row of contact, those of processes and of messages with leases, SKIP LOCKED.
create or replace function integration.keep_contact() returns timestamptz
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_now      timestamptz := integration.clock();
    v_timeline text := integration.timeline();
    v_contact  record;
    v_away     interval;
    v_half     interval;
    v_watched  boolean;
begin
    select c.* into v_contact from integration.contact c for no key update skip locked;
    if not found then
        return v_now;
    end if;
    if v_contact.timeline <> v_timeline then
        perform setval(pg_get_serial_sequence('integration.data_staging', 'id'),
            nextval(pg_get_serial_sequence('integration.data_staging', 'id')) + 1000000);
    end if;
    if v_contact.timeline is distinct from v_timeline and v_timeline is not null then
        update integration.contact set timeline = v_timeline;
    end if;
    v_away := v_now - v_contact.seen_at;
    select min(c.lease_until - c.beat_at) / 2 into v_half from integration.processes c where c.lease_until > c.beat_at;
    -- Whose lease began anew has beaten at that very time, and nobody else has.
    v_watched := v_half is not null and exists (
        select from integration.processes c
         where c.beat_at > v_contact.resumed_at - v_half / 2 and c.beat_at <> v_contact.resumed_at);
    if not v_watched or v_away between interval '0' and v_half then
        -- Not for each of a thousand heartbeats.
        if not v_watched or v_away > v_half / 8 then
            update integration.contact set seen_at = v_now;
        end if;
        return v_contact.resumed_at;
    end if;
    update integration.contact set seen_at = v_now, resumed_at = v_now;
    -- Who has beaten just now has its lease already.
    update integration.processes c
       set beat_at = v_now, lease_until = v_now + (c.lease_until - c.beat_at)
     where c.owner = any (array(
        select x.owner from integration.processes x
         where x.beat_at not between v_now - v_half / 2 and v_now
           for no key update skip locked));
    update integration.data_staging d set lease_until = d.lease_until + v_away
     where d.id = any (array(
        select m.id from integration.data_staging m
         where m.status = 'processing' and m.lease_until is not null
           and (v_away > interval '0' or m.updated_at > v_now)
           for no key update skip locked));
    return v_now;
end $$;
