/** What a process has used, from the system's own books. */

import { readFileSync } from "node:fs"

/** Linux counts in hundredths of a second, whatever the kernel's own tick (proc_pid_stat(5)). */
const TICK_MICROS = 10_000

/** CPU time of a process and all its threads, user and system. Microseconds. @throws Error without a /proc */
export function cpuOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8")
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ")
  return (Number(fields[11]) + Number(fields[12])) * TICK_MICROS
}

/** CPU time of a process and of those that it has started. Microseconds. @throws Error without a /proc */
export function cpuOfAll(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean)
  return children.reduce((sum, child) => sum + cpuOf(Number(child)), cpuOf(pid))
}

/** Resident memory of a process. Bytes. @throws Error without a /proc */
export function memoryOf(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
  return Number(kilobytes) * 1_024
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
