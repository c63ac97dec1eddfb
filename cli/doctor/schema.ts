/** The relay's schema: that it is there and of this version, that this role may use it, and how the log stands. */

import { invocation } from "../invocation.ts"
import { appliedOf, findDamage } from "../schema/damage.ts"
import { installedVersion, isInstalled } from "../schema/installed.ts"
import { readMigrations } from "../schema/migrations.ts"
import { type Check, type Finding, failure, ok, orOk, warning } from "./finding.ts"

/** How many of the parts that are missing are named. */
const NAMED = 5

/** What a relay does in the database: what `relay.admit_relay` grants. */
const NEEDED = {
  table: [
    "relay.change_0",
    "relay.change_1",
    "relay.change_2",
    "relay.change",
    "relay.what",
    "relay.horizon",
    "relay.lineage",
    "relay.migration",
    "relay.tracking",
    "relay.tracked",
    "relay.revocation",
    "relay.derived",
  ],
  sequence: ["relay.state", "relay.lease", "relay.change_seq"],
  function: [
    "relay.rotate(interval, bigint)",
    "relay.advance_slot(smallint)",
    "relay.renew()",
    "relay.watch()",
    "relay.mend_as_owner(regclass)",
    "relay.meet_lineage()",
    "relay.contains(pg_snapshot, pg_snapshot)",
    "relay.set_lease(integer)",
    "relay.end_lease()",
    "relay.problem(relay.tracking)",
    "relay.revocation_text(relay.revocation)",
    "relay.derived_function(text)",
    "relay.derive(text, text)",
    "relay.canary(text)",
  ],
}
const GRANTS = `
  select n as name from unnest($1::text[]) n where not has_table_privilege(n, 'select')
  union all select n from unnest($2::text[]) n where not has_sequence_privilege(n, 'select')
  union all select n from unnest($3::text[]) n where not has_function_privilege(n, 'execute')`

/** @throws ConfigError where the schema is another's, newer, or not to be seen. */
export const checkSchema: Check = async ({ client }) => {
  const migrations = await readMigrations()
  const latest = migrations.at(-1)?.version ?? 0
  const version = await installedVersion(client, migrations)
  if (await isInstalled(client)) {
    const damage = await findDamage(client, appliedOf(migrations, version))
    if (damage.length > 0)
      return [
        failure(
          "schema",
          `it lacks ${damage.slice(0, NAMED).join(", ")}${damage.length > NAMED ? ` and ${damage.length - NAMED} more` : ""}`,
          `${invocation("install")} makes it anew, and captures again what it captured`,
        ),
      ]
  }
  if (version === latest) return [ok("schema", `version ${version}, that of this program`)]
  return [
    version === 0
      ? failure("schema", "it is not installed in this database", invocation("install"))
      : failure("schema", `version ${version}, and this program's is ${latest}`, invocation("install")),
  ]
}

export const checkRights: Check = async ({ client }) => {
  const { rows } = await client.query<{ name: string }>(GRANTS, [
    NEEDED.table,
    NEEDED.sequence,
    NEEDED.function,
  ])
  const who = await client.query<{ role: string; superuser: boolean }>(
    "select current_user as role, rolsuper as superuser from pg_roles where rolname = current_user",
  )
  const { role = "", superuser = false } = who.rows[0] ?? {}
  if (rows.length > 0)
    return [
      failure(
        "rights",
        `the role ${role} may not use ${rows.map(({ name }) => name).join(", ")}`,
        `As the owner of the schema relay: select relay.admit_relay('${role}').`,
      ),
    ]
  if (superuser)
    return [
      warning(
        "rights",
        `the role ${role} is a superuser`,
        "A relay needs no such rights: make a role of its own, and select relay.admit_relay('the role').",
      ),
    ]
  return [ok("rights", `the role ${role} may do what a relay does`)]
}

/** What hides rows of ours from a relay, which then stands still and says that nothing happens. */
const HIDDEN = `
  select c.relname::text as name from pg_class c
  where c.relnamespace = 'relay'::regnamespace and c.relrowsecurity order by 1`
const TORN = `
  select from relay.horizon where files <> array(
    select c.relfilenode from pg_class c
    where c.relnamespace = 'relay'::regnamespace and c.relname in ('change_0', 'change_1', 'change_2') order by c.relname)`

/** That the log shows what is in it, and holds what it says that it holds. */
export const checkContent: Check = async ({ client }) => {
  const { rows } = await client.query<{ name: string }>(HIDDEN)
  const hidden = rows.map(({ name }) =>
    failure(
      "log",
      `row level security hides rows of relay.${name}`,
      `As the owner of the schema relay: alter table relay.${name} disable row level security.`,
    ),
  )
  if ((await client.query(TORN)).rowCount === 0) return hidden
  return [
    ...hidden,
    warning(
      "log",
      "somebody has emptied, changed or replaced a table of the log by hand",
      "Start a relay, or select relay.meet_lineage(): every client loads its state again. Leave the log to relays.",
    ),
  ]
}

export const checkLog: Check = async ({ client, retentionHours, retentionMb }) => {
  const { rows } = await client.query<{ bytes: string; hours: number; paused: boolean }>(
    `select (select sum(pg_total_relation_size(format('relay.change_%s', slot)::regclass)) from generate_series(0, 2) slot)::text as bytes,
            (extract(epoch from now() - rotated_at) / 3600)::float8 as hours, coalesce(pg_sequence_last_value('relay.state') >= 8, false) as paused
     from relay.horizon`,
  )
  const { bytes = "0", hours = 0, paused = false } = rows[0] ?? {}
  const megabytes = Number(bytes) / 1_048_576
  const findings: Finding[] = []
  if (paused) findings.push(failure("log", "the capture is paused: nothing is told", "select relay.resume()"))
  // It is due after half the time or at half the size, and a table that is in use puts it off.
  if (hours > retentionHours || megabytes > 1.5 * retentionMb)
    findings.push(
      warning(
        "log",
        `${megabytes.toFixed(0)} MB, rotated ${hours.toFixed(1)} hours ago`,
        "It is rotated by a relay that runs, unless a transaction or a dump that stays open uses the log's oldest table.",
      ),
    )
  return orOk(findings, "log", `${megabytes.toFixed(1)} MB, rotated ${hours.toFixed(1)} hours ago`)
}
