/** Takes SQL apart that runs under somebody else's search_path, and finds the names in it that are found by that path. */

const TOKEN =
  /(?<blank>\s+|--[^\n]*|\/\*[\s\S]*?\*\/)|(?<text>e?'(?:[^']|'')*'|\$(?<tag>\w*)\$[\s\S]*?\$\k<tag>\$)|(?<word>"(?:[^"]|"")*"|[a-z_][\w$]*)|(?<number>\$?\d[\d.]*)|(?<cast>::|:=|=>|\.\.)|(?<operator>[-+*/<>=~!@#%^&|`?]+)|(?<mark>[\s\S])/giy

type Kind = "text" | "word" | "number" | "cast" | "operator" | "mark"
interface Token {
  kind: Kind
  text: string
}

/** Types that are words of the grammar, and mean PostgreSQL's own under any path. */
const WORDS_FOR_TYPES = new Set(
  "int integer bigint smallint boolean numeric decimal real float double character varchar char bit timestamp time interval".split(
    " ",
  ),
)
/** What looks like a call and is a word of the grammar. */
const WORDS_BEFORE_BRACKETS = new Set(
  `coalesce greatest least exists values row array cast extract trim substring position overlay any all some not and or in as on
   over filter when then else if elsif case select from where set by returning table into using with interval char varchar numeric
   decimal bit time timestamp float localtime localtimestamp current_timestamp operator`.split(/\s+/),
)
/** Words that stand for operators, which are looked up by the path. */
const HIDDEN_OPERATORS = new Set(["like", "ilike", "similar", "between", "overlaps", "nullif", "natural"])
/** In plpgsql, = after one of them gives a value. */
const GIVEN = new Set("errcode hint detail message column constraint datatype table schema".split(" "))

function tokensOf(sql: string): Token[] {
  const tokens: Token[] = []
  TOKEN.lastIndex = 0
  for (let match = TOKEN.exec(sql); match !== null; match = TOKEN.exec(sql)) {
    const { groups = {} } = match
    const kind = (["text", "word", "number", "cast", "operator", "mark"] as const).find(
      (name) => groups[name] !== undefined,
    )
    if (kind === undefined) continue
    tokens.push({ kind, text: kind === "word" ? match[0].toLowerCase() : match[0] })
  }
  return tokens
}

/** @param functions the names of PostgreSQL's own. @returns what is wrong, each with what stands around it. */
export function unqualifiedIn(sql: string, functions: ReadonlySet<string>): string[] {
  const tokens = tokensOf(sql)
  const at = (n: number): string => tokens[n]?.text ?? ""
  const around = (n: number) =>
    tokens
      .slice(Math.max(0, n - 4), n + 5)
      .map(({ text }) => text)
      .join(" ")
  const wrong = new Set<string>()
  const declared = declarationsOf(tokens)
  tokens.forEach(({ kind, text }, n) => {
    const bad =
      (kind === "operator" && !isNoLookUp(tokens, n)) ||
      (kind === "cast" && text === "::" && !isOwnType(tokens, n + 1)) ||
      (declared.has(n) && !isOwnType(tokens, n)) ||
      (kind === "word" &&
        (HIDDEN_OPERATORS.has(text) ||
          (text === "in" && at(n + 1) === "(") ||
          (text === "using" && at(n + 1) === "(") ||
          (text === "distinct" && /^(is|not)$/.test(at(n - 1))) ||
          (text === "case" && at(n + 1) !== "when" && at(n - 1) !== "end") ||
          (/^(from|join)$/.test(text) && /^pg_/.test(at(n + 1)) && at(n + 2) !== ".") ||
          (at(n + 1) === "(" &&
            at(n - 1) !== "." &&
            functions.has(text) &&
            !WORDS_BEFORE_BRACKETS.has(text))))
    if (bad) wrong.add(around(n))
  })
  return [...wrong]
}

/** Where an operator's sign is none, or is qualified. */
function isNoLookUp(tokens: readonly Token[], n: number): boolean {
  const at = (k: number): string => tokens[k]?.text ?? ""
  const sign = at(n)
  if (at(n - 1) === "." && at(n - 2) === "pg_catalog" && at(n - 3) === "(" && at(n - 4) === "operator")
    return true
  if (sign === "*") return /^([(.,]|select|returning)$/.test(at(n - 1))
  if (sign === "=")
    return at(n - 2) === "set" || at(n - 2) === "local" || at(n - 2) === "diagnostics" || GIVEN.has(at(n - 1))
  if (sign === "%") return /^(type|rowtype)$/.test(at(n + 1))
  // A number with its sign.
  return (
    sign === "-" &&
    tokens[n + 1]?.kind === "number" &&
    !/^(word|number|text)$/.test(tokens[n - 1]?.kind ?? "")
  )
}

/** Whether a type is PostgreSQL's or ours under any path. */
function isOwnType(tokens: readonly Token[], n: number): boolean {
  const name = tokens[n]?.text ?? ""
  return WORDS_FOR_TYPES.has(name) || (/^(pg_catalog|relay)$/.test(name) && tokens[n + 1]?.text === ".")
}

/** Where the types of plpgsql's variables stand. */
function declarationsOf(tokens: readonly Token[]): Set<number> {
  const found = new Set<number>()
  let declaring = false
  tokens.forEach(({ text }, n) => {
    if (text === "declare") declaring = true
    if (text === "begin") declaring = false
    if (!declaring || !/^(declare|;)$/.test(text) || tokens[n + 1]?.kind !== "word") return
    if (tokens[n + 1]?.text === "begin") return
    found.add(tokens[n + 2]?.text === "constant" ? n + 3 : n + 2)
  })
  return found
}
