/** The capture: that nothing which is written to the tracked tables passes it by. */

import { invocation } from "../invocation.ts"
import { strayTables } from "../schema/strays.ts"
import { type Check, type Finding, failure, ok, orOk, warning } from "./finding.ts"

interface Table {
  name: string
  problem: string | null
  not_captured: string[]
  row_security: boolean
}

export const checkTables: Check = async ({ client }) => {
  const { rows } = await client.query<Table>(
    // That all is paused is said of the log.
    "select name, case when coalesce(pg_sequence_last_value('relay.state') < 8, true) then problem end as problem, not_captured, row_security from relay.tracked order by name",
  )
  const strays = (await strayTables(client)).map((name) =>
    failure(
      "tables",
      `${name} has triggers of a tracking that is gone`,
      `${invocation(`track ${name}`)}, with all its options; or ${invocation(`untrack ${name}`)}`,
    ),
  )
  if (rows.length === 0)
    return [
      ...strays,
      failure("tables", "none is tracked, so that nothing is sent", invocation("track <table>")),
    ]
  const found = rows.flatMap(({ name, problem, not_captured, row_security }) => {
    const findings: Finding[] = []
    if (problem !== null) {
      const [, text = problem, remedy = invocation(`track ${name}`)] = /^(.+?): (.+)$/.exec(problem) ?? []
      findings.push(failure("tables", `${name}: ${text}`, remedy))
    }
    if (not_captured.length > 0)
      findings.push(
        warning(
          "tables",
          `${name}: ${not_captured.join(", ")} came later and is not sent`,
          `${invocation(`track ${name}`)}, with all its options; --exclude leaves columns out for good`,
        ),
      )
    if (row_security)
      findings.push(
        warning(
          "tables",
          `${name} has row level security, which the relay does not apply`,
          "Narrow the tokens, or leave columns out.",
        ),
      )
    return orOk(findings, "tables", `${name} is captured whole`)
  })
  return [...strays, ...found]
}

/** Under session_replication_role = replica only triggers that are always fired are. */
const PASSED_OVER = "exists (select from pg_trigger where tgname ~ '^000_relay_' and tgenabled <> 'A')"

const SETTINGS = `
  select coalesce(r.rolname, 'everybody') as role, coalesce(d.datname, 'all databases') as database, split_part(c, '=', 1) as name,
         substr(c, strpos(c, '=') + 1) as value,
         format('alter %s%s reset %s',
           case when r.rolname is not null then 'role ' || quote_ident(r.rolname) else 'database ' || quote_ident(d.datname) end,
           case when r.rolname is not null and d.datname is not null then ' in database ' || quote_ident(d.datname) else '' end,
           split_part(c, '=', 1)) as remedy
  from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) c
  where s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
    and (c ~ '^relay\\.bulk_load=' and c !~ '=(off|false|no|0)?$' or c ~ '^session_replication_role=replica' and ${PASSED_OVER})
  order by 1, 2, 3`

/** Settings that were meant for one session and left to a role or a database. */
export const checkWriters: Check = async ({ client }) => {
  const { rows } =
    await client.query<Record<"role" | "database" | "name" | "value" | "remedy", string>>(SETTINGS)
  const left = rows.map(({ role, database, name, value, remedy }) =>
    failure(
      "writers",
      `${name} is ${value} for ${role} in ${database}: what they write is not told`,
      `${remedy}; sessions that are open keep it`,
    ),
  )
  const { rows: conf } = await client.query<{ name: string; value: string }>(
    `select name, setting as value from pg_settings
     where name = 'session_replication_role' and setting = 'replica' and source in ('configuration file', 'command line')
       and ${PASSED_OVER}`,
  )
  const whole = conf.map(({ name, value }) =>
    failure("writers", `${name} is ${value} on the whole server`, `Take it out of postgresql.conf.`),
  )
  return orOk([...left, ...whole], "writers", "no setting of a role or database hides what is written")
}

export const checkDerived: Check = async ({ client }) => {
  const { rows } = await client.query<{ type: string; channel: string; function: string; there: boolean }>(
    "select type, channel, function, relay.derived_function(function) is not null as there from relay.derived order by 1, 2",
  )
  if (rows.length === 0) return []
  const gone = rows
    .filter(({ there }) => !there)
    .map(({ type, channel, function: name }) =>
      failure(
        "derived",
        `the function ${name} of ${type} is gone`,
        `Make it again, or select relay.drop_derived('${type}', '${channel}').`,
      ),
    )
  return gone.length > 0 ? gone : [ok("derived", `${rows.length} messages, each with its function`)]
}
