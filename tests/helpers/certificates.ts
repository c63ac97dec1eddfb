/** An authority of the test's own, and what it signs. */

import { execFile, spawnSync } from "node:child_process"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import type { Test } from "tap"

const execute = promisify(execFile)

/** The reason to skip what needs certificates, or false. */
export const noOpenssl: string | false =
  spawnSync("openssl", ["version"]).status === 0 ? false : "no openssl on this machine"

export interface Authority {
  /** Its certificate. */
  root: string
  /** @param extensions such as `subjectAltName=DNS:localhost`. */
  sign(name: string, extensions?: string): Promise<{ cert: string; key: string }>
}

/** Makes one, removed with the test. */
export async function authority(t: Test): Promise<Authority> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-certificates-"))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  const path = (name: string) => join(home, name)
  const openssl = (...args: string[]) => execute("openssl", args)
  const [root, rootKey] = [path("root.crt"), path("root.key")]
  const fresh = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
  await openssl("req", "-x509", ...fresh, "-keyout", rootKey, "-out", root, "-subj", "/CN=the tests")
  return {
    root,
    async sign(name, extensions = "keyUsage=digitalSignature") {
      const [cert, key, request] = [path(`${name}.crt`), path(`${name}.key`), path(`${name}.csr`)]
      await openssl("req", "-new", ...fresh, "-keyout", key, "-out", request, "-subj", `/CN=${name}`)
      await writeFile(path(`${name}.ext`), extensions)
      const by = ["-CA", root, "-CAkey", rootKey, "-CAcreateserial", "-extfile", path(`${name}.ext`)]
      await openssl("x509", "-req", "-in", request, "-out", cert, ...by)
      return { cert, key }
    },
  }
}
