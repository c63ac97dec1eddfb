/** The database of a run: an embedded PostgreSQL with the election's tables, and a copy of one for the rivals. */

import { type Embedded, openEmbedded } from "../../cli/embedded/embedded.ts"
import { readSecrets } from "../../cli/embedded/secrets.ts"
import { readElectionSchema } from "../../cli/schema/migrations.ts"
import { COPY_CHANNEL, COPY_TABLE, OWN_TABLE, openSession } from "./session.ts"

const COPY = `
  create table ${COPY_TABLE} (like ${OWN_TABLE} including all);
  create function plain_notify() returns trigger language plpgsql as $$
  begin
    perform pg_notify('${COPY_CHANNEL}', json_build_object('type', 'voting_update', 'action', 'create', 'data', new)::text);
    return null;
  end $$;
  create trigger plain_notify after insert on ${COPY_TABLE} for each row execute function plain_notify();
`

/** Opens one in a directory that is empty. */
export async function openDatabase(dir: string): Promise<Embedded> {
  const embedded = await openEmbedded({ dir, log: { info() {}, warn() {} } })
  const session = await openSession(embedded.databaseUrl)
  await session.query(`begin; ${await readElectionSchema()} ${COPY} commit`)
  await session.end()
  await allowCheckpoints(embedded, dir)
  return embedded
}

/** A checkpoint before each case, so that none falls into some of them by itself. */
async function allowCheckpoints({ databaseUrl }: Embedded, dir: string): Promise<void> {
  const url = new URL(databaseUrl)
  const role = url.username
  url.username = "postgres"
  url.password = (await readSecrets(dir)).superuser_password
  const session = await openSession(url.href)
  await session.query(`grant pg_checkpoint to ${session.escapeIdentifier(role)}`)
  await session.end()
}
