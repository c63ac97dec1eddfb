/** Where log lines go, when it takes none. */

import { execFileSync } from "node:child_process"
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import t, { type Test } from "tap"
import { LogOutput } from "../../relay/telemetry/log-output.ts"
import { until } from "../helpers/wait.ts"

/** A pipe that nobody reads but the test. Its writing end is open for reading too, as the first end has to be. */
function pipe(t: Test, flags: number): { to: number; from: number } {
  const home = mkdtempSync(join(tmpdir(), "commitcast-pipe-"))
  execFileSync("mkfifo", [join(home, "pipe")])
  const to = openSync(join(home, "pipe"), constants.O_RDWR | flags)
  const from = openSync(join(home, "pipe"), constants.O_RDONLY | constants.O_NONBLOCK)
  t.teardown(() => {
    for (const fd of [to, from]) closeSync(fd)
    rmSync(home, { recursive: true })
  })
  return { to, from }
}

/** What is there to read now. */
function take(from: number): string {
  const buffer = Buffer.alloc(65_536)
  try {
    return buffer.toString("utf8", 0, readSync(from, buffer))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error
    return ""
  }
}

const LINE = `${"x".repeat(1_023)}\n`
const LINES = 4_096

for (const [name, flags] of [
  ["blocks", 0],
  ["refuses", constants.O_NONBLOCK],
] as const)
  t.test(`nobody waits for a full pipe that ${name}; what does not wait is lost and counted`, async (t) => {
    const { to, from } = pipe(t, flags)
    const output = new LogOutput(to)
    for (let n = 0; n < LINES; n++) output.write(LINE)
    t.match(output.lost, { error: /does not read/ })
    const kept = LINES - output.lost.lines
    t.ok(kept >= 1_024 && kept < 1_100, `${kept} lines of 1 KiB wait`)
    let read = 0
    await until("the rest comes once somebody reads", () => {
      read += take(from).length
      return read === kept * LINE.length
    })
    await until("it is well again", () => output.lost.error === null)
    output.write("more\n")
    await until("more comes", () => take(from) === "more\n")
    t.equal(output.lost.lines, LINES - kept)
  })

t.test("on a full disk each line is lost and counted", async (t) => {
  const fd = openSync("/dev/full", "w")
  t.teardown(() => closeSync(fd))
  const output = new LogOutput(fd)
  for (let n = 0; n < 5; n++) output.write(LINE)
  await until("all are lost", () => output.lost.lines === 5)
  t.equal(output.lost.error, "ENOSPC")
})
