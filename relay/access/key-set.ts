/** A key set of an issuer (JWKS, RFC 7517): downloaded within bounds, and read to the keys that can be used. */

import { createPublicKey, type KeyObject } from "node:crypto"
import { z } from "zod"
import { readJson } from "../lib/json.ts"
import { type Key, type KeyHint, pinKey } from "./keys.ts"

/** Key sets have some KiB. */
const MAX_BYTES = 262_144

export const namesOf = (keys: readonly Key[]): string =>
  JSON.stringify(keys.map(({ id, algorithm }) => [id ?? null, algorithm]))

/** @throws if there is no answer, or one of another status, a redirect or too many bytes. */
export async function download(url: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(url, {
    headers: { accept: "application/jwk-set+json, application/json" },
    redirect: "error",
    signal,
  })
  const body = response.body ?? []
  if (response.status !== 200) {
    await response.body?.cancel()
    throw new Error(`the issuer answers ${response.status}`)
  }
  const pieces: Uint8Array[] = []
  let size = 0
  for await (const piece of body) {
    size += piece.length
    if (size > MAX_BYTES) throw new Error(`the issuer answers more than ${MAX_BYTES} bytes`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces).toString()
}

const KeySet = z.object({ keys: z.array(z.unknown()) })

/** A key to check signatures with. Secrets, private keys and keys for other uses are none. */
const SigningKey = z.object({
  kty: z.enum(["RSA", "EC"]),
  kid: z.string().max(256).optional(),
  alg: z.enum(["RS256", "ES256"]).optional(),
  use: z.literal("sig").optional(),
  key_ops: z
    .array(z.string())
    .refine((uses) => uses.includes("verify"))
    .optional(),
  n: z.string().optional(),
  e: z.string().optional(),
  crv: z.string().optional(),
  x: z.string().optional(),
  y: z.string().optional(),
  d: z.undefined().optional(),
})

/** The keys of a set that can be used; the others are left out. @throws if there is none. */
export function readKeySet(text: string): readonly Key[] {
  const set = KeySet.safeParse(readJson(text))
  if (!set.success) throw new Error("the issuer's answer is no key set")
  const keys = set.data.keys.map(readSigningKey).filter((key) => key !== undefined)
  if (keys.length === 0) throw new Error("the issuer's key set has no key for RS256 or ES256")
  return keys
}

function readSigningKey(jwk: unknown): Key | undefined {
  const { data } = SigningKey.safeParse(jwk)
  if (data === undefined) return undefined
  const { kty, n, e, crv, x, y, kid, alg } = data
  const key = importKey(kty === "RSA" ? { kty, n, e } : { kty, crv, x, y })
  const pinned = key === undefined ? undefined : pinKey(kid, key)
  return alg === undefined || alg === pinned?.algorithm ? pinned : undefined
}

function importKey(jwk: Record<string, string | undefined>): KeyObject | undefined {
  try {
    return createPublicKey({ key: jwk, format: "jwk" })
  } catch {
    return undefined
  }
}

/** The keys for a token. One without a `kid` is checked only if there is no choice. */
export function keysFor({ alg, kid }: KeyHint, keys: readonly Key[]): readonly Key[] {
  const fitting = keys.filter(({ algorithm }) => algorithm === alg)
  if (kid !== undefined) return fitting.filter(({ id }) => id === kid)
  return fitting.length === 1 ? fitting : []
}

/** Whether another fetch would not help a token either: no key is of its algorithm, or its key is known to be another. */
export const isHopeless = ({ alg, kid }: KeyHint, keys: readonly Key[]): boolean =>
  (alg !== "RS256" && alg !== "ES256") ||
  (kid === undefined ? keys.length > 0 : keys.some(({ id }) => id === kid))
