/** What something takes, on a machine that has other things to do too. */

/** Of several times the least CPU time of this process in milliseconds, which no other process adds to. */
export function leastCpuMs(work: () => void): number {
  const times = Array.from({ length: 5 }, () => {
    const before = process.cpuUsage()
    work()
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1_000
  })
  return Math.min(...times)
}
