/** What a demo's night is made of: returns from a file, or invented ones, and who enters what when. */

import { execFile } from "node:child_process"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import t, { type Test } from "tap"
import { readReturns } from "../../cli/demo/csv.ts"
import { inventNight } from "../../cli/demo/invent.ts"
import { scriptOf } from "../../cli/demo/script.ts"
import { workDirectory } from "../helpers/command.ts"
import { manyReturns, totalsOf } from "../helpers/returns.ts"

const HEADER = "office,district,candidate,party,precinct,votes"

async function file(t: Test, text: string): Promise<string> {
  const path = join(await workDirectory(t), "returns.csv")
  await writeFile(path, text)
  return path
}

t.test(
  "a file is read as spreadsheets write it: marks, quotes, commas, line ends, any column order",
  async (t) => {
    const path = await file(
      t,
      `\uFEFFParty,Office,precinct,DISTRICT,candidate,absentee_votes,votes\r
D,President,"Ward 1, ""East""",,"Núñez, José",3,12\r
,State Senate,Łódź 2,7,Ann  O'Neil,,0\r
\r
R,State Senate,Łódź 2,7,北村,1,0042\r
D,State Senate,Łódź 2,8,北村,1,5\r
D,President,Łódź 2,,"Núñez, José",3,30`,
    )
    const { returns, skipped } = await readReturns(path)
    t.equal(skipped, 0)
    t.equal(returns.entries, 5)
    t.same(returns.elections, ["President", "State Senate, district 7", "State Senate, district 8"])
    t.same(returns.committees, [
      { name: 'Ward 1, "East"', candidates: [0], votes: [12] },
      { name: "Łódź 2", candidates: [1, 2, 3, 0], votes: [0, 42, 5, 30] },
    ])
    t.same(
      returns.candidates.map(({ name }) => name),
      ["Núñez, José", "Ann  O'Neil", "北村", "北村"],
    )
  },
)

t.test(
  "rows that sum up or count no choice are skipped, by their whole name; all others count",
  async (t) => {
    const rows = [
      "Registered Voters,,,,P 1,900",
      "Ballots Cast - Blank,,,,P 1,3",
      "Ballots Cast,,,,P 1,500",
      "Mayor,,TOTAL VOTES CAST,,P 1,500",
      "Mayor,,Under Votes,,P 1,7",
      "Mayor,,Overvotes,,P 1,1",
      "Mayor,,Blanks,,P 1,2",
      "Mayor,,Ann,,Total,490",
    ]
    const counted = ["Mayor,,Write-in,,P 1,4", "Mayor,,Ann Blank,,P 1,5", "Mayor,,Total Recall,,P 1,6"]
    const { returns, skipped } = await readReturns(await file(t, [HEADER, ...rows, ...counted].join("\n")))
    t.equal(skipped, rows.length)
    t.same(
      returns.candidates.map(({ name }) => name),
      ["Write-in", "Ann Blank", "Total Recall"],
    )
  },
)

