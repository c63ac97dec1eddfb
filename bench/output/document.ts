/** docs/PERFORMANCE.md: what stands between its markers, and the charts beside it, are made from the results. */

import { mkdir, readFile, writeFile } from "node:fs/promises"
import { drawCharts } from "./charts.ts"
import type { Machine, Run } from "./results.ts"
import { renderMarkdown } from "./table.ts"

const DOCUMENT = new URL("../../docs/PERFORMANCE.md", import.meta.url)
const CHARTS = new URL("../../docs/performance/", import.meta.url)
const MARKED = /(<!-- results of ([\w-]+) -->\n)[\s\S]*?(<!-- end -->)/g

/** Writes tables and charts anew. @throws Error if a group has no place in the document */
export async function writeDocument(runs: Run[]): Promise<void> {
  const text = await readFile(DOCUMENT, "utf8")
  for (const { group } of runs)
    if (!text.includes(`<!-- results of ${group} -->`))
      throw new Error(`docs/PERFORMANCE.md has no place for the results of ${group}`)
  const written = text.replace(MARKED, (whole, begin: string, group: string, end: string) => {
    const run = runs.find((each) => each.group === group)
    return run === undefined ? whole : `${begin}${tell(run)}\n${end}`
  })
  await writeFile(DOCUMENT, written)
  await mkdir(CHARTS, { recursive: true })
  for (const [file, svg] of drawCharts(runs.flatMap(({ rows }) => rows)))
    await writeFile(new URL(file, CHARTS), svg)
}

const tell = ({ date, quick, machine, rows }: Run): string =>
  `${renderMarkdown(rows)}\n\n${date}${quick ? ", a quick run" : ""}: ${describe(machine)}.`

const describe = ({ cores, cpu, memory_gb, platform, node, postgresql, load }: Machine): string =>
  `${cores} cores (${cpu}), ${memory_gb} GB, ${platform}, Node ${node}, PostgreSQL ${postgresql}; load average before ${load}`
