/** The queries of a reading session. */

import { z } from "zod"

/** The tables of the log, by slot. */
export const SLOTS = [0, 1, 2] as const
export type Slot = (typeof SLOTS)[number]

/** A short read brings no row that is larger than this. Bytes. */
export const SHORT_ROW_BYTES = 65_536
/** A larger row of a long read comes by a query of its own. Bytes. */
export const INLINE_BYTES = 16_384
/** A larger row is not read at all. Bytes. */
export const MAX_ROW_BYTES = 67_108_864

const integer = z.string().regex(/^\d+$/)
/** The lineage's row, which every read compares with what is there. */
export const Identity = z.object({ number: integer, system: integer, database: integer, log: integer })
export type Identity = z.infer<typeof Identity>

export const IDENTITY = `
  select number::text, system_identifier::text as system, database::oid::text, log::oid::text
  from relay.lineage where id = $1`

/** Stands for a lineage of which some row is of another server, database or log. */
const FOREIGN = 2_147_483_647

/** Stands for a lineage of which somebody has thrown away a part of the log. */
export const TORN = 0

/**
 * Whether the log lies in the files that relay.horizon knows. First as they are now, which costs next to nothing, and only
 * where that differs as they are in this snapshot, since a rotation may have changed them after it.
 */
const WHOLE = `(
  files = array[${SLOTS.map((slot) => `pg_relation_filenode('relay.change_${slot}'::regclass)`).join(", ")}]::oid[]
  or files = array(
    select c.relfilenode from pg_class c
    where c.relnamespace = 'relay'::regnamespace and c.relname in (${SLOTS.map((slot) => `'change_${slot}'`).join(", ")}) order by c.relname))`

/**
 * The head: what is true of the rows beside it. It comes first, has no xid, and packs everything into its data: the
 * lineage's number, the version of relay.horizon, the state, what is left of the lease, snapshot and horizon. A function
 * of a sequence is read after the snapshot was taken, so a row that is visible was written before.
 */
const head = (lineage: string, snapshot: string, more = "") => `
  select null::bigint as seq, null::xid8 as xid, null::timestamptz as at, null::integer as what,
         concat(${lineage}, '|', horizon.xmin, '|', pg_sequence_last_value('relay.state'), '|',
           (pg_sequence_last_value('relay.lease') - floor(date_part('epoch', clock_timestamp()) * 1000))::bigint, '|',
           ${snapshot}, '|', h${more}) as data`

const SNAPSHOT = "pg_current_snapshot()"
const NEWEST = ", '|', pg_sequence_last_value('relay.change_seq')"

/** The number of the lineage, by what is written of all, and by the files of the log. */
const lineage = ({ log, system, database }: Identity) => `
  case when ${WHOLE} then
    (select max(case when log = '${log}'::oid and 'relay.change_0'::regclass = '${log}'::oid
                      and system_identifier = '${system}'::bigint and database = '${database}'::oid
                     then number else ${FOREIGN} end) from relay.lineage)
  else ${TORN} end`

/** The same, believed: a constant, which PostgreSQL computes anew when the log is dropped. */
const lineageBelieved = ({ log, number }: Identity) =>
  `case when 'relay.change_0'::regclass = '${log}'::oid then ${number} else ${FOREIGN} end`

/** The upper bound keeps out xids of another cluster, which a restored log may hold, until this one's have come that far. */
const SINCE = "xid >= $1::xid8 and xid < pg_snapshot_xmax(pg_current_snapshot())"

const union = (parts: readonly string[]): string => parts.join(" union all ")

/** Which tables a short read reads, whether it has transactions in flight, and whether it looks at the lineage. */
export interface ShortReadKind {
  readonly slots: readonly Slot[]
  readonly inFlight: boolean
  readonly lineage: "asked" | "believed"
}

/**
 * A read of tables of the log: head and rows in one statement, so that they belong together. Rows since `$1`, at most
 * `$2` of them, and those of the transactions `$3`, in any order. One that is too large comes with an empty text.
 */
