/** The real Prometheus of this machine, with the rules of ops/, in front of relays. */

import { spawnSync } from "node:child_process"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { Test } from "tap"
import { stringify } from "yaml"
import { z } from "zod"
import { freePort } from "../../cli/embedded/port.ts"
import { workDirectory } from "./command.ts"
import { startDaemon } from "./daemon.ts"

export const noPrometheus =
  spawnSync("prometheus", ["--version"]).error !== undefined && "no Prometheus on this machine"

/** Far below what anybody would set, so that a test need not wait. */
const INTERVAL = "1s"

const Sample = z.object({
  metric: z.record(z.string(), z.string()),
  value: z.tuple([z.number(), z.string()]),
})
const Answer = z.object({ status: z.literal("success"), data: z.object({ result: z.array(Sample) }) })

export interface Prometheus {
  /** The labels of what an expression has now. */
  ask(expression: string): Promise<Array<Record<string, string>>>
}

/** Starts one. @param targets as host and port. */
export async function startPrometheus(t: Test, rules: string, targets: string[]): Promise<Prometheus> {
  const home = await workDirectory(t)
  const port = await freePort()
  await writeFile(join(home, "rules.yml"), rules)
  const settings = {
    global: { scrape_interval: INTERVAL, scrape_timeout: INTERVAL, evaluation_interval: INTERVAL },
    rule_files: [join(home, "rules.yml")],
    scrape_configs: [{ job_name: "commitcast", scrape_timeout: INTERVAL, static_configs: [{ targets }] }],
  }
  await writeFile(join(home, "prometheus.yml"), stringify(settings))
  const args = {
    "config.file": join(home, "prometheus.yml"),
    "storage.tsdb.path": join(home, "data"),
    "web.listen-address": `127.0.0.1:${port}`,
  }
  await startDaemon(
    t,
    "prometheus",
    Object.entries(args).map(([name, value]) => `--${name}=${value}`),
    port,
  )
  return {
    async ask(expression) {
      const url = new URL(`http://127.0.0.1:${port}/api/v1/query`)
      url.searchParams.set("query", expression)
      const answer = await fetch(url)
      // It listens before it answers.
      if (answer.status === 503) return []
      return Answer.parse(await answer.json()).data.result.map(({ metric }) => metric)
    },
  }
}
