-- Rights, in one place. Everything belongs to the schema's owner; whoever writes a tracked table needs no right here.

create function relay.admit_relay(role name) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  perform relay.must_name_role(role);
  execute format('grant usage on schema relay to %I', role);
  execute format('grant select on relay.change_0, relay.change_1, relay.change_2, relay.change, relay.what, relay.horizon, relay.lineage, relay.migration, relay.tracking, relay.tracked, relay.revocation, relay.derived to %I', role);
  execute format('grant select on sequence relay.state, relay.lease, relay.change_seq to %I', role);
  execute format('grant execute on function relay.rotate(interval, bigint), relay.advance_slot(smallint), relay.renew(), relay.watch(), relay.mend_as_owner(regclass), relay.meet_lineage(), relay.contains(pg_snapshot, pg_snapshot), relay.set_lease(integer), relay.end_lease(), relay.problem(relay.tracking), relay.revocation_text(relay.revocation), relay.derived_function(text), relay.derive(text, text), relay.canary(text) to %I', role);
end
$$;
comment on function relay.admit_relay(name) is 'Grants a role what a relay process needs, and nothing that reads or writes the tables themselves.';

create function relay.admit_publisher(role name) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  perform relay.must_name_role(role);
  execute format('grant usage on schema relay to %I', role);
  execute format('grant execute on function relay.send_to_user(text, jsonb), relay.broadcast(text, jsonb) to %I', role);
end
$$;
comment on function relay.admit_publisher(name) is 'Grants a role the right to send messages of the application.';

do $$ begin
  perform relay.take_back(case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass::text, c.relacl, c.relowner)
  from pg_class c where c.relnamespace = 'relay'::regnamespace and c.relkind in ('r', 'v', 'S') and c.relacl is not null;
  perform relay.take_back('function', p.oid::regprocedure::text, p.proacl, p.proowner)
  from pg_proc p where p.pronamespace = 'relay'::regnamespace;
  perform relay.take_back('schema', 'relay', n.nspacl, n.nspowner) from pg_namespace n where n.nspname = 'relay' and n.nspacl is not null;
end $$;

grant usage on schema relay to public;
grant execute on function relay.cursor() to public;

comment on schema relay is
  'CommitCast: the changelog of the tracked tables. relay.track, relay.untrack, relay.tracked, relay.cursor(), relay.send_to_user, relay.broadcast, relay.revoke, relay.reinstate.';

-- From the beginning: what was logged before is known to belong to this database, and a restored copy to be one.
do $$ begin perform relay.meet_lineage(); end $$;
