/** Runs once after the test files: stops the shared servers and removes their data. */

import { rm } from "node:fs/promises"
import { setTimeout as sleep } from "node:timers/promises"
import { readServers, STATE_FILE } from "./servers.ts"

const servers = readServers()
for (const pid of servers.pids) stop(pid, "SIGQUIT")
for (let waited = 0; waited < 5_000 && servers.pids.some((pid) => stop(pid, 0)); waited += 20) await sleep(20)
await rm(servers.home, { recursive: true, force: true })
await rm(STATE_FILE, { force: true })

/** @returns whether the process was there. */
function stop(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal)
    return true
  } catch {
    return false
  }
}