export function shortRead(identity: Identity, { slots, inFlight, lineage: asks }: ShortReadKind): string {
  const data = `case when octet_length(data) > ${SHORT_ROW_BYTES} then '' else data end as data`
  const rows = slots.flatMap((slot) =>
    [SINCE, ...(inFlight ? ["xid = any($3::xid8[])"] : [])].map(
      (condition) => `select seq, xid, at, what, ${data} from relay.change_${slot} where ${condition}`,
    ),
  )
  const number = (asks === "asked" ? lineage : lineageBelieved)(identity)
  return `${head(number, SNAPSHOT)} from relay.horizon
    union all (select * from (${union(rows)}) r limit $2::int)`
}

/** How long a query of a long read may take: its first row comes when all are sorted. Milliseconds. */
export const LONG_QUERY_TIMEOUT_MS = 120_000

/**
 * Lock first: otherwise a rotation could empty a table after the snapshot was taken. A sort goes on when nobody waits for
 * it any more, unless PostgreSQL ends it.
 */
export const BEGIN_PAGES = `begin; set local statement_timeout = ${LONG_QUERY_TIMEOUT_MS + 1_000}; lock table ${SLOTS.map((slot) => `relay.change_${slot}`)} in access share mode`

/**
 * A read in pages, of all tables: head, which ends with the newest seq, then the rows since `$1` and those of the
 * transactions `$2` in order. It may go on where another was cut: after the seq `$3`, up to the snapshot `$4`. A large row
 * comes without its data, but with its size and its place.
 */
export function longRead(identity: Identity): string {
  const columns = (slot: Slot) => `seq, xid, at, what,
    case when octet_length(data) <= ${INLINE_BYTES} then data end as data, octet_length(data) as bytes,
    case when octet_length(data) > ${INLINE_BYTES} then '${slot}' || ctid::text end as place`
  const rest =
    "seq > $3::bigint and ($4::pg_snapshot is null or pg_visible_in_snapshot(xid, $4::pg_snapshot))"
  const rows = SLOTS.flatMap((slot) =>
    [SINCE, "xid = any($2::xid8[])"].map(
      (condition) => `select ${columns(slot)} from relay.change_${slot} where ${condition} and ${rest}`,
    ),
  )
  const first = head(lineage(identity), `coalesce($4::pg_snapshot, ${SNAPSHOT})`, NEWEST)
  return `${union([`${first}, null::integer as bytes, null as place from relay.horizon`, ...rows])}
    order by seq nulls first`
}

/** The data of rows by their places, which are given for each slot. */
export const PLACED = union(
  SLOTS.map(
    (slot) =>
      `select '${slot}' || ctid::text, data from relay.change_${slot} where ctid = any($${slot + 1}::tid[])`,
  ),
)

export const WHATS = `
  select id::text, "table", type, op, oversize::text, meta from relay.what where id = any($1::int[])`
/** One kind of change of each table. */
export const TABLES = `
  select distinct on ("table") id::text, "table", type, op, oversize::text, meta from relay.what
  where "table" is not null and type is not null and op in ('insert', 'update', 'delete', 'truncate', 'bulk_load')
  order by "table", id desc`

/** Makes the reading session use the index, whatever the statistics say. */
export const SESSION = `
  set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set default_transaction_isolation = 'read committed';
  set plan_cache_mode = force_generic_plan; set jit = off; set enable_seqscan = off;
  set max_parallel_workers_per_gather = 0; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0`

/**
 * A database without an encoding may hold bytes that are no UTF-8, and PostgreSQL would refuse to send them. Unconverted
 * they come. @returns whether it is one.
 */
export const ENCODING = `
  select set_config('client_encoding', 'SQL_ASCII', false) is not null
  from (select where current_setting('server_encoding') = 'SQL_ASCII') ascii`

export const LINEAGES = `
  select id from relay.lineage where number >= (select max(number) from relay.lineage where not continues)`

export const REVOCATIONS = "select relay.revocation_text(r) from relay.revocation r where until > now()"