t.test("a file that cannot be used is refused with what is wrong, and the line", async (t) => {
  const good = "Mayor,,Ann,D,P 1,5"
  const cases: Array<[name: string, text: string | Buffer, message: RegExp]> = [
    [
      "columns missing",
      "office,candidate,precinct,total\n",
      /line 1: no column district, party, votes; .*there are office, candidate, precinct, total/,
    ],
    ["no header", `${good}\n`, /line 1: no column office/],
    ["nothing", "", /line 1: the file is empty/],
    ["only a header", HEADER, /line 1: there is no row/],
    ["text for votes", `${HEADER}\n${good}\nMayor,,Bob,,P 1,many\n`, /line 3: votes is "many"/],
    [
      "separators",
      `${HEADER}\nMayor,,Bob,,P 1,"1,234"\n`,
      /line 2: votes is "1,234": it must be a whole number/,
    ],
    ["below zero", `${HEADER}\nMayor,,Bob,,P 1,-1\n`, /line 2: votes is "-1"/],
    ["beyond an integer", `${HEADER}\nMayor,,Bob,,P 1,2147483648\n`, /line 2: votes is "2147483648"/],
    ["no votes", `${HEADER}\nMayor,,Bob,,P 1,\n`, /line 2: votes is ""/],
    ["no candidate", `${HEADER}\nMayor,,,D,P 1,1\n`, /line 2: candidate is empty/],
    ["no precinct", `${HEADER}\nMayor,,Ann,D,,1\n`, /line 2: precinct is empty/],
    ["a value too many", `${HEADER}\n${good}\n${good},1\n`, /line 3: there are more or fewer values/],
    ["a quote that stays open", `${HEADER}\nMayor,,"Ann,D,P 1,5\n`, /line \d: a quote is not closed/],
    ["a quote in a value", `${HEADER}\nMayor,,"Ann" B,D,P 1,5\n`, /line 2: a quote within/],
    ["Latin-1", Buffer.from(`${HEADER}\nMayor,,Núñez,D,P 1,5\n`, "latin1"), /line 2: it is not UTF-8/],
  ]
  for (const [name, text, message] of cases) {
    const path = join(await workDirectory(t), "returns.csv")
    await writeFile(path, text)
    await t.rejects(readReturns(path), { name: "ConfigError", message }, name)
  }
  await t.rejects(readReturns("/nowhere/returns.csv"), {
    message: "/nowhere/returns.csv cannot be read (ENOENT)",
  })
})

t.test("a file of a hundred thousand rows is read in a small heap", async (t) => {
  const rows = Array.from(
    { length: 100_000 },
    (_, n) =>
      `Office ${n % 50},,Candidate ${n % 7},,Precinct number ${n % 999} of a town with a long name,${n % 500}`,
  )
  const path = await file(t, `${HEADER}\n${rows.join("\n")}\n`)
  const program = `
    import { readReturns } from ${JSON.stringify(import.meta.resolve("#root/cli/demo/csv.ts"))}
    const { returns } = await readReturns(${JSON.stringify(path)})
    console.log(returns.entries)`
  const { stdout } = await promisify(execFile)(process.execPath, [
    "--max-old-space-size=24",
    "--import=tsx",
    "--input-type=module",
    "--eval",
    program,
  ])
  t.equal(stdout, "100000\n")
})

t.test("every entry is given to somebody, once, and in order of time", async (t) => {
  for (const script of [scriptOf(manyReturns()), inventNight(3_000)]) {
    const seen = new Set<string>()
    for (const tasks of [script.clerks, script.lists, script.imports]) {
      t.ok(tasks.length > 0)
      t.ok(tasks.every(({ at }, n) => at >= 0 && at < 0.98 && at >= (tasks[n - 1]?.at ?? 0)))
      for (const task of tasks)
        if (task.kind === "sheet")
          for (let n = task.from; n < task.to; n++) seen.add(`${task.committee} ${n}`)
    }
    t.equal(seen.size, script.returns.entries)
  }
})

t.test(
  "an invented night has a day with peaks, polls that close, and candidates of different strength",
  async (t) => {
    const { clerks, lists, imports, returns, hours } = inventNight(5_000)
    const hour = (at: number) => hours.first + at * (hours.last - hours.first)
    const tasks = [...clerks, ...lists, ...imports]
    const came = tasks.filter(({ kind }) => kind === "arrival").map(({ at }) => hour(at))
    const between = (from: number, to: number) => came.filter((at) => at >= from && at < to).length
    t.equal(between(8, 18), came.length)
    t.ok(between(16, 17) > 1.5 * between(14, 15), "after work more come than in the afternoon")
    t.ok(between(9, 10) > 1.2 * between(10.5, 11.5), "and in the morning")
    t.ok(tasks.every(({ kind, at }) => kind !== "sheet" || hour(at) >= 18))
    const votes = Object.values(totalsOf(returns))
    t.ok(Math.max(...votes) > 1.5 * Math.min(...votes))
    const all = votes.reduce((a, b) => a + b)
    t.ok(Math.abs(all - came.length) < 0.1 * all, `${all} votes of ${came.length} who came`)
    const began = returns.committees.map(
      (_, n) => tasks.find((task) => task.kind === "sheet" && task.committee === n)?.at,
    )
    t.equal(new Set(began).size, 12, "committees begin to report at different times")
  },
)
