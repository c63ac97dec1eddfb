-- The changelog: what is written to it, what each row of it means, and where a reader stands in it.

-- A superuser must not own what runs with its owner's rights, so it makes a role that may not even log in.
do $$
declare
  v_owner name := 'relay_owner_' || (select oid from pg_database where datname = current_database());
begin
  if not (select rolsuper from pg_roles where rolname = current_user) then
    create schema relay;
    return;
  end if;
  if not exists (select 1 from pg_roles where rolname = v_owner) then
    execute format('create role %I nologin', v_owner);
  end if;
  execute format('create schema relay authorization %I', v_owner);
  perform set_config('role', v_owner, true);
end
$$;

create table relay.migration (
  version integer primary key,
  name text not null,
  hash text not null,
  oldest integer,
  applied_at timestamptz not null default clock_timestamp()
);
comment on table relay.migration is
  'The migrations that were applied, each with the SHA-256 of its text. A relay refuses a schema newer than itself.';
comment on column relay.migration.oldest is
  'The number that the last migration of a program has, which may still work with this schema; null: only one that knows this migration.';

create table relay.what (
  id integer primary key,
  "table" text,
  type text not null,
  op text not null,
  oversize boolean not null default false,
  meta text
);
comment on table relay.what is
  'What a row of the log is: written once when a table is tracked, and never changed, so that the log names it by a number and a writer does not repeat it.';
comment on column relay.what.op is 'insert, update, delete, truncate, bulk_load, message, revocation or canary.';
comment on column relay.what.type is 'The message type on the wire, for example voting_update.';
comment on column relay.what.oversize is 'The rows were too large: of each there are only the key and the columns that make channels.';
comment on column relay.what.meta is 'JSON text: key (column names), exact (key columns sent as strings), scope (channel prefix to column name), instants (columns that the reader writes anew in UTC), deferred (whether two rows may have the same key), restricted (columns, each with the roles that may see it).';
insert into relay.what (id, type, op) values (1, 'message', 'message'), (2, 'revocation', 'revocation'), (3, 'canary', 'canary');

create sequence relay.change_seq as bigint cache 1;

-- Three plain tables, emptied by TRUNCATE in turn: as partitions of one they cost each writer a fifth of the capture.
-- Without CHECK constraints, which PostgreSQL reads anew for each statement; only the functions below write here.
-- They are read through the index alone, so that autovacuum would find nothing to clean. One on seq beside a LIMIT
-- would tempt the planner into scanning a whole table.
do $$
begin
  for slot in 0..2 loop
    execute format($table$
      create table relay.change_%1$s (
        seq bigint not null default nextval('relay.change_seq'),
        xid xid8 not null default pg_current_xact_id(),
        at timestamptz not null default clock_timestamp(),
        what integer not null,
        data text
      ) with (autovacuum_enabled = off);
      create index change_%1$s_xid on relay.change_%1$s (xid);
      comment on table relay.change_%1$s is 'A third of the log: read relay.change instead.';
      comment on column relay.change_%1$s.data is 'JSON text. Of a new row that nothing had touched since: the row. Of any other: an array of the row before (update, delete), the row after (insert, update), and what tells of these versions: their ctids, the xmin of a deleted one, in a partition also its oid.';
    $table$, slot);
  end loop;
end
$$;

create view relay.change as
select c.seq, c.xid, c.at, w."table", w.op, w.type,
       case when w.op in ('update', 'delete') then (c.data::json -> 0)::text end as old,
       case w.op when 'insert' then case when c.data like '{%' then c.data else (c.data::json -> 0)::text end when 'update' then (c.data::json -> 1)::text
                 when 'message' then (c.data::json -> 'payload')::text when 'canary' then c.data end as new,
       case when w.op in ('truncate', 'bulk_load') then (w.meta::jsonb || coalesce(c.data::jsonb, '{}'))::text
            when w.op = 'message' then json_build_object('channel', c.data::json ->> 'channel')::text
            when w.op = 'revocation' then c.data
            else w.meta end as meta
from (select seq, xid, at, what, data from relay.change_0 union all
      select seq, xid, at, what, data from relay.change_1 union all
      select seq, xid, at, what, data from relay.change_2) c
left join relay.what w on w.id = c.what;
comment on view relay.change is
  'The changelog for people: one row a committed change. A program reads it by the difference of two snapshots, never by "seq > last": seq is taken before the commit. Within one difference the order is seq.';
comment on column relay.change.seq is 'Taken while the row lock is held: orders the changes of one row. It has gaps. On the wire it is the id.';
comment on column relay.change.xid is 'The top-level transaction.';
comment on column relay.change.at is 'When the row was written, which precedes the commit.';

create function relay.log_files() returns oid[]
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select array(select c.relfilenode from pg_class c
               where c.relnamespace = 'relay'::regnamespace and c.relname in ('change_0', 'change_1', 'change_2') order by c.relname)
$$;
comment on function relay.log_files() is
  'The files in which the tables of the log lie, in this snapshot: a table that was emptied, made anew or swapped has another.';

create table relay.horizon (
  only_row boolean primary key default true check (only_row),
  h pg_snapshot not null,
  rotated_at timestamptz not null default clock_timestamp(),
  files oid[] not null
);
insert into relay.horizon (h, files) values (pg_current_snapshot(), relay.log_files());
comment on table relay.horizon is
  'What was rotated out: a cursor that does not contain h may have lost changes and cannot be continued.';
comment on column relay.horizon.files is
  'relay.log_files() as the last rotation or lineage left it. Where it differs somebody else has thrown away part of the log, and the lineage ends.';

-- A rule and no trigger: it costs nothing where nothing is deleted.
do $$
begin
  for slot in 0..2 loop
    execute format('create rule deleted as on delete to relay.change_%s do also update relay.horizon set files = %L', slot, '{}');
    execute format('create rule updated as on update to relay.change_%s do also update relay.horizon set files = %L', slot, '{}');
  end loop;
end
$$;

create function relay.contains(cursor_snapshot pg_snapshot, other pg_snapshot) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, relay, pg_temp as $$
  select pg_snapshot_xmax(cursor_snapshot) >= pg_snapshot_xmax(other)
     and not exists (
       select 1 from pg_snapshot_xip(cursor_snapshot) x
       where x < pg_snapshot_xmax(other) and x not in (select pg_snapshot_xip(other)))
$$;
comment on function relay.contains(pg_snapshot, pg_snapshot) is
  'Whether everything that is decided in the second snapshot is decided in the first.';
