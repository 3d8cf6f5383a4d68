-- Facts in words, for people.

-- A length of time in words: 0.8 s, 42 s, 17 min, 5 h, 3 d.
create or replace function integration.in_words(p_span interval) returns text
    language sql immutable strict parallel safe as $$
    select case when e.s < 10 then round(e.s, 1) || ' s' when e.s < 120 then floor(e.s) || ' s'
                when e.s < 7200 then floor(e.s / 60) || ' min' when e.s < 172800 then floor(e.s / 3600) || ' h'
                else floor(e.s / 86400) || ' d' end
      from (select greatest(extract(epoch from p_span), 0) as s) e
$$;

-- A point in time in words: UTC, whole seconds.
create or replace function integration.time_in_words(p_time timestamptz) returns text
    language sql stable parallel safe as $$
    select to_char(p_time at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')
$$;

-- A word as a shell reads it, for the commands that fixes propose.
create or replace function integration.shell_word(p_text text) returns text
    language sql immutable parallel safe as $$
    select case when p_text ~ '^[A-Za-z0-9_./:@%+,][A-Za-z0-9_./:@%+,-]*$' then p_text
                else '''' || replace(p_text, '''', E'''\\''''') || '''' end
$$;
