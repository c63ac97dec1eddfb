/** What keeps a relay from its database is said everywhere, and gone once what the document says is done. */

import t, { type Test } from "tap"
import type { Database } from "../helpers/database.ts"
import { role } from "../helpers/log.ts"
import { type Fault, type Place, tryFaults } from "../helpers/matrix.ts"
import { startProxy, type TcpProxy } from "../helpers/proxy.ts"

t.jobs = 3

/** A role that may do what a relay does, and that a test may lock out. */
async function admitted(t: Test, db: Database): Promise<string> {
  const url = await role(t, db, "relayer")
  await db.query("select relay.admit_relay($1)", [new URL(url).username])
  return url
}

/** Has the relay connect anew, which it may not. */
async function lockOut({ db, superuser }: Place, sql: string): Promise<void> {
  await superuser(sql)
  await superuser(
    `select pg_terminate_backend(pid) from pg_stat_activity where usename = 'relayer_${db.name}'`,
  )
}

const locked = (
  lock: (role: string) => string,
  unlock: (role: string) => string,
): Pick<Fault, "runsAs" | "bring" | "mend"> => ({
  runsAs: admitted,
  bring: (place) => lockOut(place, lock(`relayer_${place.db.name}`)),
  mend: ({ db, superuser }) => superuser(unlock(`relayer_${db.name}`)),
})

const proxies = new Map<string, TcpProxy>()

tryFaults(t, "The database", {
  "the database is away": {
    async runsAs(t, db) {
      const proxy = await startProxy(t, db.port)
      proxies.set(db.name, proxy)
      return db.url.replace(`:${db.port}/`, `:${proxy.port}/`)
    },
    async bring({ db }) {
      proxies.get(db.name)?.refuse()
      proxies.get(db.name)?.cut()
    },
    problem: /^the changelog cannot be read: /,
    doctor: /^database: the database does not answer .* -> Start it/m,
    mend: async ({ db }) => proxies.get(db.name)?.heal(),
  },
  "every connection of the server, the database or the role is taken": {
    ...locked(
      (name) => `alter role ${name} connection limit 0`,
      (name) => `alter role ${name} connection limit -1`,
    ),
    problem:
      /^the changelog cannot be read: every connection that the server gives out is taken .*: raise max_connections/,
    doctor: /^database: every connection that the server gives out is taken .* -> raise max_connections/m,
  },
  "the relay's role may not log in": {
    ...locked(
      (name) => `alter role ${name} nologin`,
      (name) => `alter role ${name} login`,
    ),
    problem: /^the changelog cannot be read: the role may not log in .*: alter role/,
    doctor: /^database: the role may not log in .* -> alter role/m,
  },
  "the password of the relay's role is another": {
    ...locked(
      (name) => `alter role ${name} password 'another'`,
      (name) => `alter role ${name} password 'tests'`,
    ),
    problem: /^the changelog cannot be read: password authentication failed/,
    doctor: /^database: password authentication failed .* -> check user and password/m,
  },
})
