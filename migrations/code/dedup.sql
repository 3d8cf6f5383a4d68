-- Dedup keys: one message per key and source inside the dedup window.

-- Which of a source's dedup keys are taken, and the id of the message that has each. Tells nothing else, so whoever may
-- publish may ask.
create or replace function integration.published_under(p_source text, p_dedup_keys text[])
    returns table (dedup_key text, id bigint)
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select k.dedup_key, k.staging_id from integration.dedup_keys k
     where k.source_app = p_source and k.dedup_key = any (p_dedup_keys) and k.expires_at > integration.clock()
$$;

-- Takes the dedup keys of messages that were inserted, all or none. Waits for other transactions that publish under
-- one of them right now.
-- Locks: dedup_keys entries, in key order. SQLSTATEs: 23505 when one is taken.
create or replace function integration.take_dedup_keys(p_sources text[], p_dedup_keys text[], p_ids bigint[])
    returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_taken text;
begin
    with given as materialized (
        select g.source_app, g.dedup_key, g.id from unnest(p_sources, p_dedup_keys, p_ids) g (source_app, dedup_key,
            id)),
    claimed as (
        insert into integration.dedup_keys as k (source_app, dedup_key, staging_id, expires_at)
        -- A key twice in one statement: the first row takes it, the second finds it taken.
        select distinct on (g.source_app, g.dedup_key) g.source_app, g.dedup_key, g.id,
            integration.clock() + s.dedup_window
          from given g, integration.settings s
         order by g.source_app, g.dedup_key, g.id
        on conflict (source_app, dedup_key) do update set staging_id = excluded.staging_id,
            expires_at = excluded.expires_at
         where k.expires_at <= integration.clock()
        returning k.staging_id)
    select g.dedup_key into v_taken from given g where g.id not in (select c.staging_id from claimed c) limit 1;
    if v_taken is not null then
        raise exception 'dedup key "%" was already used by this source inside the dedup window', v_taken
            using errcode = 'unique_violation', column = 'dedup_key', constraint = 'dedup_key',
                hint = 'integration.publish() returns the id of the first message instead of failing';
    end if;
end $$;
