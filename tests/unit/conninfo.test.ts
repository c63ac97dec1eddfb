/** Connection strings, read as libpq reads them. */

import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir, userInfo } from "node:os"
import { join } from "node:path"
import t, { type Test } from "tap"
import { ConninfoError, parseConninfo } from "../../relay/lib/conninfo.ts"
import { type Login, readLogin } from "../../relay/lib/login.ts"

const parsed = (text: string) => Object.fromEntries(parseConninfo(text))

t.test("a URI has its parts, each of which may be missing", async (t) => {
  const cases: Record<string, Record<string, string>> = {
    "postgres://": {},
    "postgresql:///election": { dbname: "election" },
    "postgres://app@/election": { user: "app", dbname: "election" },
    "postgres://app:s%40crt%2F%25@db.example:6432/my%20db?application_name=x%3Dy": {
      user: "app",
      password: "s@crt/%",
      host: "db.example",
      port: "6432",
      dbname: "my db",
      application_name: "x=y",
    },
    "postgres://one,two:6433,[::1]:7000/d?target_session_attrs=read-write": {
      host: "one,two,::1",
      port: ",6433,7000",
      dbname: "d",
      target_session_attrs: "read-write",
    },
    "postgres://h1,h2/d": { host: "h1,h2", dbname: "d" },
    "postgres://%2Fvar%2Frun%2Fpg/d": { host: "/var/run/pg", dbname: "d" },
    "postgres:///d?host=/tmp&port=5433": { host: "/tmp", port: "5433", dbname: "d" },
    "postgres://h?sslmode=require": { host: "h", sslmode: "require" },
    "postgres://h/d?ssl=true": { host: "h", dbname: "d", sslmode: "require" },
    "postgres://h/d?sslmode=verify-full&ssl=true": { host: "h", dbname: "d", sslmode: "verify-full" },
    "postgres://app:@h/d": { user: "app", password: "", host: "h", dbname: "d" },
  }
  for (const [text, wanted] of Object.entries(cases)) t.strictSame(parsed(text), wanted, text)
})

t.test("keywords have their values, quoted or not", async (t) => {
  const cases: Record<string, Record<string, string>> = {
    "host=h dbname=d": { host: "h", dbname: "d" },
    "  host = 'h'  port=5433 ": { host: "h", port: "5433" },
    "password='it\\'s a \\\\ secret' user=''": { password: "it's a \\ secret", user: "" },
    "password=a\\ b=c user=": { password: "a b=c", user: "" },
    "host=h1,h2 options='-c geqo=off'": { host: "h1,h2", options: "-c geqo=off" },
  }
  for (const [text, wanted] of Object.entries(cases)) t.strictSame(parsed(text), wanted, text)
})

t.test("what cannot be read is refused without its values", async (t) => {
  const cases = [
    "postgres://h/d?colour=hush",
    "postgres://u:hush%@h/d",
    "postgres://u:hush@h:x/d",
    "postgres://u:hush@::1/d",
    "postgres://h/d?hush",
    "postgres://u:hush@h/d?sslmode=verify-full&ssl=false",
    "postgres://u:hush@h/d?sslmode=disable&ssl=true",
    "host='hush",
    "host=h hush",
    "mysql://u:hush@h/d",
    "hush",
  ]
  for (const text of cases)
    try {
      parseConninfo(text)
      t.fail(text)
    } catch (error) {
      t.type(error, ConninfoError, text)
      t.notMatch((error as Error).message, /hush/, text)
    }
})

const shown = (login: Login) => login.hosts().map(({ name, address, port }) => `${name}|${address}|${port}`)

t.test("hosts, addresses and ports belong together in order", async (t) => {
  t.strictSame(shown(readLogin("postgres://one,two:6433/d", {})), ["one|one|5432", "two|two|6433"])
  t.strictSame(shown(readLogin("host=one,two port=7000", {})), ["one|one|7000", "two|two|7000"])
  t.strictSame(shown(readLogin("host=db.example hostaddr=127.0.0.1", {})), ["db.example|127.0.0.1|5432"])
  t.strictSame(shown(readLogin("hostaddr=::1 port=7000", {})), ["::1|::1|7000"])
  t.strictSame(shown(readLogin("host=/tmp", { PGPORT: "7000" })), ["/tmp|/tmp|7000"])
  for (const text of ["host=a,b port=1,2,3", "host=a,b hostaddr=127.0.0.1", "port=0", "port=65536", "port=x"])
    t.throws(() => readLogin(text, {}), ConninfoError, text)
})

t.test("what the string does not say, the environment does, and then what is usual", async (t) => {
  const env = { PGHOST: "h", PGPORT: "7000", PGUSER: "app", PGPASSWORD: "secret", PGAPPNAME: "mine" }
  const login = readLogin("postgres:///d", env)
  t.strictSame(shown(login), ["h|h|7000"])
  t.match(login, { user: "app", database: "d", applicationName: "mine" })
  t.equal(login.password(login.hosts()[0] as never), "secret")
  t.match(readLogin("postgres://h", {}), { user: userInfo().username, database: userInfo().username })
  t.match(readLogin("postgres://other@h", env), { user: "other", database: "other" })
  t.match(readLogin("postgres://h", {}).tls, { kind: "optional", first: "tls" }, "prefer, as libpq")
})

