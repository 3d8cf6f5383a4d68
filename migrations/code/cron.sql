-- When a schedule is due: the five fields of cron, in time zones as the server knows them.

-- The numbers that a field of cron names, in order: *, numbers, ranges, steps (*/5, 10-20/2, 5/15) and names of months
-- and weekdays, with commas between. SQLSTATEs: MQ002 for what is none.
create or replace function integration.cron_field(p_field text, p_least integer, p_most integer, p_names text[])
    returns integer[]
    language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    v_all   integer[] := '{}';
    v_part  text;
    v_match text[];
    v_first integer;
    v_last  integer;
    v_step  integer;
begin
    foreach v_part in array string_to_array(lower(p_field), ',') loop
        v_match := regexp_match(v_part, '^([*]|[a-z]{3}|[0-9]{1,2})(?:-([a-z]{3}|[0-9]{1,2}))?(?:/([0-9]{1,3}))?$');
        if v_match is not null and not (v_match[1] = '*' and v_match[2] is not null) then
            v_first := case when v_match[1] = '*' then p_least
                            else coalesce(array_position(p_names, v_match[1]) - 1 + p_least,
                                          case when v_match[1] ~ '^[0-9]' then v_match[1]::integer end) end;
            v_last := case when v_match[2] is not null
                           then coalesce(array_position(p_names, v_match[2]) - 1 + p_least,
                                         case when v_match[2] ~ '^[0-9]' then v_match[2]::integer end)
                           when v_match[1] = '*' or v_match[3] is not null then p_most else v_first end;
            v_step := coalesce(v_match[3]::integer, 1);
        end if;
        if v_match is null or v_first is null or v_last is null or v_step = 0 or v_first < p_least or v_last > p_most
            or v_first > v_last or v_match[1] = '*' and v_match[2] is not null then
            raise exception '"%" is no part of a cron expression here: % to %', left(v_part, 40), p_least, p_most
                using errcode = 'MQ002', hint = 'five fields: minute, hour, day of month, month, day of week (0 or 7 '
                    'is Sunday); each *, numbers, ranges (1-5), steps (*/15), with commas between';
        end if;
        v_all := v_all || array(select generate_series(v_first, v_last, v_step));
        v_first := null;
    end loop;
    return array(select distinct n from unnest(v_all) n order by n);
end $$;

-- The first tick of a cron expression after p_after, in a time zone. Null: there is none in the next 28 years, in which
-- each date meets each weekday. Where hours are given, each time of the day comes once: one that the clock skips as
-- much later as the clock was put forward, one that it shows twice at the second time. Where the field of hours begins
-- with *, by the clock as it runs: what is hourly stays hourly. Day of month and of week both given: either, as cron
-- does it.
-- SQLSTATEs: MQ002 for an expression that is none, 22023 for a time zone that the server does not know.
create or replace function integration.next_tick(p_cron text, p_zone text, p_after timestamptz) returns timestamptz
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_fields   text[] := regexp_split_to_array(btrim(p_cron, E' \t'), E'[ \t]+');
    v_minutes  integer[];
    v_hours    integer[];
    v_days     integer[];
    v_months   integer[];
    v_weekdays integer[];
    v_either   boolean;
    v_near     date := (p_after at time zone p_zone)::date;
    v_day      date;
    v_tick     timestamptz;
begin
    if cardinality(v_fields) <> 5 then
        raise exception '"%" is no cron expression: it has % fields, and not five', left(p_cron, 60),
            cardinality(v_fields) using errcode = 'MQ002', hint = 'minute, hour, day of month, month, day of week';
    end if;
    v_minutes := integration.cron_field(v_fields[1], 0, 59, '{}');
    v_hours := integration.cron_field(v_fields[2], 0, 23, '{}');
    v_days := integration.cron_field(v_fields[3], 1, 31, '{}');
    v_months := integration.cron_field(v_fields[4], 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
    v_weekdays := integration.cron_field(v_fields[5], 0, 7, '{sun,mon,tue,wed,thu,fri,sat}');
    v_weekdays := array(select distinct n % 7 from unnest(v_weekdays) n);
    v_either := v_fields[3] !~ '^[*]' and v_fields[5] !~ '^[*]';
    -- From a day before, for zones in which the clock is put back over midnight. Nearly always one of the next days.
    for v_day in
        select d::date
          from (values (-1, 40), (41, 10228)) r (least, most),
               lateral generate_series(v_near + r.least, v_near + r.most, interval '1 day') d
         where extract(month from d) = any (v_months)
           and case when v_either then extract(day from d) = any (v_days) or extract(dow from d) = any (v_weekdays)
                    else extract(day from d) = any (v_days) and extract(dow from d) = any (v_weekdays) end
    loop
        if v_fields[2] ~ '^[*]' then
            select min(t.at) into v_tick
              from generate_series(
                       greatest(date_trunc('minute', p_after, 'UTC') + interval '1 min',
                                (v_day - 1)::timestamp at time zone p_zone),
                       (v_day + 2)::timestamp at time zone p_zone, interval '1 min') t (at)
             cross join lateral (select t.at at time zone p_zone as shown) l
             where l.shown::date = v_day and extract(hour from l.shown) = any (v_hours)
               and extract(minute from l.shown) = any (v_minutes);
        else
            select min(t.at) into v_tick
              from unnest(v_hours) h (hour), unnest(v_minutes) m (minute),
                   lateral (select (v_day + make_time(h.hour, m.minute, 0)) at time zone p_zone as at) t
             where t.at > p_after;
        end if;
        if v_tick is not null then
            return v_tick;
        end if;
    end loop;
    return null;
end $$;

-- The first tick of a schedule after p_after.
create or replace function integration.tick_after(
    p_cron text, p_zone text, p_every interval, p_starts_at timestamptz, p_after timestamptz
) returns timestamptz
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_every numeric := extract(epoch from p_every);
begin
    if p_every is null then
        return integration.next_tick(p_cron, p_zone, greatest(p_after, p_starts_at - interval '1 us'));
    elsif p_after < p_starts_at then
        return p_starts_at;
    end if;
    return p_starts_at + make_interval(secs =>
        ((floor(extract(epoch from p_after - p_starts_at) / v_every) + 1) * v_every)::double precision);
end $$;
