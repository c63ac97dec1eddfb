/** The log as other programs read it. */

import { spawnSync } from "node:child_process"
import t from "tap"
import { createLog } from "../../relay/telemetry/log.ts"

function collect(level: "trace" | "info" | "warn" | "silent") {
  const lines: string[] = []
  const log = createLog({ LOG_LEVEL: level, LOG_FORMAT: "json" }, { write: (line) => lines.push(line) })
  return { log, lines }
}

t.test("a line is one JSON object with level, time, event and fields", async (t) => {
  const { log, lines } = collect("info")
  const before = Date.now()
  log.warn({ event: "feed_down", attempt: 3, error: 'a "quoted"\nreason' }, "cannot read")
  t.equal(lines.length, 1)
  t.match(lines[0], /^[^\n]+\n$/)
  const { time, ...fields } = JSON.parse(lines[0] as string)
  t.same(fields, {
    level: 40,
    event: "feed_down",
    attempt: 3,
    error: 'a "quoted"\nreason',
    msg: "cannot read",
  })
  t.match(time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  t.ok(Date.parse(time) >= before && Date.parse(time) <= Date.now())
})

t.test("the level decides what is written", async (t) => {
  const written = (level: Parameters<typeof collect>[0]) => {
    const { log, lines } = collect(level)
    for (const name of ["trace", "debug", "info", "warn", "error"] as const) log[name]({ event: name })
    return lines.map((line) => (JSON.parse(line) as { event: string }).event)
  }
  t.same(written("trace"), ["trace", "debug", "info", "warn", "error"])
  t.same(written("info"), ["info", "warn", "error"])
  t.same(written("warn"), ["warn", "error"])
  t.same(written("silent"), [])
})

t.test("it goes to standard error in either format, and nothing to standard output", async (t) => {
  const run = (format: string) =>
    spawnSync(
      process.execPath,
      [
        "--import=tsx",
        "--input-type=module",
        "-e",
        `import { createLog } from ${JSON.stringify(new URL("../../relay/telemetry/log.ts", import.meta.url).href)}
         createLog({ LOG_LEVEL: "info", LOG_FORMAT: "${format}" }).info({ event: "ready", port: 1 }, "here")`,
      ],
      { encoding: "utf8" },
    )
  for (const format of ["auto", "json", "pretty"]) {
    const { status, stdout, stderr } = run(format)
    t.equal(status, 0, stderr)
    t.equal(stdout, "", format)
    if (format === "pretty")
      t.match(stderr, /INFO.*here[\s\S]*event: "ready"/, "no escape codes where no terminal is")
    else t.match(JSON.parse(stderr), { event: "ready", port: 1, msg: "here" }, format)
    t.notOk(stderr.includes("\u001b"), format)
  }
})
