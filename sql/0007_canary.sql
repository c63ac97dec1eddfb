-- Runs beside programs from 0006 on: what it adds they do not know, and need not.
-- The canary, with which a relay finds out that it reads what is written; and which programs a schema lets work.

alter table relay.migration add column oldest integer;
comment on column relay.migration.oldest is
  'The number that the last migration of a program has, which may still work with this schema; null: only one that knows this migration.';

-- To relays before this one it is a message for a channel in which nobody is. It does not ring: whether notifications arrive is
-- proven otherwise, and writers should not meet the lock of NOTIFY because of it.
create function relay.canary(name text) returns void
language sql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
  insert into relay.change (op, type, new, meta)
  values ('message', 'canary', to_json(name)::text, '{"channel":"relay:canary"}')
$$;
comment on function relay.canary(text) is 'Writes a row to the log that no client is sent: the relay that wrote it waits for it.';
revoke all on function relay.canary(text) from public;

create or replace function relay.admit_relay(role name) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  execute format('grant usage on schema relay to %I', role);
  execute format('grant select on relay.change, relay.horizon, relay.lineage, relay.migration, relay.tracking, relay.tracked, relay.revocation, relay.derived to %I', role);
  execute format('grant select on sequence relay.lease, relay.slot, relay.pause_switch, relay.change_seq to %I', role);
  execute format('grant execute on function relay.rotate(interval, bigint), relay.advance_slot(smallint), relay.meet_lineage(), relay.contains(pg_snapshot, pg_snapshot), relay.set_lease(integer), relay.end_lease(), relay.layout_holds(regclass, integer), relay.misses_applied(regclass), relay.is_current(relay.tracking), relay.column_name(regclass, integer), relay.is_paused(), relay.revocation_text(relay.revocation), relay.derived_function(text), relay.derive(text, text), relay.canary(text) to %I', role);
end
$$;

-- Whoever was admitted before.
do $$
declare
  v_role name;
begin
  for v_role in
    select distinct r.rolname
    from pg_proc p, aclexplode(p.proacl) a join pg_roles r on r.oid = a.grantee
    where p.oid = 'relay.set_lease(integer)'::regprocedure and a.grantee <> p.proowner
  loop
    perform relay.admit_relay(v_role);
  end loop;
end
$$;
