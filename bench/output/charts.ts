/** Charts of the results, as SVG: ours in colour, the others in greys, every axis from zero. */

import { BarChart } from "echarts/charts"
import { GridComponent, LegendComponent, TitleComponent } from "echarts/components"
import { type EChartsCoreOption, init, use } from "echarts/core"
import { SVGRenderer } from "echarts/renderers"
import { figureOf, type Row } from "../harness/row.ts"
import { SERVERS } from "../harness/server.ts"

use([BarChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer])

const COLOURS: Record<string, string> = {
  ours: "#0b62c4",
  "ours, bulk flag": "#93c5fd",
  "no trigger": "#d1d5db",
  "plain NOTIFY": "#6b7280",
  "a log and no more": "#9ca3af",
  "plain ws": "#6b7280",
  "Socket.IO": "#9ca3af",
  nchan: "#d1d5db",
}
const INK = "#1f2937"
const FAINT = "#6b7280"
const FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
const WIDTH = 860
const PANEL_HEIGHT = 250
const TOP = 64

interface Panel {
  /** What is measured, with its unit. */
  title: string
  figure: string
  /** The runs to show, and what stands under them. */
  runs: Array<{ name: string; label: string }>
}

interface Chart {
  file: string
  title: string
  /** Whose bars stand beside each other. */
  subjects: readonly string[]
  panels: Panel[]
}

const clientsOf = (name: string): string => name.split(", ")[0] ?? name
const inTwoLines = (name: string): string => name.replace(", ", "\n")

/** @returns the charts that the rows suffice for, by file name. */
export function drawCharts(rows: Row[]): Map<string, string> {
  const runsOf = (group: string, fits: (name: string) => boolean, label: (name: string) => string) =>
    [...new Set(rows.filter((row) => row.group === group).map(({ name }) => name))]
      .filter(fits)
      .map((name) => ({ name, label: label(name) }))
  const quiet = runsOf("latency", (name) => name.endsWith("quiet"), clientsOf)
  const busy = runsOf("latency", (name) => !name.endsWith("quiet"), inTwoLines)
  const bursts = runsOf(
    "fanout",
    (name) => name.includes("bursts"),
    (name) =>
      name.replace(/^.*bursts of (\d+)$/, (_, n: string) => (n === "1" ? "1 change" : `${n} changes`)),
  )
  const idle = runsOf(
    "memory",
    (name) => name.includes("idle"),
    (name) => name,
  )
  const writing = runsOf(
    "writers",
    (name) => name.startsWith("INSERT,"),
    (name) => name.replace("INSERT, ", ""),
  )
  const beside = runsOf(
    "stuck",
    () => true,
    (name) => name.replace(/^[^,]*, /, "").replace(" who", "\nwho"),
  )
  const charts: Chart[] = [
    {
      file: "writers.svg",
      title: "What is left to those who write, single rows inserted",
      subjects: ["no trigger", "ours, bulk flag", "a log and no more", "ours", "plain NOTIFY"],
      panels: [{ title: "commits a second", figure: "commits", runs: writing }],
    },
    {
      file: "latency-quiet.svg",
      subjects: SERVERS,
      title: "From the answer to COMMIT to a client, one change at a time",
      panels: [
        { title: "half of the changes within, ms", figure: "p50", runs: quiet },
        { title: "99 of 100 within, ms", figure: "p99", runs: quiet },
      ],
    },
    {
      file: "latency-busy.svg",
      subjects: SERVERS,
      title: "The same with four writers who wait for nobody",
      panels: [
        { title: "half of the changes within, ms", figure: "p50", runs: busy },
        { title: "99 of 100 within, ms", figure: "p99", runs: busy },
      ],
    },
    {
      file: "fanout.svg",
      subjects: SERVERS,
      title: "CPU time to tell one client of one change, by changes in a transaction",
      panels: [{ title: "µs, 1,000 clients", figure: "CPU a delivery", runs: bursts }],
    },
    {
      file: "memory.svg",
      subjects: SERVERS,
      title: "Memory of an idle connection",
      panels: [{ title: "KB of the server's resident memory", figure: "a connection", runs: idle }],
    },
    {
      file: "stuck.svg",
      subjects: ["ours"],
      title: "From the answer to COMMIT to those who read, beside clients that are stuck",
      panels: [
        { title: "half of the changes within, ms", figure: "p50", runs: beside },
        { title: "99 of 100 within, ms", figure: "p99", runs: beside },
      ],
    },
  ]
  return new Map(
    charts
      .filter(({ panels }) => panels.every(({ runs }) => runs.length > 0))
      .map((chart) => [chart.file, draw(chart, rows)]),
  )
}

