/** Owns the lock of an embedded directory: one commitcast at a time, and none that is dead. */

import { randomBytes } from "node:crypto"
import { link, readdir, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { codeOf, EmbeddedError } from "./errors.ts"
import { readJson } from "./file.ts"
import { Identity, isAlive, myself } from "./process.ts"
import { readState, type State } from "./state.ts"

/** Another commitcast that is alive uses the directory. */
export class EmbeddedBusyError extends EmbeddedError {
  override name = "EmbeddedBusyError"
  readonly pid: number
  /** Undefined while the other one is still starting. */
  readonly state: State | undefined

  constructor(dir: string, pid: number, state: State | undefined) {
    const where = state?.relay_url ? ` (at ${state.relay_url})` : ""
    super(
      `Another commitcast, process ${pid}${where}, uses ${dir}: stop it with Ctrl-C or "kill ${pid}", or choose another directory`,
    )
    this.pid = pid
    this.state = state
  }
}

/**
 * The owner is the process named in the highest-numbered `lock.<n>`. A dead owner's lock is not removed but topped
 * by n + 1, which link gives to exactly one of several starters; removing it first could remove a winner's lock.
 */
export async function takeLock(dir: string): Promise<() => Promise<void>> {
  const draft = join(dir, `draft-${randomBytes(6).toString("hex")}`)
  await writeFile(draft, JSON.stringify(await myself()), { flag: "wx", mode: 0o600 })
  try {
    for (;;) {
      const before = await locks(dir)
      const newest = before.at(-1)
      const owner =
        newest === undefined ? undefined : Identity.safeParse(await readJson(lockFile(dir, newest))).data
      if (owner && (await isAlive(owner))) throw new EmbeddedBusyError(dir, owner.pid, await readState(dir))
      const mine = (newest ?? 0) + 1
      const won = await link(draft, lockFile(dir, mine)).then(
        () => true,
        (error: unknown) => {
          if (codeOf(error) === "EEXIST") return false
          throw error
        },
      )
      if (!won) continue
      if ((await locks(dir)).at(-1) !== mine) {
        await rm(lockFile(dir, mine)) // somebody passed by while this process slept between looking and linking
        continue
      }
      for (const old of before) await rm(lockFile(dir, old), { force: true })
      return () => rm(lockFile(dir, mine), { force: true })
    }
  } finally {
    await rm(draft, { force: true })
  }
}

const lockFile = (dir: string, n: number): string => join(dir, `lock.${n}`)

async function locks(dir: string): Promise<number[]> {
  const numbers = (await readdir(dir)).map((name) => Number(/^lock\.(\d+)$/.exec(name)?.[1]))
  return numbers.filter((n) => n > 0).sort((a, b) => a - b)
}
