-- The state that all writers see at once: which table of the log they fill, whether they ring, whether they capture.

create sequence relay.state as smallint minvalue 0 maxvalue 15 start 0;
do $$ begin perform setval('relay.state', 0); end $$;
comment on sequence relay.state is
  'The number of the table that writers fill (0 to 2), plus 4 while a relay polls so that they need not ring, plus 8 while the capture is paused. One number, because a writer pays for each that it asks; a sequence, because its value is set outside any transaction, so that no writer reads it stale.';

do $$ begin
  -- Unlogged, so that a crash resets it and a standby never shows it; PostgreSQL 14 has no unlogged sequences.
  execute case when current_setting('server_version_num')::int >= 150000 then 'create unlogged sequence relay.lease'
               else 'create sequence relay.lease' end;
end $$;
comment on sequence relay.lease is
  'Until when (milliseconds since 1970) some relay polls. Writers look at relay.state alone; a relay whose read shows a lease that is over takes it away, and waits for those who saw it.';

-- Null where the sequence was never set, as in a database that was made from a dump without data.
create function relay.state() returns integer
language sql volatile set search_path = pg_catalog, relay, pg_temp as $$
  select coalesce(pg_sequence_last_value('relay.state'), 0)::integer
$$;

create function relay.slot() returns smallint
language sql volatile set search_path = pg_catalog, relay, pg_temp as $$ select (relay.state() % 4)::smallint $$;
comment on function relay.slot() is 'The number of the table that writers fill.';

create function relay.is_paused() returns boolean
language sql volatile set search_path = pg_catalog, relay, pg_temp as $$ select relay.state() >= 8 $$;
comment on function relay.is_paused() is 'Whether the capture is paused.';

create function relay.set_state(slot integer default null, polled boolean default null, paused boolean default null) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_state integer := relay.state();
begin
  perform setval('relay.state', coalesce(slot, v_state % 4)
    + case when coalesce(polled, v_state & 4 <> 0) then 4 else 0 end
    + case when coalesce(paused, v_state & 8 <> 0) then 8 else 0 end);
end
$$;
comment on function relay.set_state(integer, boolean, boolean) is
  'Sets a part of the state and leaves the rest. Call it with the row of relay.horizon locked: two at once would undo each other.';

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
  v_polled boolean := relay.state() & 4 <> 0;
begin
  if v_polled and v_before >= v_until and relay.lease_in_force(v_before) then
    return v_before;
  end if;
  perform setval('relay.lease', v_until);
  if not v_polled then
    -- Whoever holds the row is brief, or has left a transaction open; the next read asks again.
    perform from relay.horizon for update skip locked;
    if not found then
      return v_until;
    end if;
    perform relay.set_state(polled => true);
  end if;
  -- A relay that reads sees a lease follow the other, and needs no telling. Asked only now that the new one is set:
  -- had the old one ended before, a relay could have seen none, and have gone quiet.
  if not (v_polled and relay.lease_in_force(v_before)) then
    perform pg_notify('election_updates', '{"v":1,"lease":' || v_duration || '}');
  end if;
  return v_until;
end
$$;
comment on function relay.set_lease(integer) is
  'Extends the lease to now plus the given milliseconds (2000 at most), never shortens it, and tells all relays if none was in force. Returns its end.';

create function relay.end_lease() returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
begin
  if relay.state() & 4 = 0 then
    return true;
  end if;
  perform from relay.horizon for update skip locked;
  -- Looked at under the lock, so that a lease that another relay takes meanwhile is not ended.
  if not found or relay.lease_in_force(pg_sequence_last_value('relay.lease')) then
    return false;
  end if;
  perform relay.set_state(polled => false);
  return true;
end
$$;
comment on function relay.end_lease() is
  'Has writers ring again once the lease is over or void, so that no step of the clock brings it back when nobody polls any more. False while one is in force.';

