/** Reads Dockerfile and docker-compose.yml: no engine is needed to see that they fit this repository. */

import { existsSync, readFileSync } from "node:fs"
import { dirname, posix } from "node:path"
import { fileURLToPath } from "node:url"
import t from "tap"
import { parse } from "yaml"
import { z } from "zod"
import { Settings } from "../relay/config.ts"

type Instruction = { name: string; args: string }

const root = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
const text = (path: string): string => readFileSync(`${root}/${path}`, "utf8")
const settings = Object.keys(Settings.shape)

const Compose = z.object({
  services: z.record(
    z.string(),
    z.object({
      image: z.string().optional(),
      build: z.string().optional(),
      restart: z.string(),
      read_only: z.boolean().optional(),
      user: z.string().optional(),
      privileged: z.boolean().optional(),
      environment: z.record(z.string(), z.string()),
      configs: z.array(z.object({ source: z.string(), target: z.string() })).default([]),
      volumes: z.array(z.string()).default([]),
      ports: z.array(z.string()).default([]),
      healthcheck: z.object({ test: z.array(z.string()) }).optional(),
      depends_on: z.record(z.string(), z.object({ condition: z.string() })).default({}),
    }),
  ),
  configs: z.record(z.string(), z.object({ content: z.string() })),
  volumes: z.record(z.string(), z.null()),
})
const Tsconfig = z.object({
  compilerOptions: z.object({ outDir: z.string().optional(), rootDir: z.string().optional() }),
  include: z.array(z.string()),
})

/** The stages of a Dockerfile, each with its instructions. */
function stages(dockerfile: string): Instruction[][] {
  const found: Instruction[][] = []
  for (const line of dockerfile.replaceAll("\\\n", " ").split("\n")) {
    const [, name, args = ""] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? []
    if (name === "FROM") found.push([])
    if (name !== undefined) found.at(-1)?.push({ name, args: args.trim() })
  }
  return found
}

const argsOf = (stage: Instruction[], name: string): string[] =>
  stage.filter((instruction) => instruction.name === name).map(({ args }) => args)

/** What a stage copies out of the repository, not out of another stage. */
const copied = (stage: Instruction[]): string[] =>
  argsOf(stage, "COPY")
    .filter((args) => !args.startsWith("--from"))
    .flatMap((args) => args.split(/\s+/).slice(0, -1))

const build = Tsconfig.parse(JSON.parse(text("tsconfig.build.json")))
const base = Tsconfig.parse(JSON.parse(text("tsconfig.json")))
const all = stages(text("Dockerfile"))
const image = all.at(-1) ?? []
const compose = Compose.parse(parse(text("docker-compose.yml")))
const { postgres, relay } = compose.services

t.test("the image runs what tsconfig.build.json emits", async (t) => {
  const command = z.array(z.string()).parse(JSON.parse(argsOf(image, "CMD")[0] ?? ""))
  t.strictSame([command[0], command.at(-1)], ["node", "start"])
  const script = command.find((arg) => arg.endsWith(".js")) ?? ""
  const source = posix.relative(build.compilerOptions.outDir ?? "", script).replace(/\.js$/, ".ts")
  t.equal(source, "cli/main.ts")
  t.equal(base.compilerOptions.rootDir, ".", "so that cli/main.ts becomes dist/cli/main.js")
  t.ok(build.include.includes(dirname(source)), "it is among what is built")
  t.equal(
    z.object({ bin: z.record(z.string(), z.string()) }).parse(JSON.parse(text("package.json"))).bin
      .commitcast,
    script,
  )
})

