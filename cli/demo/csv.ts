/** Reads returns from a CSV file of precinct results, row by row. */

import { createReadStream } from "node:fs"
import { ConfigError } from "../../relay/config.ts"
import { Returns } from "./returns.ts"

export interface ReadReturns {
  returns: Returns
  /** The rows that are no votes for anybody. */
  skipped: number
}

const COLUMNS = ["office", "district", "candidate", "party", "precinct", "votes"] as const
type Row = Record<(typeof COLUMNS)[number], string>

/** A quote that is never closed would otherwise take in the rest of the file. Bytes. */
const LONGEST_ROW = 65_536
/** What an integer column of PostgreSQL holds. */
const MOST_VOTES = 2_147_483_647
/**
 * Rows that sum others up or count ballots without a choice, by the whole name of their office, candidate or precinct. Whatever is
 * not named here is counted, write-ins too.
 */
const NO_CANDIDATE =
  /^(?:(?:grand |sub)?totals?|total (?:votes|ballots)(?: cast)?|(?:under|over)[ -]?votes?|blanks?|(?:blank|void|spoiled) (?:votes|ballots)|ballots cast(?:[ -]+(?:total|blank))?|registered voters(?:[ -]+total)?|registration|turnout)$/i

/** @throws ConfigError that names the file, the line and what is wrong there. */
export async function readReturns(file: string): Promise<ReadReturns> {
  const returns = new Returns()
  let skipped = 0
  let columns: number[] | undefined
  let line = 1
  const wrong = (what: string, cause?: unknown) =>
    new ConfigError(`${file}, line ${line}: ${what}`, { cause })
  const { CsvError, parse } = await loadParser()
  const input = createReadStream(file)
  const parser = input.pipe(
    parse({ bom: true, info: true, trim: true, skip_empty_lines: true, max_record_size: LONGEST_ROW }),
  )
  input.on("error", (error) => parser.destroy(error))
  try {
    for await (const { record, info } of parser as AsyncIterable<{
      record: string[]
      info: { lines: number }
    }>) {
      line = info.lines
      if (columns === undefined) {
        columns = findColumns(record, wrong)
        continue
      }
      const row = Object.fromEntries(
        COLUMNS.map((name, n) => [name, record[(columns as number[])[n] as number]]),
      ) as Row
      if (record.some((value) => value.includes("\uFFFD"))) throw wrong("it is not UTF-8")
      if ([row.office, row.candidate, row.precinct].some((name) => NO_CANDIDATE.test(name))) skipped++
      else enter(returns, row, wrong)
    }
  } catch (error) {
    input.destroy()
    if (error instanceof CsvError) {
      line = typeof error.lines === "number" ? error.lines : line
      throw wrong(MESSAGES[error.code] ?? error.message, error)
    }
    const { code } = error as NodeJS.ErrnoException
    if (code !== undefined) throw new ConfigError(`${file} cannot be read (${code})`, { cause: error })
    throw error
  }
  if (columns === undefined) throw wrong(`the file is empty: its first line must be ${COLUMNS.join(",")}`)
  if (returns.entries === 0) throw wrong("there is no row with votes for a candidate")
  return { returns, skipped }
}

/** An optional dependency, since only a demo needs it. */
const loadParser = () =>
  import("csv-parse").catch((error: unknown) => {
    throw new ConfigError("--from-csv needs the package csv-parse: run npm install --include=optional", {
      cause: error,
    })
  })

function findColumns(header: string[], wrong: (what: string) => Error): number[] {
  const names = header.map((name) => name.toLowerCase())
  const missing = COLUMNS.filter((name) => !names.includes(name))
  if (missing.length > 0)
    throw wrong(
      `no column ${missing.join(", ")}; there must be ${COLUMNS.join(", ")}, and there are ${names.join(", ")}`,
    )
  return COLUMNS.map((name) => names.indexOf(name))
}

function enter(returns: Returns, row: Row, wrong: (what: string) => Error): void {
  const empty = (["office", "candidate", "precinct"] as const).find((name) => row[name] === "")
  if (empty !== undefined) throw wrong(`${empty} is empty`)
  const votes = /^\d+$/.test(row.votes) ? Number(row.votes) : Number.NaN
  if (!(votes <= MOST_VOTES))
    throw wrong(`votes is ${JSON.stringify(row.votes)}: it must be a whole number, as in 1234`)
  const election = row.district === "" ? row.office : `${row.office}, district ${row.district}`
  returns.add(election, row.candidate, row.precinct, votes)
}

const MESSAGES: Record<string, string> = {
  CSV_RECORD_INCONSISTENT_FIELDS_LENGTH: "there are more or fewer values than columns",
  CSV_QUOTE_NOT_CLOSED: "a quote is not closed",
  CSV_MAX_RECORD_SIZE: "a row is longer than 64 KiB: is a quote not closed?",
  INVALID_OPENING_QUOTE: "a quote within a value that is not quoted",
  CSV_INVALID_CLOSING_QUOTE: "a quote within a quoted value: write it twice",
  CSV_NON_TRIMABLE_CHAR_AFTER_CLOSING_QUOTE: "a quote within a quoted value: write it twice",
}
