/** Where the shared servers are. */

import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { z } from "zod"

/** COMMITCAST_TEST_SERVERS lets two test runs in one checkout keep apart. */
export const STATE_FILE =
  process.env.COMMITCAST_TEST_SERVERS ??
  join(dirname(fileURLToPath(import.meta.url)), "../../.tap/commitcast-servers.json")
/** The role that owns the test databases: not a superuser. */
export const ADMIN = "app"
export const TEMPLATE = "template_election"
export const EMPTY = "template_empty"

const Servers = z.object({
  home: z.string(),
  ports: z.record(z.string(), z.number()),
  pids: z.array(z.number()),
})
export type Servers = z.infer<typeof Servers>

export const readServers = (): Servers => Servers.parse(JSON.parse(readFileSync(STATE_FILE, "utf8")))

export const urlOf = (port: number, database: string, user: string, password = "tests"): string =>
  `postgres://${user}:${password}@127.0.0.1:${port}/${database}`
