-- Steps of a handler: what one has returned is saved, so that a later attempt does not do it again.

-- What a step of a message's handling has returned in this attempt or one before, since the message was published or
-- last redriven; null: it has not ended yet (a saved null is the JSON null). p_created_at, as claim returned it, is
-- needed by who may go on after an asynchronous failover. Empty result: never. SQLSTATEs: MQ001 when the lease was
-- lost.
create or replace function integration.step_output(p_id bigint, p_attempt integer, p_owner text, p_name text,
    p_created_at timestamptz default null) returns jsonb
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v record;
begin
    v := integration.in_step(p_id, p_attempt, p_owner, p_created_at);
    return (select s.output from integration.steps s
             where s.id = p_id and s.created_at = v.created_at and s.redrive_count = v.redrive_count
               and s.name = p_name);
end $$;

-- Saves what a step has returned, after its effect and in a transaction of its own: where that is lost between the
-- two, the step is done again, which is why its effect is to be given effect_key. Returns what is saved: of two, the
-- first. Locks: the new row. SQLSTATEs: MQ001 when the lease was lost: then nothing is saved; 23514 and 23502 for a
-- name of no or more than 200 characters.
create or replace function integration.save_step(p_id bigint, p_attempt integer, p_owner text, p_name text,
    p_output jsonb, p_created_at timestamptz default null) returns jsonb
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v        record;
    v_output jsonb;
begin
    v := integration.in_step(p_id, p_attempt, p_owner, p_created_at);
    insert into integration.steps as s (id, created_at, redrive_count, name, output, attempt, saved_at)
    values (p_id, v.created_at, v.redrive_count, p_name, coalesce(p_output, 'null'), p_attempt, integration.clock())
    on conflict do nothing returning s.output into v_output;
    return coalesce(v_output, (select s.output from integration.steps s
                                where s.id = p_id and s.created_at = v.created_at
                                  and s.redrive_count = v.redrive_count and s.name = p_name));
end $$;

-- For explain: which steps of a message's handling are done, of this series of attempts. Empty result: none.
create or replace function integration.explain_steps(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    select 'steps', format('steps that are done, and will not be done again: %s%s',
               string_agg(format('%s (attempt %s)', x.name, x.attempt), ', ' order by x.nth) filter (where x.nth <= 10),
               case when count(*) > 10 then format(' and %s more', count(*) - 10) end),
           null::text, jsonb_build_object('count', count(*), 'steps', jsonb_agg(jsonb_build_object(
               'name', x.name, 'attempt', x.attempt, 'saved_at', x.saved_at) order by x.nth) filter (where x.nth <= 10))
      from (select s.name, s.attempt, s.saved_at, row_number() over (order by s.saved_at, s.name) as nth
              from integration.steps s
              join integration.data_staging d
                on d.id = s.id and d.created_at = s.created_at and d.redrive_count = s.redrive_count
             where s.id = p_id) x
    having count(*) > 0
$$;

-- For those: the message that is being handled.
create or replace function integration.in_step(p_id bigint, p_attempt integer, p_owner text, p_created_at timestamptz,
    out created_at timestamptz, out redrive_count integer)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
begin
    if integration.is_limited() then
        perform integration.must_settle(array[p_id]);
    end if;
    select d.created_at, d.redrive_count into created_at, redrive_count from integration.data_staging d
     where d.id = p_id and d.attempt = p_attempt and d.owner is not distinct from p_owner
       and d.status || '' = 'processing' and d.created_at = coalesce(p_created_at, d.created_at);
    if not found then
        perform integration.raise_lease_lost(p_id, p_attempt, p_owner);
    end if;
end $$;

-- What names the effect of a step of a message to another system, the same in each attempt, another one once it was
-- redriven: to be handed over before the effect, so that the other system recognises what is done again. All but the
-- name are as claim returned them.
create or replace function integration.effect_key(p_id bigint, p_created_at timestamptz, p_redrive_count integer,
    p_name text) returns text
    language sql stable parallel safe set search_path = pg_catalog, pg_temp as $$
    select concat_ws(':', p_id, (extract(epoch from p_created_at) * 1000000)::bigint, p_redrive_count, p_name)
$$;
