-- Dedup keys: one message per key and source inside the dedup window.

-- Reserves a dedup key: the id to insert the message under, or minus the id of the message that has the key.
-- Waits for another transaction that is publishing under the same key right now.
create or replace function integration.take_dedup_key(p_source text, p_dedup_key text) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_id    bigint := nextval('integration.data_staging_id_seq');
    v_taken bigint;
begin
    insert into integration.dedup_keys as k (source_app, dedup_key, staging_id, expires_at)
    select p_source, p_dedup_key, v_id, integration.clock() + s.dedup_window from integration.settings s
    on conflict (source_app, dedup_key) do update set staging_id = excluded.staging_id, expires_at = excluded.expires_at
     where k.expires_at <= integration.clock();
    if found then
        return v_id;
    end if;
    select k.staging_id into v_taken from integration.dedup_keys k
     where k.source_app = p_source and k.dedup_key = p_dedup_key;
    return -v_taken;
end $$;

-- Takes the dedup keys of messages that were inserted by plain SQL, all or none.
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
         where k.expires_at <= integration.clock() or k.staging_id = excluded.staging_id
        returning k.staging_id)
    select g.dedup_key into v_taken from given g where g.id not in (select c.staging_id from claimed c) limit 1;
    if v_taken is not null then
        raise exception 'dedup key "%" was already used by this source inside the dedup window', v_taken
            using errcode = 'unique_violation',
                hint = 'integration.publish() returns the id of the first message instead of failing';
    end if;
end $$;
