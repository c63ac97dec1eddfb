/** How much a connection to PostgreSQL is encrypted and verified: sslmode and what belongs to it, with libpq's meaning. */

import { existsSync } from "node:fs"
import type { ConnectionOptions, SecureVersion } from "node:tls"
import { ConninfoError } from "./conninfo.ts"
import { homeFile, readText } from "./libpq-files.ts"
import { oneOf, type Values } from "./values.ts"

export type Tls =
  | { readonly kind: "off" }
  /** `first` is tried before the other; `prefer` keeps a line whose server has no TLS. */
  | { readonly kind: "optional"; readonly first: "tls" | "plain"; readonly options: TlsOptions }
  | { readonly kind: "required"; readonly direct: boolean; readonly options: TlsOptions }

export interface TlsOptions extends ConnectionOptions {
  /** Whether the host's name is told to the server. */
  readonly named: boolean
  /** As it was set, for messages. */
  readonly mode: string
}

const VERSIONS: Record<string, SecureVersion> = {
  TLSv1: "TLSv1",
  "TLSv1.1": "TLSv1.1",
  "TLSv1.2": "TLSv1.2",
  "TLSv1.3": "TLSv1.3",
}

/** @throws ConninfoError that says what is wrong, or what cannot be done here. */
export function readTls(values: Values): Tls {
  const system = values("sslrootcert") === "system"
  const mode = readMode(values, system)
  const direct = oneOf(values, "sslnegotiation", ["postgres", "direct"]) === "direct"
  const weak = mode === "disable" || mode === "allow" || mode === "prefer"
  if (direct && weak)
    throw new ConninfoError("has sslnegotiation=direct, which needs sslmode=require or more")
  if (system && mode !== "verify-full")
    throw new ConninfoError("has sslrootcert=system, which needs sslmode=verify-full")
  if (mode === "disable") return { kind: "off" }
  const options = { ...readCertificates(values), ...readVerification(values, mode, system), mode }
  if (weak) return { kind: "optional", first: mode === "prefer" ? "tls" : "plain", options }
  return {
    kind: "required",
    direct,
    options: direct ? { ...options, ALPNProtocols: ["postgresql"] } : options,
  }
}

function readMode(values: Values, system: boolean) {
  if (values("sslmode") === undefined) return system ? "verify-full" : "prefer"
  // Of node-postgres: the same as require.
  if (values("sslmode") === "no-verify") return "require"
  return oneOf(values, "sslmode", ["prefer", "disable", "allow", "require", "verify-ca", "verify-full"])
}

/** A certificate of an authority is used where it is there, also for `require`, as libpq does. */
function readVerification(values: Values, mode: string, system: boolean): ConnectionOptions {
  // Said outright, since NODE_TLS_REJECT_UNAUTHORIZED would be believed otherwise.
  const verified = { rejectUnauthorized: true }
  if (system) return verified
  const named = values("sslrootcert")
  const path = named ?? homeFile(".postgresql/root.crt")
  const there = named !== undefined || existsSync(path)
  if (mode.startsWith("verify") && !there)
    throw new ConninfoError(
      `has sslmode=${mode}, but no authority to verify with: set sslrootcert to its file or to system, or put it into ${path}`,
    )
  if (!there || mode === "allow" || mode === "prefer") return { rejectUnauthorized: false }
  const ca = readText(path)
  return mode === "verify-full"
    ? { ...verified, ca }
    : { ...verified, ca, checkServerIdentity: () => undefined }
}

function readCertificates(values: Values): Omit<TlsOptions, "mode"> {
  const file = (keyword: string, usual: string) => {
    const path = values(keyword) ?? (existsSync(homeFile(usual)) ? homeFile(usual) : undefined)
    return path === undefined ? undefined : readText(path)
  }
  if (values("sslcrldir") !== undefined)
    throw new ConninfoError(
      "has an sslcrldir, which is not known here: put the lists into one file, and set sslcrl",
    )
  const sends = oneOf(values, "sslcertmode", ["allow", "disable", "require"]) !== "disable"
  const cert = sends ? file("sslcert", ".postgresql/postgresql.crt") : undefined
  const key = cert === undefined ? undefined : file("sslkey", ".postgresql/postgresql.key")
  const crl = file("sslcrl", ".postgresql/root.crl")
  const passphrase = values("sslpassword")
  const [least, most] = [values("ssl_min_protocol_version"), values("ssl_max_protocol_version")]
  return {
    named: values("sslsni") !== "0",
    minVersion: readVersion("ssl_min_protocol_version", least) ?? "TLSv1.2",
    ...(most === undefined ? {} : { maxVersion: readVersion("ssl_max_protocol_version", most) }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(crl === undefined ? {} : { crl }),
    ...(passphrase === undefined ? {} : { passphrase }),
  }
}

function readVersion(keyword: string, text: string | undefined): SecureVersion | undefined {
  const version = text === undefined ? undefined : VERSIONS[text]
  if (text !== undefined && version === undefined)
    throw new ConninfoError(`has a ${keyword} that is none of ${Object.keys(VERSIONS).join(", ")}`)
  return version
}