t.test("sslmode means what libpq means by it", async (t) => {
  const home = await scratch(t)
  const root = join(home, "root.crt")
  await writeFile(root, "(certificates)")
  const tls = (text: string) => readLogin(`host=h ${text}`, {}).tls
  t.match(tls("sslmode=disable"), { kind: "off" })
  t.match(tls("sslmode=allow"), { kind: "optional", first: "plain", options: { rejectUnauthorized: false } })
  t.match(tls("sslmode=prefer"), { kind: "optional", first: "tls", options: { rejectUnauthorized: false } })
  t.match(tls("sslmode=require"), { kind: "required", direct: false, options: { rejectUnauthorized: false } })
  t.match(tls("sslmode=no-verify"), { kind: "required", options: { rejectUnauthorized: false } })
  for (const mode of ["require", "verify-ca"]) {
    const { options } = tls(`sslmode=${mode} sslrootcert=${root}`) as Extract<
      Login["tls"],
      { options: object }
    >
    t.match(options, { ca: "(certificates)" }, mode)
    t.equal(options.rejectUnauthorized, true, `${mode} verifies the authority`)
    t.equal(options.checkServerIdentity?.("h", {} as never), undefined, `${mode} takes any name`)
  }
  const full = tls(`sslmode=verify-full sslrootcert=${root}`) as Extract<Login["tls"], { options: object }>
  t.match(full.options, { ca: "(certificates)", checkServerIdentity: undefined, rejectUnauthorized: true })
  t.notOk("ca" in (tls("sslrootcert=system") as typeof full).options)
  t.match(tls("sslrootcert=system"), {
    kind: "required",
    options: { mode: "verify-full", rejectUnauthorized: true },
  })
  t.match(tls("sslmode=require sslnegotiation=direct"), {
    direct: true,
    options: { ALPNProtocols: ["postgresql"] },
  })
})

t.test("what is not done here is refused by name", async (t) => {
  const cases: Record<string, RegExp> = {
    "target_session_attrs=standby": /target_session_attrs=standby.*read-write/,
    "target_session_attrs=read-only": /read-only/,
    "target_session_attrs=any_": /target_session_attrs that is none of any, read-write/,
    "sslmode=verify": /sslmode that is none of/,
    "sslmode=verify-full sslrootcert=/nowhere/root.crt": /\/nowhere\/root\.crt.*ENOENT/,
    "sslmode=require sslrootcert=system": /sslmode=verify-full/,
    "sslnegotiation=direct": /sslmode=require/,
    "require_auth=scram-sha-256": /require_auth/,
    "requirepeer=postgres": /requirepeer/,
    "gssencmode=require": /gssencmode/,
    "sslcrldir=/crl": /sslcrldir.*sslcrl/,
    "channel_binding=always": /channel_binding/,
    "sslmode=''": /empty sslmode/,
    "channel_binding=": /empty channel_binding/,
    "service=nowhere servicefile=/nowhere/services": /\/nowhere\/services/,
  }
  for (const [text, message] of Object.entries(cases))
    t.throws(() => readLogin(`host=h ${text}`, {}), { name: "ConninfoError", message }, text)
})

t.test("a service fills what the string leaves open, before the environment", async (t) => {
  const home = await scratch(t)
  const path = join(home, "services")
  await writeFile(
    path,
    "# ours\n[other]\nhost=wrong\n\n[election]\nhost=h1,h2\nport=7000\n dbname=d\nuser=app\n[last]\n",
  )
  const env = { PGSERVICEFILE: path, PGUSER: "environment", PGSSLMODE: "disable" }
  for (const login of [
    readLogin("service=election user=me", env),
    readLogin("postgres://me@?service=election", env),
    readLogin("postgres://me@", { ...env, PGSERVICE: "election" }),
    readLogin(`service=election user=me servicefile=${path}`, { PGSSLMODE: "disable" }),
  ]) {
    t.strictSame(shown(login), ["h1|h1|7000", "h2|h2|7000"])
    t.match(login, { user: "me", database: "d", tls: { kind: "off" } })
  }
  t.throws(() => readLogin("service=none", env), { message: /service none.*services/ })
  await writeFile(path, "[election]\nldap://ldap.example/x\n")
  t.throws(() => readLogin("service=election", env), { message: /line 2/ })
})

t.test("a password file is read anew for each host, and only where nobody else may read it", async (t) => {
  const home = await scratch(t)
  const path = join(home, "pass")
  const text = "# ours\nh1:5432:d:app:one\nh2:*:*:app:t\\:w:o\nlocalhost:*:*:*:socket\n*:*:*:nobody:none\n"
  await writeFile(path, text, { mode: 0o600 })
  const login = readLogin(`host=h1,h2,/tmp,h3 user=app dbname=d passfile=${path}`, {})
  const [h1, h2, socket, h3] = login.hosts().map((host) => () => login.password(host))
  t.strictSame([h1?.(), h2?.(), socket?.()], ["one", "t:w:o", "socket"])
  t.throws(() => h3?.(), { message: /asks for a password.*PGPASSWORD.*pass/ })
  await writeFile(path, text.replace(":one", ":another"))
  t.equal(h1?.(), "another", "as it is now")
  await chmod(path, 0o644)
  t.throws(() => h1?.(), { message: /chmod 600/ })
})

async function scratch(t: Test): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-conninfo-"))
  await mkdir(home, { recursive: true })
  t.teardown(() => rm(home, { recursive: true, force: true }))
  return home
}
