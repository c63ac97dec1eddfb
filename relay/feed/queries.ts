/** The queries of a reading session. */

export const COLUMNS = `seq, xid, at, "table", op, type, old, new, meta`

/**
 * Rows, new snapshot, horizon and lease in one statement, so that they belong together. The upper bound keeps out xids
 * of another cluster, which a restored log may hold, until this one's have come that far. The lineage is null while the
 * log has one of another cluster. What stands beside the rows uses the columns that are text already: casting the other
 * columns would cast them in each row.
 */
export const select = (snapshot: string, condition: string) => `
  select null::bigint as seq, null::xid8 as xid, null::timestamptz as at,
         (select (array_agg(id order by number desc))[1] from relay.lineage
          having bool_and(log = 'relay.change'::regclass) and count(distinct (system_identifier, database)) = 1) as "table",
         h::text as op, ${snapshot}::text as type,
         (pg_sequence_last_value('relay.lease') - floor(date_part('epoch', clock_timestamp()) * 1000))::bigint::text as old,
         pg_sequence_last_value('relay.change_seq')::text as new, null as meta
  from relay.horizon
  union all
  select ${COLUMNS} from relay.change
  where xid >= pg_snapshot_xmax($1::pg_snapshot) and xid < pg_snapshot_xmax(pg_current_snapshot()) ${condition}
  union all
  select ${COLUMNS} from relay.change
  where xid = any(array(select pg_snapshot_xip($1::pg_snapshot))) ${condition}
  order by seq nulls first`

export const READ = select("pg_current_snapshot()", "")

/** A long read may go on where another was cut: up to the snapshot of that one, and after its last seq. */
export const LONG_READ = select(
  "coalesce($2::pg_snapshot, pg_current_snapshot())",
  "and seq > $3::bigint and ($2::pg_snapshot is null or pg_visible_in_snapshot(xid, $2::pg_snapshot))",
)

/** Makes the reading session use the index, whatever the statistics say. */
export const SESSION = `
  set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set default_transaction_isolation = 'read committed';
  set plan_cache_mode = force_generic_plan; set jit = off; set enable_seqscan = off;
  set max_parallel_workers_per_gather = 0; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0`

export const LINEAGES = `
  select id from relay.lineage where number >= (select max(number) from relay.lineage where not continues)`

export const REVOCATIONS = "select relay.revocation_text(r) from relay.revocation r where until > now()"
