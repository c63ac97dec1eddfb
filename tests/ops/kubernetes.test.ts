/** The manifest fits the program: its probes, its settings, its time to drain, and what selects what. */

import { readFileSync } from "node:fs"
import { writeFile } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import t from "tap"
import { parseAllDocuments } from "yaml"
import { z } from "zod"
import { Settings } from "../../relay/config.ts"
import { finish, workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { launchRelay, SECRET, startRelay } from "../helpers/relay.ts"
import { shipped } from "../helpers/shipped.ts"

const Labels = z.record(z.string(), z.string())
const Selector = z.object({ matchLabels: Labels })
const Probe = z.object({ httpGet: z.object({ path: z.string(), port: z.string() }) })
const Container = z.object({
  image: z.string(),
  ports: z.array(z.object({ name: z.string(), containerPort: z.number() })),
  // Strict: there is no room for a secret but in a file.
  env: z.array(z.strictObject({ name: z.string(), value: z.string() })),
  volumeMounts: z.array(z.object({ name: z.string(), mountPath: z.string(), readOnly: z.literal(true) })),
  startupProbe: Probe,
  livenessProbe: Probe,
  readinessProbe: Probe,
  lifecycle: z.object({
    preStop: z.object({ exec: z.object({ command: z.tuple([z.literal("sleep"), z.string()]) }) }),
  }),
  resources: z.object({ requests: Labels, limits: Labels }),
  securityContext: z.object({
    allowPrivilegeEscalation: z.literal(false),
    readOnlyRootFilesystem: z.literal(true),
    capabilities: z.object({ drop: z.tuple([z.literal("ALL")]) }),
  }),
})
const Pod = z.object({
  metadata: z.object({ labels: Labels, annotations: Labels }),
  spec: z.object({
    automountServiceAccountToken: z.literal(false),
    terminationGracePeriodSeconds: z.number(),
    securityContext: z.object({
      runAsNonRoot: z.literal(true),
      runAsUser: z.number().positive(),
      seccompProfile: z.object({ type: z.literal("RuntimeDefault") }),
    }),
    topologySpreadConstraints: z.tuple([z.object({ labelSelector: Selector })]),
    containers: z.tuple([Container]),
    volumes: z.tuple([z.object({ name: z.string(), secret: z.object({ secretName: z.string() }) })]),
  }),
})
const Manifest = z.tuple([
  z.object({
    apiVersion: z.literal("apps/v1"),
    kind: z.literal("Deployment"),
    spec: z.object({
      replicas: z.number(),
      selector: Selector,
      strategy: z.object({
        type: z.literal("RollingUpdate"),
        rollingUpdate: z.object({ maxUnavailable: z.number(), maxSurge: z.number() }),
      }),
      template: Pod,
    }),
  }),
  z.object({
    apiVersion: z.literal("v1"),
    kind: z.literal("Service"),
    spec: z.object({ selector: Labels, ports: z.tuple([z.object({ targetPort: z.string() })]) }),
  }),
  z.object({
    apiVersion: z.literal("policy/v1"),
    kind: z.literal("PodDisruptionBudget"),
    spec: z.object({ minAvailable: z.number(), selector: Selector }),
  }),
])

const root = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
const documents = parseAllDocuments(shipped("kubernetes/commitcast.yaml"))
const [deployment, service, budget] = Manifest.parse(documents.map((document) => document.toJS()))
const { metadata, spec: pod } = deployment.spec.template
const [container] = pod.containers
const PROBES = ["startupProbe", "livenessProbe", "readinessProbe"] as const
const defaults = Settings.parse({})

t.test("each probe asks what the relay answers, and only readiness waits for the database", async (t) => {
  const db = await database(t)
  const ready = await startRelay(t, db)
  const unready = await launchRelay(t, { url: db.url.replace(`:${db.port}/`, ":1/") })
  for (const name of PROBES) {
    const { path } = container[name].httpGet
    t.equal((await fetch(ready.url + path)).status, 200, name)
    t.equal((await fetch(unready.url + path)).status, name === "readinessProbe" ? 503 : 200, name)
  }
})

t.test("its environment is made of settings, and secrets come from files", async (t) => {
  const cwd = await workDirectory(t)
  const texts: Record<string, string> = {
    database_url: "postgres://relay:password@db:5432/election",
    jwt_secret: SECRET,
  }
  const [volume] = pod.volumes
  const mount = container.volumeMounts.find(({ name }) => name === volume.name)
  const env: Record<string, string> = {}
  for (const { name, value } of container.env) {
    t.ok(name.replace(/_FILE$/, "") in Settings.shape, name)
    t.notMatch(name, /(SECRET|URL|KEY|TOKEN)$/)
    env[name] = value
    if (!name.endsWith("_FILE")) continue
    t.equal(dirname(value), mount?.mountPath)
    env[name] = join(cwd, basename(value))
    await writeFile(env[name], texts[basename(value)] ?? "")
  }
  const { out, err, code } = await finish(t, cwd, ["config"], env)
  t.equal(code, 0, err)
  t.match(out, "HOST=0.0.0.0\n")
  t.match(out, "DATABASE_URL=postgres://relay:***@db:5432/election\n")
  t.match(out, `JWT_SECRET=(${SECRET.length} bytes)\n`)
  const made = `kubectl create secret generic ${volume.secret.secretName} ${Object.keys(texts)
    .map((name) => `--from-file=${name}`)
    .join(" ")}`
  t.match(shipped("kubernetes/commitcast.yaml"), made)
})

t.test("a relay that is stopped has left the balancer, and drains, before it is killed", async (t) => {
  const [, seconds] = container.lifecycle.preStop.exec.command
  t.ok(Number(seconds) > 0)
  t.ok(pod.terminationGracePeriodSeconds >= Number(seconds) + defaults.DRAIN_TIMEOUT_SECONDS + 5)
})

t.test("one relay is there at any time", async (t) => {
  const { replicas, strategy } = deployment.spec
  t.ok(replicas >= 2)
  t.strictSame(strategy.rollingUpdate, { maxUnavailable: 0, maxSurge: 1 })
  t.equal(budget.spec.minAvailable, 1)
})

t.test("what selects the relays selects them, at their port", async (t) => {
  const selectors = [
    deployment.spec.selector.matchLabels,
    service.spec.selector,
    budget.spec.selector.matchLabels,
    pod.topologySpreadConstraints[0].labelSelector.matchLabels,
  ]
  for (const selector of selectors) t.match(metadata.labels, selector)
  const [port] = container.ports
  const set = container.env.find(({ name }) => name === "PORT")?.value
  t.strictSame([String(port?.containerPort), metadata.annotations["prometheus.io/port"]], [set, set])
  const used = [service.spec.ports[0].targetPort, ...PROBES.map((name) => container[name].httpGet.port)]
  t.strictSame(new Set(used), new Set([port?.name]))
})

t.test("the image is this version's", async (t) => {
  const { version } = z
    .object({ version: z.string() })
    .parse(JSON.parse(readFileSync(join(root, "package.json"), "utf8")))
  t.equal(container.image, `commitcast:${version}`)
})
