-- Messages summed up: what went wrong, how often and since when; what waits, of whom and of which kind.

-- A reason as a LIKE pattern for its like: numbers and what looks like an id become %, so that what differs in them
-- only is one group, and list, redrive and retry take the group by it. Cut after 200 characters.
create or replace function integration.reason_pattern(p_reason text) returns text
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select regexp_replace(regexp_replace(left(p_reason, 200), E'([\\\\%_])', E'\\\\\\1', 'g'),
               '[0-9a-fA-F]*[0-9][0-9a-fA-F-]*', '%', 'g')
           || case when char_length(p_reason) > 200 then '%' else '' end
$$;

-- The reasons of messages that failed for good or wait for a retry, grouped by what is alike in them; null: of all
-- targets. since and last: when the first and the last of those that are there came to it. reason_like: for list,
-- redrive and retry; null: no reason was given. Greatest groups first, at most p_limit. Reads every failed message.
create or replace function integration.errors(p_target text default null, p_limit integer default 100)
    returns table (target_app text, reason_like text, failed bigint, retrying bigint, since timestamptz,
        last timestamptz, example bigint)
    language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    select d.target_app, integration.reason_pattern(d.error_message), count(*) filter (where d.status = 'failed'),
           count(*) filter (where d.status = 'scheduled'), min(d.updated_at), max(d.updated_at), max(d.id)
      from integration.data_staging d
     where (d.status = 'failed' or d.status = 'scheduled' and d.error_message is not null)
       and (p_target is null or d.target_app = p_target)
     group by 1, 2
     order by count(*) desc, 1, 2
     limit p_limit
$$;

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
