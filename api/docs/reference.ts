/** The reference as a page: both descriptions, to be read by a person. Written on the server, so that it needs no script. */

import type { AsyncApi, Message } from "./asyncapi.ts"
import type { OpenApi } from "./openapi.ts"
import type { JsonSchema } from "./schema.ts"

const ESCAPES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
}
const escaped = (text: string): string => text.replace(/[&<>"']/g, (character) => ESCAPES[character] ?? "")
const code = (text: string): string => `<code>${escaped(text)}</code>`

/** A type in a few words. */
function typeOf(schema: JsonSchema): string {
  if (schema.const !== undefined) return code(JSON.stringify(schema.const))
  if (schema.enum !== undefined) return schema.enum.map((value) => code(String(value))).join(" ")
  const options = schema.anyOf ?? schema.oneOf
  if (options !== undefined) return [...new Set(options.map(typeOf))].join(" or ")
  if (schema.items !== undefined) return `list of ${typeOf(schema.items)}`
  const type = [schema.type ?? "anything"].flat().join(" or ")
  if (schema.properties !== undefined) return `object: ${Object.keys(schema.properties).map(code).join(" ")}`
  if (typeof schema.additionalProperties === "object" && Object.keys(schema.additionalProperties).length > 0)
    return `object of ${typeOf(schema.additionalProperties)}`
  return schema.format === "date-time" ? "time" : type
}

function fields({ properties = {}, required = [], oneOf, anyOf }: JsonSchema): string {
  const rows = Object.entries(properties).map(
    ([name, schema]) =>
      `<tr><th scope="row">${code(name)}</th><td>${typeOf(schema)}</td><td>${required.includes(name) ? "always" : "may be missing"}</td></tr>`,
  )
  if (rows.length === 0)
    return oneOf === undefined && anyOf === undefined
      ? ""
      : `<p>${typeOf({ anyOf: oneOf ?? anyOf ?? [] })}</p>`
  return `<div class="scroll" tabindex="0" role="group" aria-label="Fields"><table><thead><tr><th scope="col">Field</th><th scope="col">Type</th><th scope="col"></th></tr></thead><tbody>${rows.join("")}</tbody></table></div>`
}

const idOf = (text: string): string => text.replace(/[^a-z0-9]+/gi, "-").replace(/^-|-$/g, "")

/** As the message says it of itself. */
const wordOf = ({ name }: Message): string => name.replace(/^(client|change)\./, "")

function messageText(message: Message): string {
  const { name, summary, payload, examples } = message
  const example = JSON.stringify(examples[0]?.payload, undefined, 2)
  return `<section class="card" id="${idOf(name)}"><h3>${code(wordOf(message))}</h3><p>${escaped(summary)}</p>${fields(payload)}<pre tabindex="0" aria-label="Example">${escaped(example)}</pre></section>`
}

function requestText(path: string, { get }: OpenApi["paths"][string]): string {
  const answers = Object.entries(get.responses).map(([status, { description, content = {} }]) => {
    const schema = Object.values(content)[0]?.schema ?? {}
    return `<h4>${code(status)} ${escaped(description)}</h4>${fields(schema)}`
  })
  const parameters = (get.parameters ?? []).map(
    ({ name, description }) => `<p>${code(`?${name}=`)} ${escaped(description)}</p>`,
  )
  return `<section class="card" id="${idOf(path)}"><h3>${code(`GET ${path}`)}</h3><p>${escaped(get.summary)}</p>${parameters.join("")}${answers.join("")}</section>`
}

/** The page. */
export function renderReference(sockets: AsyncApi, requests: OpenApi): string {
  const { address, "x-close-codes": closes } = sockets.channels.feed
  const messages = Object.values(sockets.components.messages)
  const ofClients = messages.filter(({ name }) => name.startsWith("client."))
  const ofRelay = messages.filter(({ name }) => !name.startsWith("client."))
  const links = (names: Array<[id: string, text: string]>) =>
    names.map(([id, text]) => `<li><a href="#${id}">${escaped(text)}</a></li>`).join("")
  const messageLinks = (some: Message[]) =>
    links(some.map((message) => [idOf(message.name), wordOf(message)]))
  const paths = Object.entries(requests.paths)
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>CommitCast: reference</title>
<meta name="color-scheme" content="light dark">
<link rel="icon" type="image/svg+xml" href="/icon.svg">
<link rel="stylesheet" href="/style.css">
<link rel="stylesheet" href="/docs.css">
</head>
<body class="reference">
<header class="bar"><div class="inner"><img class="icon" src="/icon.svg" alt="" width="28" height="28"><h1>CommitCast reference</h1><p class="session soft">version ${escaped(sockets.info.version)}</p></div></header>
<main class="inner">
<nav aria-label="Contents">
<h2>The socket</h2><ul>${messageLinks(ofClients)}</ul><ul>${messageLinks(ofRelay)}</ul><ul><li><a href="#closes">Close codes</a></li></ul>
<h2>Requests</h2><ul>${links(paths.map(([path]) => [idOf(path), path]))}</ul>
<p>For programs: <a href="asyncapi.json">asyncapi.json</a>, <a href="openapi.json">openapi.json</a></p>
</nav>
<div class="text">
<p>${escaped(sockets.info.description)} The socket is at ${code(address)}.</p>
<h2>What clients may send</h2>
${ofClients.map(messageText).join("\n")}
<h2>What the relay sends</h2>
${ofRelay.map(messageText).join("\n")}
<h2 id="closes">Close codes</h2>
<section class="card"><p>4000 to 4499: connect again, with jitter. 4500 to 4999: do not, until something has changed.</p>
<table><thead><tr><th scope="col">Code</th><th scope="col">What it means</th></tr></thead><tbody>${Object.entries(
    closes,
  )
    .map(([number, text]) => `<tr><th scope="row">${code(number)}</th><td>${escaped(text)}</td></tr>`)
    .join("")}</tbody></table></section>
<h2>Requests</h2>
${paths.map(([path, item]) => requestText(path, item)).join("\n")}
</div>
</main>
</body>
</html>
`
}
