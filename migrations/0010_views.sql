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
