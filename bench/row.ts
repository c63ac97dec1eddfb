/** A row of the results: the figures of one run, or why there are none. */

import { z } from "zod"

const Figure = z.strictObject({ name: z.string(), value: z.number(), unit: z.string() })
export type Figure = z.infer<typeof Figure>

/** A figure over the same figure of another row of the same run: absolute figures drift with the machine. */
const Ratio = z.strictObject({ figure: z.string(), to: z.string(), value: z.number() })
export type Ratio = z.infer<typeof Ratio>

const Outcome = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("measured"), figures: z.array(Figure), ratios: z.array(Ratio) }),
  /** The run is not to be believed. */
  z.strictObject({ kind: z.literal("invalid"), reason: z.string() }),
  /** Something is not installed here. */
  z.strictObject({ kind: z.literal("absent"), reason: z.string() }),
])
export type Outcome = z.infer<typeof Outcome>

export const Row = z.strictObject({
  group: z.string(),
  /** What was run: the same for all that are compared with each other. */
  name: z.string(),
  /** On what: "ours", or a rival's name. */
  subject: z.string(),
  /** Makes this row and those that it is compared with. */
  command: z.string(),
  outcome: Outcome,
})
export type Row = z.infer<typeof Row>

export const measured = (...figures: Figure[]): Outcome => ({ kind: "measured", figures, ratios: [] })

export const figure = (name: string, value: number, unit: string): Figure => ({ name, value, unit })

/** The same rows, each with ratios of its figures to those of the subjects that are named, where both were measured. */
export function compare(rows: Row[], names: string[], subjects: string[]): Row[] {
  return rows.map((row) => {
    if (row.outcome.kind !== "measured") return row
    const ratios = subjects
      .filter((subject) => subject !== row.subject)
      .flatMap((subject) => names.flatMap((name) => ratioOf(row, rows, name, subject)))
    return { ...row, outcome: { ...row.outcome, ratios } }
  })
}

function ratioOf(row: Row, rows: Row[], name: string, subject: string): Ratio[] {
  const other = rows.find((each) => each.subject === subject && each.name === row.name)
  const mine = figureOf(row, name)
  const theirs = other === undefined ? undefined : figureOf(other, name)
  if (mine === undefined || theirs === undefined || theirs <= 0) return []
  return [{ figure: name, to: subject, value: mine / theirs }]
}

/** A row's figure; undefined if it was not measured. */
export const figureOf = ({ outcome }: Row, name: string): number | undefined =>
  outcome.kind === "measured" ? outcome.figures.find((each) => each.name === name)?.value : undefined
