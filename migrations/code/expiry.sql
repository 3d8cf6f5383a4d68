-- Messages that are not wanted any more after a time.

-- The reason of those that nobody took in time.
create or replace function integration.expiry_reason() returns text
    language sql immutable parallel safe as $$
    select 'expired: nobody took it in time'::pg_catalog.text
$$;

-- Says of messages that the calling transaction has published after how long nobody wants them any more (null: always):
-- those that still wait then are cancelled, with "expired" as the reason, within two seconds; what is being handled is
-- not touched, unless it is put back. Says it once; messages of other transactions are passed over. publish,
-- publish_many and request call it; after a plain INSERT call it in the same transaction. Of a topic it means the
-- topic's own message, not its copies. Returns how many messages will expire.
-- Locks: nothing that another transaction can see.
create or replace function integration.expire_after(p_ids bigint[], p_after interval[]) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_now  timestamptz := integration.clock();
    v_mine bigint[];
    v_made bigint[];
begin
    with made as (
        insert into integration.expiring as e (id, created_at, expires_at, look_at)
        select d.id, d.created_at, v_now + u.bounded, v_now + u.bounded
          from (select distinct on (x.id) x.id, least(greatest(x.after, '0'), interval '100 years') as bounded
                  from unnest(p_ids, p_after) with ordinality x (id, after, nth) where x.after is not null
                 order by x.id, x.nth) u
          join integration.data_staging d on d.id = u.id
        on conflict (id) do update set created_at = excluded.created_at, expires_at = excluded.expires_at,
            look_at = excluded.look_at where e.created_at <> excluded.created_at
        returning e.id, e.xmin::text as writer)
    -- Written by one and the same transaction: nobody else can make a message expire.
    select array_agg(m.id), array_agg(m.id) filter (where d.xmin::text = m.writer) into v_made, v_mine
      from made m join integration.data_staging d on d.id = m.id;
    if v_made is distinct from v_mine then
        delete from integration.expiring e where e.id = any (v_made) and e.id <> all (coalesce(v_mine, '{}'));
    end if;
    return coalesce(cardinality(v_mine), 0);
end $$;

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
        select e.id from integration.expiring e where e.look_at <= v_now
         order by e.look_at limit least(p_limit, 10000) for update skip locked);
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
