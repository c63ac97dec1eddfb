/** What the documents name is there: links and their headings, files, rooms and decisions. Reads files, runs none. */

import { readdir, readFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { dirname, join, normalize } from "node:path"
import { fileURLToPath } from "node:url"
import t from "tap"

const root = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
const FOLDERS = ["relay", "api", "client", "cli", "bench", "sql", "ops", "examples", "docs", "tests"]
const ROOMS = (
  createRequire(import.meta.url)(join(root, ".dependency-cruiser.cjs")) as {
    forbidden: Array<{ name: string }>
  }
).forbidden.flatMap(({ name }) => /^relay-(\w+)-imports-no-later-room$/.exec(name)?.[1] ?? [])

const read = (path: string) => readFile(join(root, path), "utf8")

/** All files and folders, relative to the root. */
const paths = new Set([...(await readdir(root)), "."])
for (const folder of FOLDERS) {
  for (const path of await readdir(join(root, folder), { recursive: true })) paths.add(`${folder}/${path}`)
}
// Changelogs speak of what is no more.
const documents = [...paths].filter((path) => /^[^/]+\.md$|^(client|docs)\/.+\.md$/.test(path))
const written = documents.filter((path) => !path.endsWith("CHANGELOG.md") && !path.includes("node_modules"))
const texts = new Map<string, string>()
for (const path of written) texts.set(path, await read(path))

const withoutBlocks = (text: string) => text.replace(/^```[\s\S]*?^```$/gm, "")

/** The anchors of a document's headings, as GitHub makes them. */
const anchorsOf = (text: string) =>
  [...withoutBlocks(text).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replace(/[^\w\s-]/g, "")
      .replace(/\s/g, "-"),
  )

t.test("every link leads to a file, and to a heading where it names one", async (t) => {
  let links = 0
  for (const [document, text] of texts) {
    for (const [, inline, inHtml] of withoutBlocks(text).matchAll(
      /\]\(([^)\s]+)\)|(?:src|srcset)="([^"]+)"/g,
    )) {
      const link = inline ?? inHtml ?? ""
      if (/^[a-z]+:/.test(link)) continue
      links++
      const [path = "", anchor] = link.split("#")
      const target = path === "" ? document : normalize(join(dirname(document), path)).replace(/\/$/, "")
      t.ok(paths.has(target), `${document}: ${link}`)
      if (anchor !== undefined)
        t.ok(anchorsOf(texts.get(target) ?? "").includes(anchor), `${document}: ${link}, the heading`)
    }
  }
  t.ok(links > 80, `${links} links are found`)
})

/** Whether something has this path, in which `*` and `{a,b}` stand for what they do in a shell. */
function exists(path: string): boolean {
  if (!/[*{]/.test(path)) return paths.has(path.replace(/\/$/, ""))
  const pattern = path
    .replace(/[.]/g, "\\$&")
    .replace(/\*/g, "[^/]*")
    .replace(/\{([^}]*)\}/g, (_, names: string) => `(${names.replaceAll(",", "|")})`)
  return [...paths].some((each) => new RegExp(`^${pattern}$`).test(each))
}

t.test("every file that is named is there", async (t) => {
  const named = new RegExp(`(?<![\\w/.=@-])(?:${FOLDERS.join("|")})/[\\w./*{},-]*[\\w/*}]`, "g")
  let files = 0
  for (const [document, text] of texts) {
    for (const [path] of text.matchAll(named)) {
      files++
      t.ok(exists(path), `${document}: ${path}`)
    }
  }
  t.ok(files > 200, `${files} names are found`)
})

t.test("the table of rooms has each room, its files, and what it may import", async (t) => {
  const text = await read("docs/ARCHITECTURE.md")
  const rows = [...text.matchAll(/^\| \[(\w+)\]\(\.\.\/relay\/\w+\) \| .+ \| (.+) \| (.*) ?\|$/gm)]
  t.strictSame(rows.map(([, room]) => room).sort(), [...ROOMS].sort())
  for (const [, room = "", files = "", imports = ""] of rows) {
    for (const [, file] of files.matchAll(/`([^`]+)`/g))
      t.ok(paths.has(`relay/${room}/${file}.ts`), `relay/${room}/${file}.ts`)
    t.equal(/`(\w+)`/.exec(imports)?.[1], ROOMS[ROOMS.indexOf(room) - 1], `${room} may import ${imports}`)
  }
  const order = /in this\s+order: ([^.]+)\./.exec(text)?.[1] ?? ""
  t.strictSame(
    [...order.matchAll(/`(\w+)`/g)].map(([, room]) => room),
    ROOMS,
  )
  for (const [, room, file] of text.matchAll(/`(\w+)\/([\w-]+)`/g)) {
    if (ROOMS.includes(room ?? "")) t.ok(paths.has(`relay/${room}/${file}.ts`), `the walks: ${room}/${file}`)
  }
})

t.test("the list of decisions has each record once, in order", async (t) => {
  const records = [...texts.keys()].filter((path) => /^docs\/decisions\/(?!README)/.test(path)).sort()
  const expected = records.map((path) => {
    const [, number, title, date] = /^# (\d+)\. (.+)\n\n([\d-]+)/.exec(texts.get(path) ?? "") ?? []
    return `| ${number} | ${date} | [${title}](${path.replace("docs/decisions/", "")}) |`
  })
  t.strictSame((await read("docs/decisions/README.md")).match(/^\| \d.+$/gm), expected)
  t.strictSame(
    records.map((path) => Number(/\d+/.exec(path)?.[0])),
    records.map((_, i) => i + 1),
  )
})
