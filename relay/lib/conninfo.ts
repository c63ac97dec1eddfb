/** Connection strings as libpq reads them: a URI, or keywords with values. Pure: what they name is looked up elsewhere. */

/** Keyword and value, only those that are given. */
export type Conninfo = ReadonlyMap<string, string>

/** A connection string that libpq would refuse, or that asks for what is not done here. The message never quotes a value. */
export class ConninfoError extends Error {
  override name = "ConninfoError"
}

/** The keywords, each with the environment variable that stands in for it. */
export const KEYWORDS: ReadonlyMap<string, string | undefined> = new Map([
  ["host", "PGHOST"],
  ["hostaddr", "PGHOSTADDR"],
  ["port", "PGPORT"],
  ["dbname", "PGDATABASE"],
  ["user", "PGUSER"],
  ["password", "PGPASSWORD"],
  ["passfile", "PGPASSFILE"],
  ["service", "PGSERVICE"],
  ["servicefile", "PGSERVICEFILE"],
  ["options", "PGOPTIONS"],
  ["application_name", "PGAPPNAME"],
  ["fallback_application_name", undefined],
  ["connect_timeout", "PGCONNECT_TIMEOUT"],
  ["target_session_attrs", "PGTARGETSESSIONATTRS"],
  ["load_balance_hosts", "PGLOADBALANCEHOSTS"],
  ["sslmode", "PGSSLMODE"],
  ["sslnegotiation", "PGSSLNEGOTIATION"],
  ["sslrootcert", "PGSSLROOTCERT"],
  ["sslcert", "PGSSLCERT"],
  ["sslkey", "PGSSLKEY"],
  ["sslpassword", undefined],
  ["sslcertmode", "PGSSLCERTMODE"],
  ["sslcrl", "PGSSLCRL"],
  ["sslcrldir", "PGSSLCRLDIR"],
  ["sslsni", "PGSSLSNI"],
  ["ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"],
  ["ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"],
  ["channel_binding", "PGCHANNELBINDING"],
  ["require_auth", "PGREQUIREAUTH"],
  ["requirepeer", "PGREQUIREPEER"],
  ["gssencmode", "PGGSSENCMODE"],
  ["scram_client_key", undefined],
  ["scram_server_key", undefined],
  ["replication", undefined],
  // What follows changes nothing here: the relay reads UTF-8, proves its lines itself, and knows no Kerberos.
  ["client_encoding", undefined],
  ["keepalives", undefined],
  ["keepalives_idle", undefined],
  ["keepalives_interval", undefined],
  ["keepalives_count", undefined],
  ["tcp_user_timeout", undefined],
  ["sslcompression", undefined],
  ["krbsrvname", undefined],
  ["gsslib", undefined],
  ["gssdelegation", undefined],
  // Of node-postgres, whose connection strings many have: libpq's meaning holds in any case.
  ["uselibpqcompat", undefined],
])

const URI = /^postgres(?:ql)?:\/\//

/** @throws ConninfoError that says what is wrong. */
export function parseConninfo(text: string): Conninfo {
  if (URI.test(text)) return parseUri(text.replace(URI, ""))
  if (/^[^=]*:\/\//.test(text) || !text.includes("="))
    throw new ConninfoError(
      "must begin with postgres:// or postgresql://, or be keywords such as host=127.0.0.1 dbname=app",
    )
  return parseKeywords(text)
}

/** `user:password@host:port,host:port/database?keyword=value`, each part of which may be missing. */
function parseUri(text: string): Conninfo {
  const found = new Map<string, string>()
  const [, login, hosts = "", database, query] =
    /^(?:([^/]*)@)?((?:\[[^\]]*\]|[^/?[])*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(text) ?? []
  if (login === undefined && hosts === "" && database === undefined && query === undefined && text !== "")
    throw new ConninfoError("has a host in brackets that do not close")
  if (login !== undefined) {
    const [, user = "", password] = /^([^:]*)(?::(.*))?$/s.exec(login) ?? []
    set(found, "user", decode(user))
    if (password !== undefined) set(found, "password", decode(password))
  }
  const places = hosts.split(",").map(readPlace)
  set(found, "host", places.map(({ host }) => host).join(","))
  set(found, "port", places.map(({ port }) => port).join(","))
  if (database !== undefined) set(found, "dbname", decode(database))
  for (const part of query === undefined || query === "" ? [] : query.split("&")) {
    const [, name, value] = /^([^=]*)=([^=]*)$/s.exec(part) ?? []
    if (name === undefined || value === undefined)
      throw new ConninfoError("has something behind the ? that is no keyword=value")
    put(found, decode(name), decode(value))
  }
  return found
}

function readPlace(text: string): { host: string; port: string } {
  const [, bracketed, plain = "", port = ""] = /^(?:\[([^\]]+)\]|([^:[\]]*))(?::(.*))?$/s.exec(text) ?? [
    "",
    "",
    "",
    "x",
  ]
  if (port !== "" && !/^\d+$/.test(port))
    throw new ConninfoError(
      "has a host or a port that cannot be read: an IPv6 address is written in brackets, and :, /, @ in a password as %3A, %2F, %40",
    )
  return { host: bracketed ?? decode(plain), port }
}

/** Of a list of nothing but empty parts, as of one empty part, nothing is left. */
function set(found: Map<string, string>, keyword: string, value: string): void {
  if (value.replaceAll(",", "") !== "" || keyword === "password") found.set(keyword, value)
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new ConninfoError(
      "has a % that stands before no two hexadecimal digits: a plain one is written as %25",
    )
  }
}

/** `host=127.0.0.1 password='it''s'`, with a backslash before a quote or a backslash in a value. */
function parseKeywords(text: string): Conninfo {
  const found = new Map<string, string>()
  const pair =
    /\s*([^\s=]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'(?=\s|$)|((?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*)?)(?:\s+|$)/sy
  while (pair.lastIndex < text.length) {
    const [, name, quoted, plain = ""] = pair.exec(text) ?? []
    if (name === undefined)
      throw new ConninfoError(
        "has keywords that cannot be read: each is keyword=value, and a value with blanks stands in single quotes",
      )
    put(found, name, (quoted ?? plain).replace(/\\(.)/gs, "$1"))
  }
  return found
}

/** @throws ConninfoError if there is no such keyword. */
export function put(found: Map<string, string>, keyword: string, value: string): void {
  if (keyword === "ssl") {
    const mode = {
      true: "require",
      "1": "require",
      "no-verify": "require",
      false: "disable",
      "0": "disable",
    }[value]
    if (mode === undefined) throw new ConninfoError("has an ssl that is neither true nor false: use sslmode")
    const known = found.get("sslmode") ?? mode
    // libpq would go on with the later one, and verify nothing where both were asked for.
    if (mode === "require" && known.startsWith("verify")) return
    if (known !== mode) throw new ConninfoError("has an ssl and an sslmode that differ: keep sslmode")
    found.set("sslmode", mode)
    return
  }
  if (!KEYWORDS.has(keyword))
    throw new ConninfoError(`has the keyword ${keyword}, which there is not: remove it`)
  found.set(keyword, value)
}
