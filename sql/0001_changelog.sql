-- The changelog, its reading order, its rotation and its lineage.

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
  applied_at timestamptz not null default clock_timestamp()
);
comment on table relay.migration is
  'The migrations that were applied, each with the SHA-256 of its text. A relay refuses a schema newer than itself.';

create sequence relay.change_seq as bigint cache 1;

create sequence relay.slot as smallint minvalue 0 maxvalue 2 start 0;
do $$ begin perform setval('relay.slot', 0); end $$;
comment on sequence relay.slot is
  'The partition that writers fill: its value, set outside any transaction, so that no writer reads it stale.';

create table relay.change (
  slot smallint not null default pg_sequence_last_value('relay.slot'),
  seq bigint not null default nextval('relay.change_seq'),
  xid xid8 not null default pg_current_xact_id(),
  at timestamptz not null default clock_timestamp(),
  "table" text,
  op text not null,
  type text not null,
  old text,
  new text,
  meta text
) partition by list (slot);
-- No CHECK constraints: PostgreSQL reads each one's expression anew for every statement, which cost a writer of single
-- rows a fifth of the whole capture. Only the functions below write here.

-- Emptied by TRUNCATE in turn and read through the index alone: autovacuum would find nothing to clean.
create table relay.change_0 partition of relay.change for values in (0) with (autovacuum_enabled = off);
create table relay.change_1 partition of relay.change for values in (1) with (autovacuum_enabled = off);
create table relay.change_2 partition of relay.change for values in (2) with (autovacuum_enabled = off);

-- The only index. One on seq beside a LIMIT would tempt the planner into scanning the whole log.
create index change_xid on relay.change (xid);

comment on table relay.change is
  'One row a committed change. Read it by the difference of two snapshots, never by "seq > last": seq is taken before the commit. Within one difference the order is seq.';
comment on column relay.change.seq is 'Taken while the row lock is held: orders the changes of one row. It has gaps. On the wire it is the id.';
comment on column relay.change.xid is 'The top-level transaction.';
comment on column relay.change.at is 'When the row was written, which precedes the commit.';
comment on column relay.change.op is 'insert, update, delete, truncate, bulk_load, message or revocation.';
comment on column relay.change.type is 'The message type on the wire, for example voting_update.';
comment on column relay.change.old is 'The row before, as JSON text; update and delete only.';
comment on column relay.change.new is 'The row after, as JSON text; insert and update only. For op message: the payload.';
comment on column relay.change.meta is 'JSON text: key (column names), exact (key columns sent as strings), scope (channel prefix to column name), restricted (columns, each with the roles that may see it), and facts of truncate, bulk_load and message. For op revocation: relay.revocation_text.';

create table relay.horizon (
  only_row boolean primary key default true check (only_row),
  h pg_snapshot not null,
  rotated_at timestamptz not null default clock_timestamp()
);
insert into relay.horizon (h) values (pg_current_snapshot());
comment on table relay.horizon is
  'What was rotated out: a cursor that does not contain h may have lost changes and cannot be continued.';

create function relay.contains(cursor_snapshot pg_snapshot, other pg_snapshot) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, relay, pg_temp as $$
  select pg_snapshot_xmax(cursor_snapshot) >= pg_snapshot_xmax(other)
     and not exists (
       select 1 from pg_snapshot_xip(cursor_snapshot) x
       where x < pg_snapshot_xmax(other) and x not in (select pg_snapshot_xip(other)))
$$;
comment on function relay.contains(pg_snapshot, pg_snapshot) is
  'Whether everything that is decided in the second snapshot is decided in the first.';

create function relay.rotate(older_than interval, larger_than bigint) returns smallint
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp set lock_timeout = '30ms' as $$
declare
  v_slot smallint := pg_sequence_last_value('relay.slot');
  v_next smallint := (v_slot + 1) % 3;
  v_last xid8;
begin
  -- With one snapshot for all, taken before the lock, a transaction that ends in between would be thrown away unseen.
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'relay.rotate() can only be used in READ COMMITTED' using errcode = 'active_sql_transaction';
  end if;
  -- One at a time. An advisory lock would do, but anybody may hold that.
  perform from relay.horizon
  where rotated_at + older_than <= clock_timestamp()
     or pg_total_relation_size(format('relay.change_%s', v_slot)::regclass) >= larger_than
  for update skip locked;
  if not found then
    return null;
  end if;
  -- Waits for every transaction that still writes to the partition, for 30 ms at most; the next attempt comes later.
  execute format('lock table relay.change_%s in access exclusive mode', v_next);
  -- Another relay may have rotated and advanced meanwhile: then the writers fill this one now.
  if pg_sequence_last_value('relay.slot') <> v_slot then
    return null;
  end if;
  -- Foreign xids of a restored log do not count: no cursor of this lineage can contain them.
  execute format('select max(xid) from relay.change_%s where xid < pg_snapshot_xmax(pg_current_snapshot())', v_next)
    into v_last;
  execute format('truncate relay.change_%s', v_next);
  if v_last is not null then
    -- Every xid up to the last one that is thrown away must be decided in a cursor that is to be continued, but for
    -- those in flight now: they hold no lock here, so no change of theirs was thrown away. What the horizon demands
    -- already stays demanded.
    update relay.horizon
       set h = (
         select format('%s:%s:%s', coalesce(min(x::text::numeric), xmax), xmax,
                       string_agg(x::text, ',' order by x::text::numeric))::pg_snapshot
         from (select greatest(pg_snapshot_xmax(h)::text::numeric, v_last::text::numeric + 1)) m(xmax)
         left join lateral (
           select pg_snapshot_xip(pg_current_snapshot()) union select pg_current_xact_id()) f(x)
           on x::text::numeric < xmax and not pg_visible_in_snapshot(x, h)
         group by xmax);
  end if;
  update relay.horizon set rotated_at = clock_timestamp();
  return v_next;