create function relay.ring(table_name text, op text, row_count bigint) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  -- NOTIFY holds a lock of the whole cluster through the commit, so it is left out while a relay polls. The change is
  -- in the log by now and this transaction has its xid: a relay that lets its lease end waits for it.
  if relay.state() & 4 <> 0 or current_setting('relay.bell', true) = 'off' then
    return;
  end if;
  perform pg_notify('election_updates',
    '{"v":1,"table":' || to_json(table_name)::text || ',"op":"' || op || '","rows":' || row_count
    || ',"xid":"' || pg_current_xact_id()::text || '"}');
end
$$;
comment on function relay.ring(text, text, bigint) is
  'Wakes the relays at commit, unless one of them polls anyway. With the setting relay.bell = off it never rings (two-phase commit).';

create function relay.pause() returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  perform from relay.horizon for update;
  perform relay.set_state(paused => true);
end
$$;
comment on function relay.pause() is
  'Ends the capture of all tables at once, for everybody, without a lock that writers meet: the way out when the changelog cannot be written. What is written meanwhile is not sent.';

create function relay.resume() returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_own numeric;
  v_fence numeric;
begin
  if not relay.is_paused() then
    return;
  end if;
  perform from relay.horizon for update;
  perform relay.set_state(paused => false);
  -- Whoever wrote while nothing was captured had its xid before the state was set, so it lies below an xid taken
  -- after that. The lock has given this transaction its own, so it takes that of a subtransaction, which xmin shows.
  -- (A snapshot's xmax would be no fence: the youngest transactions lie above it.)
  begin
    update relay.horizon set rotated_at = rotated_at;
  exception when lock_not_available then
    raise;
  end;
  v_own := pg_current_xact_id()::text::numeric;
  select xmin::text::numeric into v_fence from relay.horizon;
  v_fence := v_fence + 4294967296 * (div(v_own, 4294967296) + case when v_fence < mod(v_own, 4294967296) then 1 else 0 end);
  update relay.horizon set h = format('%1$s:%1$s:', v_fence)::pg_snapshot
  where pg_snapshot_xmax(h)::text::numeric <= v_fence;
end
$$;
comment on function relay.resume() is
  'Captures again. No cursor from before can be continued: every client is told to load its state, once all transactions that are open now have ended.';

create function relay.rotate(older_than interval, larger_than bigint) returns smallint
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp set lock_timeout = '30ms' as $$
declare
  v_slot smallint := relay.slot();
  v_next smallint := (v_slot + 1) % 3;
  v_last xid8;
  v_file oid;
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
  -- Waits for every transaction that still writes to the table, for 30 ms at most; the next attempt comes later.
  execute format('lock table relay.change_%s in access exclusive mode', v_next);
  -- Another relay may have rotated and advanced meanwhile: then the writers fill this one now.
  if relay.slot() <> v_slot then
    return null;
  end if;
  -- Foreign xids of a restored log do not count: no cursor of this lineage can contain them.
  execute format('select max(xid) from relay.change_%s where xid < pg_snapshot_xmax(pg_current_snapshot())', v_next)
    into v_last;
  v_file := pg_relation_filenode(format('relay.change_%s', v_next)::regclass);
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
  -- Of this table alone, and only if it was whole: what somebody else has thrown away must still be seen.
  update relay.horizon
     set rotated_at = clock_timestamp(),
         files[v_next + 1] = case files[v_next + 1] when v_file then pg_relation_filenode(format('relay.change_%s', v_next)::regclass) else 0 end;
  return v_next;
end
$$;
comment on function relay.rotate(interval, bigint) is
  'Empties the oldest table of the log if the current one is older than the interval or larger than the bytes. Returns the slot to pass to relay.advance_slot once this is committed, or null. Fails with lock_not_available when the table is in use.';

create function relay.advance_slot(next_slot smallint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp set lock_timeout = '1s' as $$
begin
  perform from relay.horizon for update;
  if next_slot = (relay.slot() + 1) % 3 then
    perform relay.set_state(slot => next_slot);
  end if;
end
$$;
comment on function relay.advance_slot(smallint) is
  'Points the writers at the table that relay.rotate has emptied. A call of its own, after the commit: in the same transaction writers would wait for the lock. Then relay.renew() makes the code that fills this table the fast one.';
