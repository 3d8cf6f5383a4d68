-- The rows of {table}, read as they would be adopted, by status; and what no message may have, the first of it per row.
select case when p.problem is null then m.status end, p.problem, count(*), min(m.id)
  from (select {columns} from {table} o) m
 cross join lateral (select case
    when m.id is null or m.id < 1 then 'an id below 1'
    when m.status is null then 'the status null'
    when m.status <> all ($2) then format('the status %L, which is none of %s', left(m.status, 60),
        array_to_string($2, ', '))
    when coalesce(char_length(m.source_app), 0) not between 1 and 50 then 'a source_app of less than 1 or more than 50 characters'
    when coalesce(char_length(m.target_app), 0) not between 1 and 50 then 'a target_app of less than 1 or more than 50 characters'
    when coalesce(char_length(m.record_type), 0) not between 1 and 50 then 'a record_type of less than 1 or more than 50 characters'
    when m.data is null then 'data that is null'
    when m.retry_count < 0 then 'a retry_count below 0'
    when not m.created_at between '0001-01-01 UTC' and '9999-12-31 UTC'
        or not m.updated_at between '0001-01-01 UTC' and '9999-12-31 UTC'
        or not m.processed_at between '0001-01-01 UTC' and '9999-12-31 UTC' then 'a time outside of the years 1 to 9999'
    end) p (problem)
 group by 1, 2
 order by 2, 1
