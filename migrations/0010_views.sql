-- What is there, and since when. The seed's three monitoring queries as views, and the counts behind "doorbell stats".

create view integration.pending_by_app as
    select target_app, count(*) as pending_count
      from integration.data_staging where status = 'pending' group by target_app;

create view integration.stuck as
    select id, target_app, claimed_by, attempt, created_at, integration.clock() - created_at as age
      from integration.data_staging
     where status = 'processing' and updated_at < integration.clock() - interval '1 hour';

create view integration.error_rates as
    select source_app, target_app, count(*) as total,
           count(*) filter (where status = 'failed') as failed,
           round(100.0 * count(*) filter (where status = 'failed') / count(*), 2) as error_rate
      from integration.data_staging
     where created_at > integration.clock() - interval '24 hours'
     group by source_app, target_app;

-- One row per target that has messages. oldest_age: of the oldest message that could be claimed now.
create view integration.stats as
    select target_app,
           count(*) filter (where status = 'pending') as pending,
           count(*) filter (where status = 'scheduled') as scheduled,
           count(*) filter (where status = 'processing') as processing,
           count(*) filter (where status = 'completed') as completed,
           count(*) filter (where status = 'failed') as failed,
           count(*) filter (where status = 'cancelled') as cancelled,
           integration.clock() - min(created_at) filter (where status = 'pending') as oldest_age
      from integration.data_staging group by target_app;

-- Dead letters with their story: what failed again after a redrive says so.
create view integration.dead_letters as
    select id, source_app, target_app, record_type, error_message as reason, attempt, retry_count, crash_count,
           redrive_count, redrive_count > 0 as failed_again, created_at, updated_at as failed_at
      from integration.data_staging where status = 'failed';

-- The life of one message as the audit log has it, oldest first; also after it was archived or deleted.
create function integration.history(p_id bigint) returns table (
    at timestamptz, action text, app_name text, role_name text, incarnation text, attempt integer,
    old_status text, new_status text, details jsonb
)
    language sql stable
    begin atomic
        select a.created_at, a.action, a.app_name, a.role_name, a.incarnation, a.attempt, a.old_status, a.new_status, a.details
          from integration.audit_log a where a.staging_id = p_id order by a.created_at, a.id;
    end;

-- What every consumer process does beside its work, for installations where none runs: rescues, promotes what is due,
-- lets canaries through, creates partitions ahead. Harmless to run anywhere, at any time, any number of times.
-- Returns how many messages were rescued and promoted.
create function integration.maintain(out rescued integer, out promoted integer)
    language plpgsql as $$
declare
    v_targets text[];
begin
    rescued := integration.rescue();
    with recursive due as (
        (select d.target_app from integration.data_staging d where d.status = 'scheduled' order by d.target_app limit 1)
        union all
        select (select d.target_app from integration.data_staging d
                 where d.status = 'scheduled' and d.target_app > due.target_app order by d.target_app limit 1)
          from due where due.target_app is not null)
    select array_agg(x.target_app) into v_targets
      from (select due.target_app from due where due.target_app is not null
            union select coalesce(t.target_app, b.breaker_key) from integration.breakers b
              left join integration.targets t on t.breaker_key = b.breaker_key where b.state = 'open') x;
    promoted := integration.promote(coalesce(v_targets, '{}'));
    perform integration.ensure_partitions();
end $$;
