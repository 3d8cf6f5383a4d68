-- Turns: claims of one target, one after the other.

-- Has the claims of our consumers of one target take turns: those under way at the same time walk over each other's
-- locked rows, each over all that the others take. Called in the statement of the claim, before it, in a transaction
-- that ends with it: claims in transactions of plain SQL take no turns, so nobody waits for one that is left open.
-- Null: claim now. It is the caller's turn, or nobody's for too long. Otherwise not now: the caller is to come back
-- after a pause, outside of any transaction. Only a few may wait here, because who does holds a snapshot, and what is
-- claimed meanwhile stays in the index for all that wait, one block each: 64 that waited read six times the blocks of
-- one. The result then says who has the turn, where that was asked and is known; else it is empty.
-- p_seen: null, or who had it when the caller asked last, at least a second ago; empty: it asks for the first time. If
-- it is the same transaction still, it is not waited for. Nor is whoever may not claim: anybody can take an advisory
-- lock; nor, where it is *, anybody else.
-- Who waits here gives up only after longer than a few claims of a thousand messages take: whoever claims beside them
-- has to ask the server about each row that they have locked, which makes all of them slower, and others give up too.
-- Locks: an advisory one per target until the end of the transaction, waited for at most 1.3 s, first come first
-- served; before that a place in the waiting room, tried; the gate of who asks, tried.
create or replace function integration.take_turn(p_target text, p_seen text default null) returns text
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_holder  text;
    v_at_most integer;
begin
    if pg_try_advisory_xact_lock(integration.lock_class() + 3, hashtext(p_target)) then
        return null;
    end if;
    if not integration.enter_waiting_room(p_target) then
        v_holder := case when p_seen is null then '' when p_seen <> '*' then integration.who_has_turn(p_target) end;
        return case when v_holder = '' or v_holder <> p_seen then v_holder end;
    end if;
    foreach v_at_most in array '{50, 250, 1000}'::integer[] loop
        if integration.who_has_turn(p_target) is null or integration.wait_for_turn(p_target, v_at_most) then
            return null;
        end if;
    end loop;
    return null;
end $$;

-- For take_turn: whether the caller may wait for the target's turn; its place is taken until its transaction ends, so
-- whoever has waited has one still while it claims.
create or replace function integration.enter_waiting_room(p_target text) returns boolean
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    for v_place in 0 .. 3 loop
        if pg_try_advisory_xact_lock(integration.lock_class() + 1, hashtext(p_target) # v_place) then
            return true;
        end if;
    end loop;
    return false;
end $$;

-- For take_turn: the transaction that has the target's turn; empty: nobody, or somebody else is asking. Null: one that
-- may not claim. One session at a time asks, as nobody can lock anything while pg_locks is read: 64 that asked kept
-- each other from their turns.
create or replace function integration.who_has_turn(p_target text) returns text
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_holder text := '';
begin
    lock table integration.gate_turn in share row exclusive mode nowait;
    select case when has_function_privilege(a.usesysid, 'integration.has_suspects(text,text[])', 'execute')
                then l.virtualtransaction end into v_holder
      from pg_locks l join pg_stat_activity a on a.pid = l.pid
     where l.locktype = 'advisory' and l.objsubid = 2 and l.granted and a.datname = current_database()
       and l.classid::bigint = integration.lock_class() + 3
       and l.objid::bigint = (hashtext(p_target)::bigint & 4294967295);
    if not found then
        v_holder := '';
    end if;
    -- Undone, so that the gate is open again: the transaction may wait for long.
    raise exception using errcode = 'MQ000';
exception when lock_not_available or sqlstate 'MQ000' then
    return v_holder;
end $$;

-- For take_turn: for at most so many milliseconds.
create or replace function integration.wait_for_turn(p_target text, p_at_most integer) returns boolean
    language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2 s' as $$
begin
    perform set_config('lock_timeout', p_at_most::text, true);
    perform pg_advisory_xact_lock(integration.lock_class() + 3, hashtext(p_target));
    return true;
exception when lock_not_available then
    return false;
end $$;
