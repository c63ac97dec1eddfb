/**
 * The same table several times: with nothing on it, with a NOTIFY that carries the row, with a trigger that only logs,
 * which does what every audit trigger does and no more, and with ours.
 */

export const TABLES = ["none", "notify", "log", "ours", "statement"] as const
export type TableName = (typeof TABLES)[number]

/** Makes them, in a database with the election's tables and the changelog. */
export const MAKE_TABLES = `
  ${TABLES.map((name) => `create table writers_${name} (like vote including all); create sequence writers_${name}_next;`).join("")}
  create function writers_notify() returns trigger language plpgsql as $$
  begin
    perform pg_notify('writers', case TG_OP when 'DELETE' then row_to_json(old) else row_to_json(new) end::text);
    return null;
  end $$;
  create trigger notify after insert or update or delete on writers_notify
    for each row execute function writers_notify();
  create table writers_logged (
    seq bigint generated always as identity, xid xid8 default pg_current_xact_id(), at timestamptz default clock_timestamp(),
    name text, op text, old text, new text);
  create index on writers_logged (xid);
  create function writers_log() returns trigger language plpgsql as $$
  begin
    insert into writers_logged (name, op, old, new) values (TG_TABLE_NAME, TG_OP,
      case when TG_OP <> 'INSERT' then row_to_json(old)::text end, case when TG_OP <> 'DELETE' then row_to_json(new)::text end);
    return null;
  end $$;
  create trigger log after insert or update or delete on writers_log for each row execute function writers_log();
  select relay.track('writers_ours', type => 'voting_update');
  select relay.track('writers_statement', type => 'voting_update', level => 'statement');
`

/** New rows, which no trigger sees. */
export const fillTables = (rows: number, tables: readonly TableName[] = TABLES): string => `
  set relay.bulk_load = 'on';
  ${tables
    .map(
      (name) => `
      alter table writers_${name} disable trigger user;
      truncate writers_${name} restart identity;
      insert into writers_${name} (votes) select 1 from generate_series(1, ${rows});
      alter sequence writers_${name}_next restart;
      alter table writers_${name} enable trigger user;`,
    )
    .join("")}
  truncate writers_logged;
  reset relay.bulk_load`
