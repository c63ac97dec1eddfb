-- Lineages: how long transaction ids, and so cursors, mean one thing; and the cursor itself.

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
comment on column relay.lineage.log is 'The oid of relay.change_0: a log that was restored from a dump is another table.';
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
      'relay.change_0'::regclass::oid))
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
    and not exists (select from relay.horizon where files <> relay.log_files())
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
  v_whole boolean;
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
  v_whole := not exists (select from relay.horizon where files <> relay.log_files());
  if v_anew then
    delete from relay.lineage;
  end if;
  insert into relay.lineage (number, system_identifier, timeline, database, log, postmaster_start, continues)
  select coalesce(v_last.number, 0) + 1, s.system_identifier, v_timeline, d.oid, 'relay.change_0'::regclass, pg_postmaster_start_time(),
         not v_anew and v_whole and v_last.timeline = v_timeline and exists (select from relay.unbroken where lineage = v_last.id)
  from pg_control_system() s, pg_database d
  where d.datname = current_database()
  returning id into v_id;
  delete from relay.unbroken;
  insert into relay.unbroken values (v_id);
  if v_anew then
    -- Foreign transaction ids would come up some day. Writers are at work already, and must not queue behind this.
    begin
      perform set_config('lock_timeout', '30ms', true);
      truncate relay.change_0, relay.change_1, relay.change_2;
    exception when lock_not_available then
      delete from relay.change_0;
      delete from relay.change_1;
      delete from relay.change_2;
    end;
    update relay.horizon set h = pg_current_snapshot(), rotated_at = clock_timestamp();
  end if;
  -- Where all was whole nothing is noted, so that what was thrown away since is seen. A rotation may be under way: first
  -- the lock, then a snapshot with what it has left.
  if v_anew or not v_whole then
    perform from relay.horizon for update;
    update relay.horizon set files = relay.log_files();
  end if;
  return v_id;
end
$$;
comment on function relay.meet_lineage() is
  'The id of the present lineage. Adds a row when the server was started, crashed or promoted since, or is another one, or the database is, and when part of the log was thrown away by hand; a copied server or database, or a restored log, also starts empty.';

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