end
$$;
comment on function relay.rotate(interval, bigint) is
  'Empties the oldest partition if the current one is older than the interval or larger than the bytes. Returns the slot to pass to relay.advance_slot once this is committed, or null. Fails with lock_not_available when the partition is in use.';

create function relay.advance_slot(next_slot smallint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
begin
  if next_slot = (pg_sequence_last_value('relay.slot') + 1) % 3 then
    perform setval('relay.slot', next_slot);
  end if;
end
$$;
comment on function relay.advance_slot(smallint) is
  'Points the writers at the partition that relay.rotate has emptied. A call of its own, after the commit: in the same transaction writers would wait for the lock.';

create table relay.lineage (
  id text primary key default substr(md5(gen_random_uuid()::text), 1, 12),
  number integer not null,
  system_identifier bigint not null,
  timeline integer not null,
  database oid not null,
  log oid not null,
  postmaster_start timestamptz not null,
  continues boolean not null,
  met_at timestamptz not null default clock_timestamp()
);
comment on table relay.lineage is
  'Each stretch in which transaction ids are known to mean one thing, in order. A cursor names the one that it was made in.';
comment on column relay.lineage.log is 'The oid of relay.change: a log that was restored from a dump is another table.';
comment on column relay.lineage.continues is 'Whether the cursors of the row before still hold: only after a shutdown in order of the same server and database.';

create unlogged table relay.unbroken (
  lineage text not null
);
comment on table relay.unbroken is
  'Names the last lineage. PostgreSQL empties unlogged tables in crash recovery, on promotion and in a restored backup, and keeps them through a shutdown in order. So this tells one from the other, also after the crash of a single server process, which the start time of the server does not show.';

create function relay.foreign_lineages() returns boolean
language sql stable security definer set search_path = pg_catalog, relay, pg_temp as $$
  select exists (
    select from relay.lineage
    where (system_identifier, database, log) <> (
      (select s.system_identifier from pg_control_system() s),
      (select oid from pg_database where datname = current_database()),
      'relay.change'::regclass::oid))
$$;
comment on function relay.foreign_lineages() is
  'Whether the database or the log came from elsewhere. A restore from a dump may bring rows after a relay has met the new log.';

create function relay.present_lineage() returns text
language sql stable security definer set search_path = pg_catalog, relay, pg_temp as $$
  select id from relay.lineage
  where number = (select max(number) from relay.lineage)
    and exists (select from relay.unbroken where lineage = id)
    and timeline = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer
    and postmaster_start = pg_postmaster_start_time()
    and not relay.foreign_lineages()
$$;
comment on function relay.present_lineage() is
  'The id of the present lineage; null if no relay has met it yet.';

create function relay.meet_lineage() returns text
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_id text := relay.present_lineage();
  v_last relay.lineage;
  v_timeline integer := ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
  v_anew boolean;
begin
  if v_id is not null then
    return v_id;
  end if;
  lock table relay.lineage in share row exclusive mode;
  v_id := relay.present_lineage();
  if v_id is not null then
    return v_id;
  end if;
  select * into v_last from relay.lineage order by number desc limit 1;
  v_anew := v_last.id is null or relay.foreign_lineages();
  if v_anew then
    delete from relay.lineage;
  end if;
  insert into relay.lineage (number, system_identifier, timeline, database, log, postmaster_start, continues)
  select coalesce(v_last.number, 0) + 1, s.system_identifier, v_timeline, d.oid, 'relay.change'::regclass, pg_postmaster_start_time(),
         not v_anew and v_last.timeline = v_timeline and exists (select from relay.unbroken where lineage = v_last.id)
  from pg_control_system() s, pg_database d
  where d.datname = current_database()
  returning id into v_id;
  delete from relay.unbroken;
  insert into relay.unbroken values (v_id);
  if v_anew then
    -- Foreign transaction ids would come up some day. Writers are at work already, and must not queue behind this.
    begin
      perform set_config('lock_timeout', '30ms', true);
      truncate relay.change;
    exception when lock_not_available then
      delete from relay.change;
    end;
    update relay.horizon set h = pg_current_snapshot(), rotated_at = clock_timestamp();
  end if;
  return v_id;
end
$$;
comment on function relay.meet_lineage() is
  'The id of the present lineage. Adds a row when the server was started, crashed or promoted since, or is another one, or the database is; a copied server or database, or a restored log, also starts empty.';

create function relay.begin_lineage() returns text
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  delete from relay.unbroken;
  return relay.meet_lineage();
end
$$;
comment on function relay.begin_lineage() is
  'Ends the present lineage: no cursor from before can be continued, and every client is told to load its state again. For what PostgreSQL does not show, such as pg_resetwal.';

create function relay.forget_log() returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  perform relay.begin_lineage();
  -- Anybody can write the new lineage in front of a snapshot from before. What the horizon demands stays demanded.
  update relay.horizon
     set h = (
       select format('%s:%s:%s', coalesce(min(x::text::numeric), xmax), xmax,
                     string_agg(x::text, ',' order by x::text::numeric))::pg_snapshot
       from (select greatest(pg_snapshot_xmax(h)::text::numeric, pg_snapshot_xmax(pg_current_snapshot())::text::numeric)) m(xmax)
       left join lateral (select pg_snapshot_xip(h) union select pg_snapshot_xip(pg_current_snapshot())) f(x)
         on not pg_visible_in_snapshot(x, h) and not pg_visible_in_snapshot(x, pg_current_snapshot())
       group by xmax);
end
$$;
comment on function relay.forget_log() is
  'Begins a lineage and raises the horizon: whatever was committed before is sent to nobody any more, not even to who makes up a cursor. Rows of transactions that are in flight are.';

create function relay.cursor() returns text
language plpgsql stable security definer set search_path = pg_catalog, relay, pg_temp as $$
begin
  if pg_is_in_recovery() then
    raise exception 'relay.cursor() cannot be used on a standby: transactions in flight are not listed there'
      using errcode = 'feature_not_supported', hint = 'Read the state and the cursor from the primary.';
  end if;
  if pg_current_xact_id_if_assigned() is not null then
    raise exception 'relay.cursor() cannot be used in a transaction that has written: its own changes would be missed'
      using errcode = 'active_sql_transaction', hint = 'Call it in a transaction of its own that only reads: begin isolation level repeatable read read only.';
  end if;
  -- Before a relay has met the present lineage nobody can promise anything: 0 is no lineage, and makes the client load anew.
  return coalesce(relay.present_lineage(), '0') || ':' || pg_current_snapshot()::text;
end
$$;
comment on function relay.cursor() is
  'The position of this snapshot in the changelog. In a REPEATABLE READ transaction that reads the tables, connecting with it misses nothing and repeats nothing; in READ COMMITTED call it first, then read.';

do $$ begin
  -- Unlogged, so that a crash resets it and a standby never shows it; PostgreSQL 14 has no unlogged sequences.
  execute case when current_setting('server_version_num')::int >= 150000 then 'create unlogged sequence relay.lease'
               else 'create sequence relay.lease' end;
end $$;
comment on sequence relay.lease is
  'Until when (milliseconds since 1970) some relay polls by itself and needs no bell. Triggers look only for whether there is a value; a relay whose read shows one that is over takes it away, and waits for those who saw it.';

create function relay.lease_in_force(lease bigint) returns boolean
language sql volatile set search_path = pg_catalog, relay, pg_temp as $$
  select (lease - (date_part('epoch', clock_timestamp()) * 1000)::bigint between 0 and 5000) is true
$$;
comment on function relay.lease_in_force(bigint) is
  'Whether a lease with that end is in force now. One more than 5 s ahead is void: a clock that stepped back must not keep a relay polling for long.';

create function relay.set_lease(duration_ms integer) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_duration integer := least(greatest(duration_ms, 0), 2000);
  v_until bigint := (date_part('epoch', clock_timestamp()) * 1000)::bigint + v_duration;
  v_before bigint := pg_sequence_last_value('relay.lease');
begin
  if v_before >= v_until and relay.lease_in_force(v_before) then
    return v_before;
  end if;
  perform setval('relay.lease', v_until);
  -- A relay that reads sees a lease follow the other, and needs no telling. Asked only now that the new one is set:
  -- had the old one ended before, a relay could have seen none, and have gone quiet.
  if not relay.lease_in_force(v_before) then
    perform pg_notify('election_updates', '{"v":1,"lease":' || v_duration || '}');
  end if;
  return v_until;
end
$$;
comment on function relay.set_lease(integer) is
  'Extends the lease to now plus the given milliseconds (2000 at most), never shortens it, and tells all relays if none was in force. Returns its end.';

create function relay.end_lease() returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_lease bigint := pg_sequence_last_value('relay.lease');
begin
  if relay.lease_in_force(v_lease) then
    return false;
  end if;
  if v_lease is not null then
    perform setval('relay.lease', 1, false);
  end if;
  return true;
end
$$;
comment on function relay.end_lease() is
  'Takes away a lease that is over or void, so that no step of the clock brings it back when nobody polls any more. False while one is in force.';
