/**
 * `npm test`: runs tap with the arguments that it is given, then each file that failed once more, alone. If that passes, so
 * does the run, and the file is listed as flaky. The last line counts what passed and failed.
 */

import { spawn } from "node:child_process"
import { appendFile, mkdtemp, readFile, rm } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { z } from "zod"
import { codeOf } from "../cli/embedded/errors.ts"
import { readJson } from "../relay/lib/json.ts"
import { type Counts, type FileResult, readOutput, sum } from "./helpers/tap-output.ts"

const ROOT = fileURLToPath(new URL("..", import.meta.url))
const TAP = join(dirname(createRequire(import.meta.url).resolve("tap/package.json")), "dist/esm/run.mjs")
/** If more than these fail at once, it is no accident. */
const MAX_RERUNS = 8
/** One line for each run of all files. */
const RECORD = join(ROOT, "test-runs.log")
/** So many runs are looked back on: in no two of them should the same file be flaky. */
const RUNS = 10

const Run = z.object({
  at: z.string(),
  passed: z.number(),
  failed: z.number(),
  skipped: z.number(),
  flaky: z.array(z.string()),
})
type Run = z.infer<typeof Run>

interface TapRun {
  files: FileResult[]
  code: number
  interrupted: boolean
}

const args = process.argv.slice(2)
const first = await runTap(args)
const { results, flaky } = await rerunFailures(first)
const counts = sum(results)
const runs = args.length === 0 && !first.interrupted ? await record(counts, flaky) : []
for (const { file, error } of flaky) {
  const times = runs.filter((run) => run.flaky.includes(file)).length
  console.log(
    `flaky: ${file}: ${error}${times > 1 ? ` (in ${times} of the last ${runs.length} runs: mend it)` : ""}`,
  )
}
console.log(lineOf(counts))
const passes = results.every(({ ok }) => ok) && (first.code === 0 || flaky.length > 0)
process.exitCode = passes ? 0 : 1

async function runTap(tapArgs: readonly string[]): Promise<TapRun> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-tap-"))
  const output = join(home, "output.tap")
  // Where there is no terminal the report is the output, which would be printed twice.
  const plain = process.stdout.isTTY ? [] : ["--reporter=tap", `--reporter-file=${join(home, "report.tap")}`]
  const options = [`--output-file=${output}`, ...plain]
  const child = spawn(process.execPath, [TAP, ...options, ...tapArgs], { stdio: "inherit" })
  // tap ends its tests and says how far they came. Ctrl-C reaches it without our help.
  const forward = () => child.kill("SIGTERM")
  const ignore = () => {}
  process.on("SIGTERM", forward).on("SIGINT", ignore)
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
    child.on("close", (...end) => resolve(end))
  })
  process.off("SIGTERM", forward).off("SIGINT", ignore)
  const files = readOutput(await readFile(output, "utf8").catch(ifMissing))
  await rm(home, { recursive: true })
  return { files, code: code ?? 1, interrupted: signal !== null }
}

/** @returns the results of all files, the last of those that ran twice, and the first of those that passed then. */
async function rerunFailures(run: TapRun): Promise<{ results: FileResult[]; flaky: FileResult[] }> {
  const results = new Map(run.files.map((result) => [result.file, result]))
  const failures = run.files.filter(({ ok }) => !ok)
  const flaky: FileResult[] = []
  if (run.interrupted || failures.length > MAX_RERUNS) return { results: run.files, flaky }
  for (const failure of failures) {
    console.log(`\n${failure.file} failed: once more, alone\n`)
    const [again] = (await runTap([failure.file])).files
    if (again === undefined) continue
    results.set(failure.file, again)
    if (again.ok) flaky.push(failure)
  }
  return { results: [...results.values()], flaky }
}

/** @returns the last runs, this one included. */
async function record(counts: Counts, flaky: readonly FileResult[]): Promise<Run[]> {
  const run: Run = { at: new Date().toISOString(), ...counts, flaky: flaky.map(({ file }) => file) }
  await appendFile(RECORD, `${JSON.stringify(run)}\n`)
  const lines = (await readFile(RECORD, "utf8")).trimEnd().split("\n")
  // A line may be cut where the machine stopped.
  return lines.slice(-RUNS).flatMap((line) => Run.safeParse(readJson(line)).data ?? [])
}

function lineOf({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`
}

function ifMissing(error: unknown): string {
  if (codeOf(error) === "ENOENT") return ""
  throw error
}
