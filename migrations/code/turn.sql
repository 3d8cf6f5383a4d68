-- Turns: claims of one target, one after the other.

-- Has the claims of our consumers of one target take turns: those under way at the same time walk over each other's
-- locked rows, each over all that the others take (64 processes read eight times the blocks of one). Called in the
-- statement of the claim, before it, in a transaction that ends with it: claims in transactions of plain SQL take no
-- turns, so nobody waits for one that is left open. False: it was nobody's turn for too long; claim all the same.
-- Anybody can take an advisory lock, so who may not claim is not waited for. One session at a time asks for that, as
-- nobody can lock anything while pg_locks is read: 64 that asked kept each other from their turns.
-- Given up only after longer than 64 processes take with claims of a thousand messages: whoever claims beside them has
-- to ask the server about each row that they have locked, which makes all of them slower, and others give up too.
-- Locks: an advisory one per target until the end of the transaction, waited for at most 1.3 s, first come first
-- served; the gate of who asks, tried.
create or replace function integration.take_turn(p_target text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_at_most integer;
begin
    if pg_try_advisory_xact_lock(integration.lock_class() + 3, hashtext(p_target)) then
        return true;
    end if;
    foreach v_at_most in array '{50, 250, 1000}'::integer[] loop
        if integration.pass_gate('turn') and exists (
            select from pg_locks l join pg_stat_activity a on a.pid = l.pid
             where l.locktype = 'advisory' and l.objsubid = 2 and l.granted
               and l.classid::bigint = integration.lock_class() + 3
               and l.objid::bigint = (hashtext(p_target)::bigint & 4294967295)
               and not has_function_privilege(a.usesysid, 'integration.has_suspects(text,text[])', 'execute')) then
            return false;
        end if;
        if integration.wait_for_turn(p_target, v_at_most) then
            return true;
        end if;
    end loop;
    return false;
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
