-- How often a message is tried, and how long it waits in between.

-- The retry policy in force for a record type of a target: the record type's, else the target's, else the
-- installation's. Always one row.
create or replace function integration.policy(p_target text, p_type text)
    returns table (max_retries integer, max_crashes integer, backoff_base_ms bigint, backoff_factor double precision,
        backoff_cap_ms bigint)
    language sql stable as $$
    select coalesce(r.max_retries, t.max_retries, s.max_retries), coalesce(t.max_crashes, s.max_crashes),
           coalesce(r.backoff_base_ms, t.backoff_base_ms, s.backoff_base_ms),
           coalesce(r.backoff_factor, t.backoff_factor, s.backoff_factor),
           coalesce(r.backoff_cap_ms, t.backoff_cap_ms, s.backoff_cap_ms)
      from integration.settings s
      left join integration.targets t on t.target_app = p_target
      left join integration.retry_policies r on r.target_app = p_target and r.record_type = p_type
$$;

-- Exponential backoff with full jitter: uniform between 0 and min(cap, base * factor ^ retries), as in "Exponential
-- Backoff And Jitter" (AWS Architecture Blog, 2015). p_random in [0, 1); the exponent is bounded so that it cannot
-- overflow.
create or replace function integration.backoff_ms(
    p_base_ms bigint, p_factor double precision, p_cap_ms bigint, p_retries integer, p_random double precision
) returns bigint
    language sql immutable parallel safe as $$
    select (p_random * least(p_cap_ms, p_base_ms * power(p_factor, least(p_retries, 100))))::bigint
$$;
