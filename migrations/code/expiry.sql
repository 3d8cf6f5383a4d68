-- Messages that are not wanted any more after a time.

-- The reason of those that nobody took in time.
create or replace function integration.expiry_reason() returns text
    language sql immutable parallel safe as $$
    select 'expired: nobody took it in time'::pg_catalog.text
$$;

-- Says of messages that the calling transaction has published after how long nobody wants them any more (null: as if
-- nothing had been said): from then on those that still wait are not claimed, and within two seconds they are
-- cancelled, with "expired" as the reason; what is being handled is not touched, unless it is put back. publish,
-- publish_many and request call it; after a plain INSERT call it in the same transaction. What was copied for
-- subscribers in it expires, too. Messages of a target with expire_after expire so long after they are due, unless
-- this says another. Returns how many messages will expire. Locks: nothing that another transaction can see.
-- SQLSTATEs: MQ002 for a message of another transaction, or one for which it was said before.
create or replace function integration.expire_after(p_ids bigint[], p_after interval[]) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_now   timestamptz := integration.clock();
    v_made  bigint;
    v_mine  bigint;
    v_other bigint;
begin
    with said as materialized (
        select distinct on (x.id) x.id, least(greatest(x.after, '0'), interval '100 years') as after
          from unnest(p_ids, p_after) with ordinality x (id, after, nth) where x.after is not null
         order by x.id, x.nth),
    waiting as materialized (
        select d.id, d.created_at, d.xmin::text as writer, s.after from said s join integration.data_staging d
            on d.id = s.id where d.status in ('pending', 'scheduled')
        union all
        select c.id, c.created_at, c.writer, s.after
          from integration.copies_of(array(select x.id from said x)) c join said s on s.id = c.origin_id),
    made as (
        insert into integration.expiring as e (id, created_at, expires_at, look_at)
        select w.id, w.created_at, v_now + w.after, v_now + w.after from waiting w
        on conflict (id) do update set created_at = excluded.created_at, expires_at = excluded.expires_at,
            look_at = excluded.look_at, by_default = false where e.created_at <> excluded.created_at or e.by_default
        returning e.id, e.xmin::text as writer)
    select count(m.id), count(*), min(w.id) filter (where m.writer is distinct from w.writer)
      into v_mine, v_made, v_other
      from waiting w left join made m on m.id = w.id;
    -- Written by one and the same transaction: nobody else can make a message expire.
    if v_other is not null then
        raise exception 'message % was not published by this transaction, or what expires was said of it before',
            v_other using errcode = 'MQ002', hint = 'say it where it is published, with no savepoint between the two';
    end if;
    return v_mine;
end $$;

-- For on_published, of messages of targets that have an expire_after: these expire so long after they are due.
create or replace function integration.expire_by_default(p_ids bigint[]) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    insert into integration.expiring as e (id, created_at, expires_at, look_at, by_default)
    select m.id, m.created_at, m.at, m.at, true
      from (select d.id, d.created_at,
                   greatest(d.available_at, integration.clock()) + least(t.expire_after, interval '100 years') as at
              from integration.messages_of(p_ids) d join integration.targets t on t.target_app = d.target_app
             where t.expire_after is not null and t.kind = 'queue' and d.status in ('pending', 'scheduled')) m
     where m.at < 'infinity'
    on conflict (id) do update set created_at = excluded.created_at, expires_at = excluded.expires_at,
        look_at = excluded.look_at, by_default = true
$$;

-- For replace_waiting, of a message that it has just changed: it expires as what was published last says, or its
-- target.
create or replace function integration.expire_anew(p_id bigint, p_after interval) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    delete from integration.expiring e where e.id = p_id;
    if p_after is not null then
        perform integration.expire_after(array[p_id], array[p_after]);
    elsif exists (select from integration.settings s where s.has_expiry) then
        perform integration.expire_by_default(array[p_id]);
    end if;
end $$;

-- What was copied of messages that were published a moment ago, as far as it waits. They lie behind them.
create or replace function integration.copies_of(p_ids bigint[])
    returns table (id bigint, created_at timestamptz, writer text, origin_id bigint)
    language plpgsql stable rows 10 set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
begin
    if exists (select from integration.settings s where s.has_topics) then
        return query
            select d.id, d.created_at, d.xmin::text, d.origin_id from integration.data_staging d
             where d.id > (select min(i) from unnest(p_ids) i) and d.origin_id = any (p_ids)
               and d.status in ('pending', 'scheduled');
    end if;
end $$;

-- Whether a message is left out of claims now: it was set aside, or nobody wants it any more. Cheap, so that it is
-- asked after all else; claims ask only while there are such messages.
create or replace function integration.is_left_out(p_id bigint, p_created_at timestamptz) returns boolean
    language plpgsql stable cost 20 set search_path = pg_catalog, pg_temp as $$
begin
    return integration.is_set_aside(p_id, p_created_at) or exists (
        select from integration.expiring e
         where e.id = p_id and e.created_at = p_created_at and e.expires_at <= integration.clock());
end $$;

create or replace trigger targets_expire_after after insert or update of expire_after on integration.targets
    for each row when (new.expire_after is not null) execute function integration.on_first('has_expiry');

-- Cancels messages that have expired and still wait, of p_limit whose time has come; returns how many. What is being
-- handled, or locked by somebody, is looked at again five seconds later.
-- Locks: the rows of expiring and the messages, SKIP LOCKED.
create or replace function integration.expire(p_limit integer default 1000) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_now  timestamptz := integration.clock();
    v_over bigint[];
    v_ids  bigint[];
begin
    v_over := array(
        select e.id from integration.expiring e where e.expires_at <= v_now and e.look_at <= v_now
         order by e.expires_at limit least(p_limit, 10000) for update skip locked);
    if v_over = '{}' then
        return 0;
    end if;
    v_ids := integration.expire_waiting(v_over);
    update integration.expiring e set look_at = v_now + interval '5 s'
      from integration.data_staging d
     where e.id = any (v_over) and d.id = e.id and d.created_at = e.created_at
       and d.status in ('pending', 'scheduled', 'processing') and e.id <> all (v_ids);
    delete from integration.expiring e where e.id = any (v_over) and e.look_at <= v_now;
    return cardinality(v_ids);
end $$;

-- Of messages that have expired, cancels those that still wait; returns their ids. Locks: the rows, SKIP LOCKED.
create or replace function integration.expire_waiting(p_ids bigint[]) returns bigint[]
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_ids bigint[] := array(
        select d.id from integration.data_staging d join integration.expiring e on e.id = d.id
         where d.id = any (p_ids) and d.created_at = e.created_at and d.status in ('pending', 'scheduled')
           and not integration.is_set_aside(d.id, d.created_at)
         order by d.id for no key update of d skip locked);
begin
    v_ids := array(select integration.in_parts('cancel',
        'select integration.cancel_rows($1, integration.expiry_reason())', v_ids));
    insert into integration.deltas (at, messages, target_app, action)
    select integration.clock(), count(*), d.target_app, 'expired'
      from integration.data_staging d where d.id = any (v_ids) group by d.target_app;
    return v_ids;
end $$;

-- For explain: a message that has expired, and is about to be cancelled. Empty result: it has not.
create or replace function integration.explain_expired(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select 'expiring', format('it expired %s ago: nobody takes it any more, and maintenance is about to cancel it',
               integration.in_words(integration.since(e.expires_at))), null::text,
           jsonb_build_object('at', e.expires_at)
      from integration.expiring e join integration.data_staging d on d.id = e.id and d.created_at = e.created_at
     where e.id = p_id and e.expires_at <= integration.clock()
$$;
