/** A reading session on a changelog, as the feed has one. */

import type { Test } from "tap"
import { type Changelog, createChangelog, type Session } from "../../relay/changelog.ts"

/** Both closed with the test. */
export async function openSession(
  t: Test,
  { url }: { url: string },
): Promise<{ changelog: Changelog; session: Session }> {
  const changelog = createChangelog(url, () => {})
  const session = await changelog.open()
  t.teardown(async () => {
    session.close()
    await changelog.close()
  })
  return { changelog, session }
}
