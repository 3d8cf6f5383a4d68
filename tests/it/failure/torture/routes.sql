-- What stands on messages: a tapped queue, a schedule, a captured table, requests, messages of which only the latest counts. Nobody consumes tapped, ticks and images.
create table chk.stock (id integer primary key, n integer not null);
create table chk.answered (op text not null, reply text not null);
select integration.capture('chk.stock', 'images');
select integration.subscribe('plain', 'tapped', p_tap => true);
select integration.schedule('beat', 'ticks', 'tick', p_every => '1 s', p_missed => 'all', p_missed_max => 1000);

-- Of each key, which number was said last: what says so is published with it, under the key. What was heard, in order.
create table chk.spoken (key text primary key, n integer not null);
insert into chk.spoken select 'key ' || k, 0 from generate_series(1, 5) k;
create table chk.heard (at bigint generated always as identity, key text not null, n integer not null, id bigint not null);
create function chk.speak(p_key text, p_delay interval) returns bigint language plpgsql as $$
declare
    v_n integer;
begin
    update chk.spoken s set n = s.n + 1 where s.key = p_key returning s.n into v_n;
    return integration.publish('speaker', 'latest', 'say', jsonb_build_object('key', p_key, 'n', v_n), p_delay => p_delay,
        p_ordering_key => p_key, p_coalesce_key => p_key, p_max_wait => case when p_delay is not null then interval '1 s' end);
end $$;

create view chk.image as
    select distinct on (m.ordering_key) m.data ->> 'op' as op, (m.data -> 'new' ->> 'id')::integer as id,
           (m.data -> 'new' ->> 'n')::integer as n
      from chk.every m where m.target_app = 'images' order by m.ordering_key, m.id desc;

create view chk.tick as
    select (m.headers ->> 'tick')::timestamptz as tick from chk.every m where m.target_app = 'ticks';

create view chk.routed as
-- R1 of each message of the tapped queue there is one copy, and of nothing else.
select 'R1 copies' as rule, o.id::text as subject, format('%s copies', count(c.id)) as detail
  from chk.msg o left join chk.every c on c.target_app = 'tapped' and c.origin_id = o.id and c.data = o.data
 where o.target_app = 'plain' group by o.id having count(c.id) <> 1
union all
select 'R1 copy of nothing', c.id::text, c.origin_id::text from chk.every c
 where c.target_app = 'tapped' and not exists (select from chk.msg o where o.target_app = 'plain' and o.id = c.origin_id)
union all
-- R2 each tick is fired, and once.
select 'R2 ticks', t.tick::text, format('fired %s times', count(*)) from chk.tick t group by t.tick having count(*) > 1
union all
select 'R2 ticks', 'all', format('%s from %s to %s', count(*), min(t.tick), max(t.tick)) from chk.tick t
having count(distinct t.tick) <> 1 + round(extract(epoch from max(t.tick) - min(t.tick)))
union all
-- R3 the newest images are the table.
select 'R3 images', i.id::text, format('%s, which the table has not', i.n)
  from ((select i.id, i.n from chk.image i where i.op <> 'delete') except table chk.stock) i
union all
select 'R3 images', s.id::text, format('%s, of which there is no image', s.n)
  from (table chk.stock except (select i.id, i.n from chk.image i where i.op <> 'delete')) s
union all
-- R4 what was answered has its own reply, and who asked was told that.
select 'R4 reply', m.data ->> 'op', coalesce(r.reply::text, 'none') from chk.every m
  left join integration.replies r on r.id = m.id and r.created_at = m.created_at
 where m.target_app = 'asked' and m.status = 'completed' and r.reply #>> '{}' is distinct from m.data ->> 'op'
union all
select 'R4 told', a.op, a.reply from chk.answered a where a.reply <> a.op
union all
select 'R4 stuck', m.id::text, m.status from chk.every m
 where m.target_app = 'asked' and m.status in ('pending', 'scheduled', 'processing')
union all
-- R5 what was said last is heard, and heard last; nothing is heard that was replaced, and nothing twice.
select 'R5 last', s.key, format('%s was said, and %s heard', s.n, h.n)
  from chk.spoken s left join lateral (select h.n from chk.heard h where h.key = s.key order by h.at desc limit 1) h on true
 where s.n <> coalesce(h.n, 0)
union all
select 'R5 order', h.id::text, format('%s of %s after %s: %s', h.n, h.key, h.before, h.before_id)
  from (select h.*, lag(h.n) over w as before, lag(h.id) over w as before_id from chk.heard h window w as (partition by h.key order by h.at)) h
 where h.n <= h.before
union all
select 'R5 heard', x.key, format('%s, as no message says', x.n)
  from (select h.key, h.n from chk.heard h
        except select m.data ->> 'key', (m.data ->> 'n')::integer from chk.every m
                where m.target_app = 'latest' and m.status = 'completed') x
union all
select 'R5 unheard', m.id::text, m.data::text from chk.every m
 where m.target_app = 'latest' and not exists (
    select from chk.heard h where h.key = m.data ->> 'key' and h.n = (m.data ->> 'n')::integer);
