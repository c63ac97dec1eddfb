/** Several worker processes behind one port, made anew when one ends. This process reads the log for all of them. */

import { type ChildProcess, fork } from "node:child_process"
import type { Duplex } from "node:stream"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { environmentOf } from "../../relay/config.ts"
import { backoff } from "../../relay/lib/backoff.ts"
import { deferred } from "../../relay/lib/deferred.ts"
import { createPrimary, type PrimaryDeps } from "../../relay/workers/primary.ts"
import { createDealer } from "../../relay/workers/socket-dealer.ts"
import { listen, type Service } from "./server.ts"

/** Behind the standard streams and Node's own channel. */
export const IPC_FD = 4
const PROGRAM = fileURLToPath(import.meta.url).replace(/workers(\.\w+)$/, "worker$1")
/** How much longer than its clients' time to close a worker may take to end. Milliseconds. */
const END_MS = 5_000
/** A worker that lived as long is none that cannot start. Milliseconds. */
const SETTLED_MS = 10_000

/** Prepares so many workers; they are made by `listen`. */
export function openWorkers(deps: PrimaryDeps): Service {
  const { settings, databaseUrl, size, log } = deps
  const primary = createPrimary(deps)
  const dealer = createDealer()
  const environment = environmentOf({ ...settings, DATABASE_URL: databaseUrl })
  /** Each process with the way to end it in order. */
  const processes = new Map<ChildProcess, () => void>()
  const serving = new Set<ChildProcess>()
  const ready = deferred<void>()
  let failures = 0
  let stopping = false

  function make(): void {
    const made = fork(PROGRAM, [], {
      env: { ...process.env, ...environment },
      stdio: ["ignore", "inherit", "inherit", "ipc", "pipe"],
    })
    const bornAt = performance.now()
    const pid = made.pid as number
    let reason = "exit"
    const { stop } = primary.admit(pid, made.stdio[IPC_FD] as Duplex, {
      onReady() {
        serving.add(made)
        if (serving.size === size) ready.resolve()
      },
      onFailed(why) {
        if (why === "stuck") reason = why
        made.kill("SIGKILL")
      },
    })
    processes.set(made, stop)
    dealer.add(made)
    made.once("exit", (code, signal) => {
      processes.delete(made)
      serving.delete(made)
      if (stopping) return
      primary.lost(reason)
      failures = performance.now() - bornAt > SETTLED_MS ? 0 : failures + 1
      const delay = backoff(failures)
      log.error(
        { event: "worker_ended", worker: pid, reason, code, signal, retry_in_ms: Math.round(delay) },
        "a worker has ended; its clients connect to the others",
      )
      void sleep(delay).then(() => {
        if (!stopping) make()
      })
    })
  }

  return {
    async listen() {
      const url = await listen(dealer.server, settings)
      for (let n = 0; n < size; n++) make()
      return url
    },
    start: primary.start,
    whenReady: () => ready.promise,
    async stop() {
      stopping = true
      const ended = [...processes].map(([made, stop]) => {
        stop()
        return new Promise((resolve) => made.once("exit", resolve))
      })
      const deadline = setTimeout(
        () => {
          for (const made of processes.keys()) made.kill("SIGKILL")
        },
        settings.DRAIN_TIMEOUT_SECONDS * 1_000 + END_MS,
      )
      await Promise.all(ended)
      clearTimeout(deadline)
      dealer.server.close()
      await primary.stop()
    },
  }
}