t.test("the image holds what the relay reads at run time", async (t) => {
  for (const stage of all.slice(0, 2))
    t.ok(copied(stage).includes("client/package.json"), "npm finds the workspace of the lockfile")
  for (const folder of build.include)
    t.ok(copied(all[0] ?? []).includes(folder), `${folder} is there to be built`)
  for (const path of ["package.json", "sql", "api/public"]) t.ok(copied(image).includes(path), path)
  const sent = text(".dockerignore").split("\n")
  t.ok(sent.includes("*"), "the builder gets nothing that is not named: no .env, no .git, no node_modules")
  for (const path of all.flatMap(copied)) {
    t.ok(existsSync(`${root}/${path}`), `${path} exists`)
    t.ok(sent.includes(`!${path.split("/")[0]}`), `${path} is sent to the builder`)
  }
})

t.test("the image is not root's, listens on every address and knows its health", async (t) => {
  t.equal(argsOf(image, "USER").at(-1), "node")
  const set = Object.fromEntries(
    argsOf(image, "ENV").flatMap((args) => args.split(/\s+/).map((pair) => pair.split("="))),
  )
  t.match(set, { HOST: "0.0.0.0", PORT: "8080", NODE_ENV: "production" })
  t.strictSame(
    Object.keys(set).filter((name) => name !== "NODE_ENV" && !settings.includes(name)),
    [],
  )
  t.strictSame(argsOf(image, "EXPOSE"), [set.PORT])
  t.match(argsOf(image, "HEALTHCHECK")[0], "/health/ready")
  t.match(argsOf(all[1] ?? [], "RUN")[0], "npm ci --omit=dev --omit=optional --ignore-scripts")
})

t.test("the relay waits for a healthy PostgreSQL 18 that keeps its data", async (t) => {
  t.strictSame(Object.keys(compose.services), ["postgres", "relay"])
  t.equal(postgres?.image, "postgres:18")
  t.strictSame(
    postgres?.volumes,
    ["postgres:/var/lib/postgresql"],
    "18 keeps its data one level higher than 17 did",
  )
  t.ok("postgres" in compose.volumes)
  t.ok(postgres?.healthcheck?.test.includes("pg_isready"))
  t.ok(
    postgres?.healthcheck?.test.includes("--host=127.0.0.1"),
    "by TCP, which the server refuses until it is set up",
  )
  t.equal(relay?.depends_on.postgres?.condition, "service_healthy")
  t.strictSame([postgres?.restart, relay?.restart], ["unless-stopped", "unless-stopped"])
})

t.test("the relay's container can do little", async (t) => {
  t.match(relay, { build: ".", read_only: true })
  t.strictSame([relay?.user, relay?.privileged], [undefined, undefined], "it stays the image's user")
  t.match(relay?.ports, [/^127\.0\.0\.1:.*:8080$/])
  t.match(relay?.environment.DATABASE_URL, /^postgres:\/\/commitcast:\$\{.*\}@postgres:5432\/commitcast$/)
  const [config] = postgres?.configs ?? []
  const script = compose.configs[config?.source ?? ""]?.content ?? ""
  t.match(config?.target, /^\/docker-entrypoint-initdb\.d\/.*\.sh$/)
  t.match(script, "create role commitcast login password")
  t.notMatch(script, /superuser/i, "its role is an ordinary one")
})

t.test("the relay's settings exist", async (t) => {
  t.strictSame(
    Object.keys(relay?.environment ?? {}).filter((name) => !settings.includes(name)),
    [],
  )
})

t.test("every secret must be given and none is written down", async (t) => {
  const environment = Object.values(compose.services).flatMap((service) =>
    Object.entries(service.environment),
  )
  const secrets = environment.filter(([name]) => /PASSWORD|SECRET|DATABASE_URL/.test(name))
  t.equal(secrets.length, 4)
  for (const [name, value] of secrets) t.match(value, /\$\{\w+:\?[^}]+\}/, `${name} is required`)
  const loose = [...text("docker-compose.yml").matchAll(/(?<!\$)\$\{(\w+)\}/g)].map(([, name]) => name)
  t.strictSame(loose, [], "every other variable has a default")
  for (const { content } of Object.values(compose.configs)) t.notMatch(content, /password\s+'/)
})
