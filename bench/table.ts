/** Rows as a table that people read. */

import type { Figure, Outcome, Row } from "./row.ts"

const HEADINGS = ["group", "run", "", "figures", "ratios in this run", "command"]

/** @returns the rows as lines in columns. */
export function renderTable(rows: Row[]): string {
  const cells = rows.map(({ group, name, subject, command, outcome }) => [
    group,
    name,
    subject,
    tellFigures(outcome),
    tellRatios(outcome),
    command,
  ])
  const lines = [HEADINGS, ...cells]
  const widths = HEADINGS.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? "").length)))
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n")
}

/** @returns the figures of a run, or in their place why there are none. */
export function tellFigures(outcome: Outcome): string {
  switch (outcome.kind) {
    case "measured":
      return outcome.figures.map((figure) => `${figure.name} ${tellFigure(figure)}`).join(", ")
    case "invalid":
      return `INVALID: ${outcome.reason}`
    case "absent":
      return `not here: ${outcome.reason}`
  }
}

const tellRatios = (outcome: Outcome): string =>
  outcome.kind === "measured"
    ? outcome.ratios.map(({ figure, to, value }) => `${figure} ${tellNumber(value)} of ${to}`).join(", ")
    : ""

export const tellFigure = ({ value, unit }: Pick<Figure, "value" | "unit">): string =>
  `${tellNumber(value)}${unit.startsWith("/") || unit === "" ? "" : " "}${unit}`

/** Three digits that count. */
export const tellNumber = (value: number): string =>
  Math.abs(value) >= 100
    ? Math.round(value).toLocaleString("en")
    : value.toLocaleString("en", { maximumSignificantDigits: 3 })
