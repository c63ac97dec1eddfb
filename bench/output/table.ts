/** The rows of a group as a table that people read, on a terminal or in Markdown. */

import type { Outcome, Row } from "../harness/row.ts"

interface Table {
  headings: string[]
  /** A line has a cell a column, or ends early with why there are no figures. */
  lines: string[][]
}

const LEADING = 2

function tableOf(rows: Row[]): Table {
  const figures = new Map<string, string>()
  const ratios = new Set<string>()
  for (const { outcome } of rows) {
    if (outcome.kind !== "measured") continue
    for (const { name, unit } of outcome.figures) figures.set(name, unit)
    for (const { figure, to } of outcome.ratios) ratios.add(ratioHeading(figure, to))
  }
  return {
    headings: ["run", "of", ...[...figures].map(([name, unit]) => `${name}, ${unit}`), ...ratios],
    lines: rows.map(({ name, subject, outcome }) => [
      name,
      subject,
      ...cellsOf(outcome, [...figures.keys()], [...ratios]),
    ]),
  }
}

const ratioHeading = (figure: string, to: string): string => `${figure} to ${to}`

function cellsOf(outcome: Outcome, figures: string[], ratios: string[]): string[] {
  if (outcome.kind === "absent") return [outcome.reason]
  if (outcome.kind === "invalid") return [`not valid: ${outcome.reason}`]
  const values = new Map(outcome.figures.map(({ name, value }) => [name, value]))
  const compared = new Map(outcome.ratios.map(({ figure, to, value }) => [ratioHeading(figure, to), value]))
  return [
    ...figures.map((name) => tell(values.get(name))),
    ...ratios.map((name) => tell(compared.get(name), " x")),
  ]
}

/** Three digits that count. */
function tell(value: number | undefined, suffix = ""): string {
  if (value === undefined) return ""
  const text =
    Math.abs(value) >= 100
      ? Math.round(value).toLocaleString("en")
      : value.toLocaleString("en", { maximumSignificantDigits: 3 })
  return text + suffix
}

/** For a terminal: each row ends with the command that makes it. */
export function renderText(rows: Row[]): string {
  const { headings, lines } = tableOf(rows)
  const whole = [headings, ...lines.filter((line) => line.length === headings.length)]
  const widths = headings.map((_, column) =>
    Math.max(...(column < LEADING ? [headings, ...lines] : whole).map((line) => line[column]?.length ?? 0)),
  )
  const pad = (cell: string, column: number) =>
    column < LEADING ? cell.padEnd(widths[column] as number) : cell.padStart(widths[column] as number)
  const width = widths.reduce((sum, each) => sum + each + 2, 0)
  const render = (line: string[]) =>
    line
      .map((cell, column) => (line.length < headings.length && column >= LEADING ? cell : pad(cell, column)))
      .join("  ")
      .padEnd(width)
  return [
    `${render(headings)}command`,
    ...lines.map((line, index) => `${render(line)}${rows[index]?.command}`),
  ].join("\n")
}

/** For a document: the commands follow the table. */
export function renderMarkdown(rows: Row[]): string {
  const { headings, lines } = tableOf(rows)
  const render = (cells: string[]) => `| ${cells.join(" | ")} |`
  const commands = [...new Set(rows.map(({ command }) => `\`${command}\``))]
  return [
    render(headings),
    render(headings.map((_, column) => (column < LEADING ? "---" : "---:"))),
    ...lines.map((line) => render(headings.map((_, column) => line[column] ?? ""))),
    "",
    `Each by itself: ${commands.join(", ")}`,
  ].join("\n")
}
