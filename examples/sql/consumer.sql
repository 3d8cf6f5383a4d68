-- A consumer in SQL that needs nobody: one claiming verb and the settles. claim with a lease also promotes what is due,
-- returns what dead consumers left, and hands out by itself what may have killed one. The work and its completion are
-- one transaction, so whatever is killed, the work counts once.
--
--     psql -v ON_ERROR_STOP=1 -f consumer.sql
--     psql -c "call consume('billing', 'script-1')"      -- as often, and as many at a time, as you like

create table if not exists ledger (message bigint, cents integer);

-- The work. It may raise.
create or replace function charge(p_id bigint, p_order jsonb) returns void language plpgsql as $$
begin
    insert into ledger values (p_id, (p_order ->> 'cents')::integer);
end $$;

-- Handles messages until there is nothing to claim. p_owner: a name that no other session has.
create or replace procedure consume(p_target text, p_owner text, p_lease interval default '1 min') language plpgsql as $$
declare
    m record;
begin
    loop
        select * into m from integration.claim(p_target, p_owner, p_lease => p_lease);
        commit; -- From here on it is ours, until the lease runs out.
        exit when m.id is null;
        begin
            perform charge(m.id, m.data);
            perform integration.complete(m.id, m.attempt, p_owner, m.created_at);
        exception
            when sqlstate 'MQ001' then
                null; -- It took longer than the lease: somebody else has the message, and nothing of ours stays.
            when others then
                perform integration.fail(m.id, m.attempt, p_owner, sqlerrm, p_created_at => m.created_at);
        end;
        commit;
    end loop;
end $$;
