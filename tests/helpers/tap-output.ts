/** What a run of tap found, file by file, read from its raw output. */

import { Parser, type Result } from "tap-parser"

export interface Counts {
  passed: number
  failed: number
  skipped: number
}

export interface FileResult extends Counts {
  file: string
  ok: boolean
  /** The first thing in it that failed. */
  error?: string
}

const ENDED_EARLY = "it ended early"

export function readOutput(text: string): FileResult[] {
  const files = new Map<string, FileResult>()
  const resultOf = (file: string): FileResult => {
    const found = files.get(file) ?? { file, ok: true, passed: 0, failed: 0, skipped: 0 }
    files.set(file, found)
    return found
  }
  const parser = new Parser()
  // Of each assertion, wherever it is nested, and of a file that failed without one.
  parser.on("result", ({ fullname, ok, skip, todo }: Result) => {
    const [file = "", ...names] = fullname.split(" > ")
    const result = resultOf(file)
    if (skip || todo) result.skipped++
    else if (ok) result.passed++
    else {
      result.failed++
      result.error ??= names.join(" > ") || ENDED_EARLY
    }
  })
  // Of each file.
  parser.on("assert", ({ name, ok }: Result) => {
    resultOf(name).ok = ok
  })
  parser.end(text)
  // One that is killed in the middle of a test fails without a result of its own.
  for (const result of files.values()) {
    if (result.ok || result.failed > 0) continue
    result.failed = 1
    result.error = ENDED_EARLY
  }
  return [...files.values()]
}

export const sum = (results: readonly Counts[]): Counts => ({
  passed: results.reduce((total, { passed }) => total + passed, 0),
  failed: results.reduce((total, { failed }) => total + failed, 0),
  skipped: results.reduce((total, { skipped }) => total + skipped, 0),
})
