-- Messages summed up: what went wrong, how often and since when; what waits, of whom and of which kind.

-- A reason as a LIKE pattern for its like: numbers and what looks like an id become %, so that what differs in them
-- only is one group, and list, redrive and retry take the group by it. Cut after 200 characters.
create or replace function integration.reason_pattern(p_reason text) returns text
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select regexp_replace(regexp_replace(left(p_reason, 200), E'([\\\\%_])', E'\\\\\\1', 'g'),
               '[0-9a-fA-F]*[0-9][0-9a-fA-F-]*', '%', 'g')
           || case when char_length(p_reason) > 200 then '%' else '' end
$$;

-- The reasons of messages that failed for good or wait for a retry, grouped by what is alike in them, of one target or
-- of all. failed_again: how many of the failed had been redriven before. since and last: when the first and the last of
-- those that are there came to it. reason_like: for list, redrive and retry; null: no reason was given. Greatest groups
-- first, at most p_limit. Looks at p_look_at of the failed messages (those of a target: the newest) and as many of the
-- scheduled ones; all_seen: whether that was all of them.
create or replace function integration.errors(p_target text default null, p_limit integer default 100,
    p_look_at integer default 100000)
    returns table (target_app text, reason_like text, failed bigint, failed_again bigint, retrying bigint,
        since timestamptz, last timestamptz, example bigint, all_seen boolean)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
begin
    p_look_at := least(greatest(p_look_at, 1), 10000000);
    return query
    with seen as materialized (
        (select d.target_app, d.error_message, d.status, d.redrive_count, d.updated_at, d.id
           from integration.data_staging d
          where d.status = 'failed' and (p_target is null or d.target_app = p_target)
          order by d.target_app desc, d.id desc limit p_look_at)
        union all
        (select d.target_app, d.error_message, d.status, d.redrive_count, d.updated_at, d.id
           from integration.data_staging d
          where d.status = 'scheduled' and (p_target is null or d.target_app = p_target)
          order by d.target_app, d.available_at limit p_look_at)),
    whole as (
        select bool_and(c.messages < p_look_at) as whole
          from (select count(*) as messages from seen s group by s.status) c)
    select s.target_app, integration.reason_pattern(s.error_message), count(*) filter (where s.status = 'failed'),
           count(*) filter (where s.status = 'failed' and s.redrive_count > 0),
           count(*) filter (where s.status = 'scheduled'), min(s.updated_at), max(s.updated_at), max(s.id), w.whole
      from seen s cross join whole w
     where s.status = 'failed' or s.error_message is not null
     group by 1, 2, w.whole
     order by count(*) desc, 1, 2
     limit p_limit;
end $$;

-- What has not ended, by target, record type, source and status; null: of all targets. oldest_at: when the oldest of
-- them was published. Greatest first, at most p_limit. Reads every message that has not ended.
create or replace function integration.backlog(p_target text default null, p_limit integer default 100)
    returns table (target_app text, record_type text, source_app text, status text, messages bigint,
        oldest_at timestamptz)
    language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    select d.target_app, d.record_type, d.source_app, d.status, count(*), min(d.created_at)
      from integration.data_staging d
     where d.status in ('pending', 'scheduled', 'processing') and (p_target is null or d.target_app = p_target)
     group by 1, 2, 3, 4
     order by count(*) desc, 1, 2, 3, 4
     limit p_limit
$$;

-- Requests whose time is not over and that have no answer yet, of the 10,000 messages whose time is over first: for
-- whom they are, what is happening to them, and when nobody waits any more. Those that are kept whoever waits are not
-- known here.
create or replace view integration.waiting_requests with (security_invoker = true) as
    select d.id, d.source_app, d.target_app, d.record_type, d.status, d.attempt, d.created_at, e.expires_at, d.owner
      from (select x.id, x.created_at, x.expires_at from integration.expiring x order by x.expires_at limit 10000) e
      join integration.data_staging d on d.id = e.id and d.created_at = e.created_at
     where d.headers ? 'reply_to' and d.status in ('pending', 'scheduled', 'processing');
