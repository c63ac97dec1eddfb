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

/** A row before it was run. */
export type Cell = Pick<Row, "group" | "name" | "command">

export const measured = (...figures: Figure[]): Outcome => ({ kind: "measured", figures, ratios: [] })

export const figure = (name: string, value: number, unit: string): Figure => ({ name, value, unit })

/** The row with ratios of the named figures to those of other rows, where both were measured. */
export function withRatios(row: Row, names: string[], others: Array<{ to: string; row: Row }>): Row {
  if (row.outcome.kind !== "measured") return row
  const ratios = others.flatMap(({ to, row: other }) =>
    names.flatMap((name) => {
      const mine = figureOf(row, name)
      const theirs = figureOf(other, name)
      if (other === row || mine === undefined || theirs === undefined || theirs <= 0) return []
      return [{ figure: name, to, value: mine / theirs }]
    }),
  )
  return { ...row, outcome: { ...row.outcome, ratios } }
}

/** The rows, each with ratios to what the named subjects had in the same run. */
export const compareSubjects = (rows: Row[], names: string[], subjects: string[]): Row[] =>
  rows.map((row) =>
    withRatios(
      row,
      names,
      rows
        .filter((other) => other.name === row.name && subjects.includes(other.subject))
        .map((other) => ({ to: other.subject, row: other })),
    ),
  )

/** The rows, each with ratios to the first of them. */
export const compareToFirst = (rows: Row[], names: string[]): Row[] =>
  rows.map((row) =>
    withRatios(
      row,
      names,
      rows.slice(0, 1).map((first) => ({ to: "the first", row: first })),
    ),
  )

/** A row's figure; undefined if it was not measured. */
export const figureOf = ({ outcome }: Row, name: string): number | undefined =>
  outcome.kind === "measured" ? outcome.figures.find((each) => each.name === name)?.value : undefined