function draw({ title, subjects, panels }: Chart, rows: Row[]): string {
  const height = TOP + panels.length * PANEL_HEIGHT
  const chart = init(null, null, { renderer: "svg", ssr: true, width: WIDTH, height })
  const text = { fontFamily: FONT, color: INK }
  const option: EChartsCoreOption = {
    animation: false,
    backgroundColor: "#ffffff",
    textStyle: text,
    color: subjects.map((subject) => COLOURS[subject] ?? INK),
    legend: {
      top: 34,
      left: 16,
      itemGap: 24,
      itemWidth: 14,
      itemHeight: 10,
      textStyle: { ...text, fontSize: 13 },
    },
    title: [
      { text: title, left: 16, top: 8, textStyle: { ...text, fontSize: 16, fontWeight: "bold" } },
      ...panels.map((panel, index) => ({
        text: panel.title,
        left: 16,
        top: TOP + index * PANEL_HEIGHT,
        textStyle: { fontFamily: FONT, color: FAINT, fontSize: 13, fontWeight: "normal" },
      })),
    ],
    grid: panels.map((_, index) => ({
      left: 64,
      right: 24,
      top: TOP + 38 + index * PANEL_HEIGHT,
      height: PANEL_HEIGHT - 92,
    })),
    xAxis: panels.map(({ runs }, index) => ({
      gridIndex: index,
      type: "category",
      data: runs.map(({ label }) => label),
      axisTick: { show: false },
      axisLine: { lineStyle: { color: FAINT } },
      axisLabel: { color: INK, fontSize: 13, lineHeight: 17, interval: 0 },
    })),
    yAxis: panels.map((_, index) => ({
      gridIndex: index,
      type: "value",
      min: 0,
      splitNumber: 4,
      axisLabel: { color: FAINT, fontSize: 12 },
      splitLine: { lineStyle: { color: "#eceff3" } },
    })),
    series: panels.flatMap((panel, index) =>
      subjects.map((subject) => ({
        type: "bar",
        name: subject,
        xAxisIndex: index,
        yAxisIndex: index,
        barMaxWidth: 44,
        barGap: "12%",
        itemStyle: { color: COLOURS[subject] ?? INK },
        data: panel.runs.map(({ name }) => bar(rows, name, subject, panel.figure)),
      })),
    ),
  }
  chart.setOption(option)
  const svg = chart.renderToSVGString()
  chart.dispose()
  return `${asImage(svg, title)}\n`
}

/** What echarts adds for a pointer is of no use in an image, and differs from run to run. */
const asImage = (svg: string, title: string): string =>
  svg
    .replace(/<style[\s\S]*?<\/style>\s*/g, "")
    .replace(/ (?:class|pointer-events)="[^"]*"/g, "")
    .replace(/^<svg [^>]*>/, `$&\n<title>${title}</title>`)

/** A bar with its value on top; where a run has none, that is said in its place. */
function bar(rows: Row[], name: string, subject: string, figure: string) {
  const row = rows.find((each) => each.name === name && each.subject === subject)
  const value = row === undefined ? undefined : figureOf(row, figure)
  return {
    value: value ?? 0,
    label: {
      show: true,
      position: "top",
      fontSize: 11,
      color: value === undefined ? FAINT : INK,
      fontWeight: subject === "ours" ? "bold" : "normal",
      formatter:
        value === undefined
          ? "none"
          : value >= 100
            ? Math.round(value).toLocaleString("en")
            : value.toLocaleString("en", { maximumSignificantDigits: 2 }),
    },
  }
}
