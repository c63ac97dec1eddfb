/** The keys that tokens are checked with. Its type pins each to one algorithm; a token only chooses among them. */

import { createPublicKey, createSecretKey, type KeyObject } from "node:crypto"
import { z } from "zod"
import { ConfigError, type Settings } from "../config.ts"

export interface Key {
  /** What tokens call it (`kid`). */
  readonly id: string | undefined
  readonly algorithm: "HS256" | "RS256" | "ES256"
  readonly key: KeyObject
}

/** What a token's header says of its key. Nothing else in it counts. */
export interface KeyHint {
  readonly alg: string
  readonly kid?: string | undefined
}

/** `unavailable`: whether there is such a key cannot be said now. */
export type FoundKeys =
  | { kind: "known"; keys: readonly Key[] }
  | { kind: "unknown" }
  | { kind: "unavailable" }

export const KeysReport = z.object({
  source: z.enum(["settings", "jwks"]),
  known: z.number(),
  fetched_seconds_ago: z.number().nullable(),
  error: z.string().nullable(),
})
export type KeysReport = z.infer<typeof KeysReport>

/** Of several processes that fetch their keys each for itself: how the one stands that is worst off. */
export const worstOf = (reports: readonly KeysReport[]): KeysReport | undefined =>
  reports.toSorted(
    (a, b) =>
      a.known - b.known ||
      Number(b.error !== null) - Number(a.error !== null) ||
      (b.fetched_seconds_ago ?? 0) - (a.fetched_seconds_ago ?? 0),
  )[0]

export interface Keys {
  find(hint: KeyHint): Promise<FoundKeys>
  report(): KeysReport
  start(): void
  stop(): void
}

/** The keys of the settings: several secrets or public keys while one follows another. A token's `kid` does not count. */
export function settledKeys(
  settings: Pick<Settings, "JWT_SECRET" | "JWT_SECRET_PREVIOUS" | "JWT_PUBLIC_KEY">,
): Keys {
  const keys = readKeys(settings)
  return {
    async find({ alg }) {
      const fitting = keys.filter(({ algorithm }) => algorithm === alg)
      return fitting.length > 0 ? { kind: "known", keys: fitting } : { kind: "unknown" }
    },
    report: () => ({ source: "settings", known: keys.length, fetched_seconds_ago: null, error: null }),
    start() {},
    stop() {},
  }
}

/** RFC 7518, section 3.3. Bits. */
const LEAST_RSA_BITS = 2_048

/** @returns undefined for a key of another type, or one that is too short. */
export function pinKey(id: string | undefined, key: KeyObject): Key | undefined {
  const { modulusLength = 0, namedCurve } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType === "rsa" && modulusLength >= LEAST_RSA_BITS)
    return { id, algorithm: "RS256", key }
  if (key.asymmetricKeyType === "ec" && namedCurve === "prime256v1") return { id, algorithm: "ES256", key }
  return undefined
}

/** @throws ConfigError if there is none, or one of another type. */
function readKeys(
  settings: Pick<Settings, "JWT_SECRET" | "JWT_SECRET_PREVIOUS" | "JWT_PUBLIC_KEY">,
): readonly Key[] {
  const secrets = [settings.JWT_SECRET, settings.JWT_SECRET_PREVIOUS].filter((secret) => secret !== undefined)
  if (secrets.length > 0)
    return secrets.map((secret) => ({
      id: undefined,
      algorithm: "HS256",
      key: createSecretKey(Buffer.from(secret)),
    }))
  if (settings.JWT_PUBLIC_KEY === undefined) {
    throw new ConfigError(
      "JWT_SECRET (--jwt-secret) is missing: set it, or JWT_PUBLIC_KEY or JWKS_URL, to what your tokens are signed with",
    )
  }
  if (settings.JWT_PUBLIC_KEY.includes("PRIVATE KEY"))
    throw wrong("it is a private key, and the relay needs the public key only")
  const blocks = settings.JWT_PUBLIC_KEY.replaceAll("\\n", "\n").match(
    /-----BEGIN [^-]+-----[^-]+-----END [^-]+-----/g,
  )
  if (blocks === null) throw wrong("it is not a PEM public key")
  return blocks.map((pem) => {
    const key = readPublicKey(pem)
    const pinned = pinKey(undefined, key)
    if (pinned !== undefined) return pinned
    throw wrong(
      key.asymmetricKeyType === "rsa"
        ? `an RSA key must have ${LEAST_RSA_BITS} bits or more`
        : "it must be an RSA key or a P-256 key",
    )
  })
}

function readPublicKey(pem: string): KeyObject {
  try {
    return createPublicKey(pem)
  } catch (cause) {
    throw wrong("it is not a PEM public key", cause)
  }
}

const wrong = (why: string, cause?: unknown) =>
  new ConfigError(`JWT_PUBLIC_KEY (--jwt-public-key) is wrong: ${why}`, { cause })
