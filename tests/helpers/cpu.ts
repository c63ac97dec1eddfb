/** What something takes, on a machine of whatever speed that has other things to do too. */

/** How many times as much CPU time as the measure. Of each the least of five times, which no other process adds to. */
export const timesAsMuch = (work: () => void, measure: () => void): number =>
  leastCpuMs(work) / Math.max(leastCpuMs(measure), 0.001)

function leastCpuMs(work: () => void): number {
  const times = Array.from({ length: 5 }, () => {
    const before = process.cpuUsage()
    work()
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1_000
  })
  return Math.min(...times)
}
