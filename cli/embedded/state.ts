/** Owns `state.json`: what the running commitcast tells the other commands. */

import { join } from "node:path"
import { z } from "zod"
import { readJson, replaceFile } from "./file.ts"
import { Identity, isAlive } from "./process.ts"

export const State = Identity.extend({
  postgres_pid: z.int().positive(),
  postgres_port: z.int().min(1).max(65_535),
  database_url: z.string(),
  relay_url: z.string().optional(),
})
export type State = z.infer<typeof State>

/** The state of the commitcast running in that directory; undefined when none is alive. */
export async function readState(dir: string): Promise<State | undefined> {
  const state = State.safeParse(await readJson(join(dir, "state.json")))
  return state.success && (await isAlive(state.data)) ? state.data : undefined
}

/** Adds to the state of the running commitcast, such as the relay's url once it listens. */
export async function writeState(dir: string, patch: Partial<State>): Promise<void> {
  const file = join(dir, "state.json")
  const before = State.partial().safeParse(await readJson(file))
  await replaceFile(file, JSON.stringify(State.parse({ ...before.data, ...patch }), null, 2))
}
