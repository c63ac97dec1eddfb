-- Rights, in one place. Everything belongs to the schema's owner; whoever writes a tracked table needs no right here.

revoke all on all functions in schema relay from public;
revoke all on all tables in schema relay from public;
revoke all on all sequences in schema relay from public;

grant usage on schema relay to public;
-- The condition of a trigger runs with the writer's rights.
grant execute on function relay.cursor(), relay.captures(), relay.summarises() to public;

comment on schema relay is
  'CommitCast: the changelog of the tracked tables. relay.track, relay.untrack, relay.tracked, relay.cursor(), relay.send_to_user, relay.broadcast, relay.revoke, relay.reinstate.';

-- From the beginning: what was logged before is known to belong to this database, and a restored copy to be one.
do $$ begin perform relay.meet_lineage(); end $$;
